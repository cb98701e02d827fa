// The page: what is chosen, what plays, keys and addresses.

const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const state = { left: 0, right: null, filter: "all", q: "", theme: null, step: 0, index: -1, timer: null };
const panes = { left: new Pane($("left"), data.tokens), right: new Pane($("right"), data.tokens) };
const list = new ResponseList($("list"), (index) => {
  choose(index);
  $("side").classList.remove("open");
});
let pairs = [];
let shown = [];
let written = "";
let writing = null;

const current = () => shown[state.index] || null;
const lastStep = () => (current() ? Math.max(numSteps(current().left), numSteps(current().right)) : 0);

/** Takes the sources of both sides, keeping the response that is open where it is still there. */
function takeSources() {
  const before = current();
  const right = state.right === null ? null : data.sources[state.right];
  pairs = pairUp(data.sources[state.left], right);
  document.body.classList.toggle("compared", right !== null);
  sayTotals();
  search(before ? before.id : undefined);
}

function sayTotals() {
  const says = (source) => {
    const { graded, right } = tally(source.records);
    const cut = source.total > source.records.length ? ` of ${source.total}` : "";
    const verdicts = graded ? `, ${right} of ${graded} right (${((100 * right) / graded).toFixed(1)} %)` : "";
    return `${source.records.length}${cut} responses${verdicts}`;
  };
  const parts = [says(data.sources[state.left])];
  if (state.right !== null) {
    parts.push(`beside ${says(data.sources[state.right])}`);
    const sums = totals(pairs);
    parts.push(`${sums.matched} in both, ${pairs.length - sums.matched} on one side only`);
    if (sums.left && sums.right && sums.matched) {
      const said = `${sums.left.count} ${sums.left.unit} against ${sums.right.count} ${sums.right.unit}`;
      const ratio = sums.left.unit === sums.right.unit && sums.right.count;
      parts.push(ratio ? `${said} (${(sums.left.count / sums.right.count).toFixed(2)} times)` : said);
    }
  }
  $("totals").textContent = parts.join("; ");
}

function search(id) {
  shown = found(pairs, state.filter, state.q, data.tokens.texts);
  $("found").textContent = `${shown.length} of ${pairs.length}`;
  list.fill(shown, state.right !== null);
  const place = id === undefined ? -1 : shown.findIndex((pair) => pair.id === id);
  choose(place >= 0 ? place : shown.length ? 0 : -1);
}

/** Opens a response, finished, or at a step. */
function choose(index, step) {
  state.index = index;
  const pair = current();
  document.body.classList.toggle("empty", !pair);
  list.choose(index);
  if (!pair) {
    stop();
    link();
    return;
  }
  $("name").textContent = pair.id;
  const record = pair.left || pair.right;
  const asked = record.question !== undefined ? record.question : record.prompt;
  $("question").replaceChildren(asked === undefined ? "" : longText(asked, "question", 2000));
  panes.left.open(pair.left, data.sources[state.left]);
  if (state.right !== null) panes.right.open(pair.right, data.sources[state.right]);
  $("slider").max = lastStep();
  for (const id of ["slider", "play", "back", "forth"]) $(id).disabled = lastStep() === 0;
  document.body.classList.toggle("surenesses", [pair.left, pair.right].some((side) => side && side.logprobs));
  $("detail").textContent = "";
  goTo(step === undefined ? (state.timer === null ? lastStep() : 0) : step);
}

function goTo(step) {
  state.step = Math.max(0, Math.min(step, lastStep()));
  panes.left.show(state.step);
  if (state.right !== null) panes.right.show(state.step);
  $("slider").value = state.step;
  $("slider").setAttribute("aria-valuetext", `step ${state.step} of ${lastStep()}`);
  $("step").textContent = `${state.step} / ${lastStep()}`;
  link();
}

function play() {
  if (lastStep() === 0) return;
  if (state.step >= lastStep()) goTo(0);
  const tick = () => {
    if (state.step < lastStep()) goTo(state.step + 1);
    if (state.step >= lastStep()) stop();
  };
  state.timer = setInterval(tick, 1000 / Number($("speed").value));
  sayPlaying();
}

function stop() {
  clearInterval(state.timer);
  state.timer = null;
  sayPlaying();
}

function sayPlaying() {
  const isPlaying = state.timer !== null;
  $("play").textContent = isPlaying ? "❚❚" : "▶";
  $("play").setAttribute("aria-label", isPlaying ? "Pause (space)" : "Play (space)");
  if (!isPlaying) link();
}

const toggle = () => (state.timer === null ? play() : stop());
const turn = (by) => choose(Math.max(0, Math.min(state.index + by, shown.length - 1)));
const stepBy = (by) => {
  stop();
  goTo(state.step + by);
};

/** The address of what is shown, written a little later, since browsers refuse many in a second. */
function link() {
  clearTimeout(writing);
  if (state.timer === null) writing = setTimeout(writeLink, 150);
}

function writeLink() {
  const pair = current();
  const named = pair && isWellFormed(pair.id) ? { id: pair.id } : { n: pair ? pairs.indexOf(pair) : null };
  const filter = state.filter === "all" ? null : state.filter;
  const { step, left, right, q, theme } = state;
  written = `#${linkOf({ ...named, step: pair ? step : null, left, right, filter, q, theme })}`;
  if (location.hash !== written) history.replaceState(null, "", written);
}

/** Shows what an address says; what it does not say stays as it is. */
function follow() {
  const said = readLink(location.hash);
  for (const side of ["left", "right"]) if (said[side] in data.sources) state[side] = said[side];
  if ([...$("filter").options].some((option) => option.value === said.filter)) state.filter = said.filter;
  state.q = said.q || "";
  if (said.theme === "light" || said.theme === "dark") state.theme = said.theme;
  dress();
  $("left-source").value = state.left;
  $("right-source").value = state.right === null ? "" : state.right;
  $("filter").value = state.filter;
  $("search").value = state.q;
  const id = said.id;
  stop();
  takeSources();
  const isWanted = (pair) => (id === undefined ? pairs.indexOf(pair) === said.n : pair.id === id);
  const place = shown.findIndex(isWanted);
  if (place >= 0) choose(place, said.step);
}

function dress() {
  if (state.theme) document.documentElement.dataset.theme = state.theme;
  const isDark = state.theme ? state.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  $("theme").textContent = isDark ? "☀ light" : "☾ dark";
}
