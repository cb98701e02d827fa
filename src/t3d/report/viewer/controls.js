// Buttons, fields and keys, and the start.

/** Of a long path its end, where the setting stands. */
function endOf(name) {
  return name.length > 23 ? `…${name.slice(-22)}` : name;
}

function fillSources() {
  for (const [id, none] of [["left-source", false], ["right-source", true]]) {
    const options = data.sources.map((source, index) => new Option(endOf(source.name), index));
    $(id).replaceChildren(...(none ? [new Option("nothing", "")] : []), ...options);
  }
  $("sources").hidden = data.sources.length < 2;
  const hasVerdicts = data.sources.some((source) => tally(source.records).graded > 0);
  const unused = data.sources.length < 2 ? ["changed", "unmatched"] : [];
  if (!hasVerdicts) unused.push("right", "wrong", "changed");
  for (const option of [...$("filter").options]) if (unused.includes(option.value)) option.remove();
}

function listenToFields() {
  $("left-source").addEventListener("change", (event) => {
    state.left = Number(event.target.value);
    takeSources();
  });
  $("right-source").addEventListener("change", (event) => {
    state.right = event.target.value === "" ? null : Number(event.target.value);
    takeSources();
  });
  $("filter").addEventListener("change", (event) => {
    state.filter = event.target.value;
    search(current() ? current().id : undefined);
  });
  let waiting = null;
  $("search").addEventListener("input", (event) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      state.q = event.target.value;
      search(current() ? current().id : undefined);
    }, 120);
  });
  $("theme").addEventListener("click", () => {
    const isDark = $("theme").textContent.includes("light");
    state.theme = isDark ? "light" : "dark";
    dress();
    link();
  });
  $("colour").addEventListener("change", (event) => document.body.classList.toggle("by-sureness", event.target.value === "sureness"));
  $("numbers").addEventListener("change", (event) => document.body.classList.toggle("numbered", event.target.checked));
  $("menu").addEventListener("click", () => $("side").classList.toggle("open"));
}

function listenToPlayer() {
  $("play").addEventListener("click", toggle);
  $("back").addEventListener("click", () => stepBy(-1));
  $("forth").addEventListener("click", () => stepBy(1));
  $("previous").addEventListener("click", () => turn(-1));
  $("next").addEventListener("click", () => turn(1));
  $("slider").addEventListener("input", (event) => {
    stop();
    goTo(Number(event.target.value));
  });
  $("speed").addEventListener("change", () => {
    if (state.timer !== null) {
      stop();
      play();
    }
  });
  for (const kind of ["pointerover", "click"]) $("panes").addEventListener(kind, sayToken);
}

/** What is known of the token under the pointer or finger. */
function sayToken(event) {
  const span = event.target.closest(".tokens .token");
  if (!span || span.classList.contains("masked")) return;
  const side = span.closest("#left") ? "left" : "right";
  const told = tokenDetail(current()[side], Number(span.dataset.place), data.tokens.ids);
  $("detail").textContent = told;
  span.title = told;
}

const KEYS = {
  ArrowRight: () => stepBy(1),
  ArrowLeft: () => stepBy(-1),
  Home: () => stepBy(-Infinity),
  End: () => stepBy(Infinity),
  " ": toggle,
  j: () => turn(1),
  k: () => turn(-1),
  "/": () => {
    $("side").classList.add("open");
    $("search").focus();
  },
};

/** Keys act everywhere but in fields; a button and the slider keep their own. */
function onKey(event) {
  const target = event.target;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") {
    target.blur();
    $("side").classList.remove("open");
    return;
  }
  if (target.matches("input[type=search], select")) return;
  if (event.key === " " && target.matches("button, input[type=checkbox], summary")) return;
  const act = KEYS[event.key];
  if (act) {
    event.preventDefault();
    act();
  }
}

function start() {
  document.title = `${data.title} · t3d view`;
  $("title").textContent = data.title;
  $("notes").replaceChildren(...data.notes.map((note) => element("p", "note", note)));
  state.right = data.right;
  fillSources();
  listenToFields();
  listenToPlayer();
  document.addEventListener("keydown", onKey);
  addEventListener("hashchange", () => {
    if (location.hash !== written) follow();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", dress);
  follow();
}

start();
