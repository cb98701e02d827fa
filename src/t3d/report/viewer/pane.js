// One side of the page: a response at a step. Every text goes in through textContent.

const MOST_TOKENS = 3000;
const MOST_CHARACTERS = 50000;

/** An element of a class with a text and children. */
function element(kind, classes, text, ...children) {
  const made = document.createElement(kind);
  if (classes) made.className = classes;
  if (text !== undefined && text !== null) made.textContent = text;
  made.append(...children);
  return made;
}

function badge(record) {
  if (!record || record.correct === undefined) return null;
  return record.correct ? element("span", "badge right", "✓ right") : element("span", "badge wrong", "✗ wrong");
}

/** A text that may be very long: its beginning, and a button for the rest. */
function longText(text, classes, most = MOST_CHARACTERS) {
  const box = element("div", `text ${classes}`);
  box.dir = "auto";
  if (text.length <= most) {
    box.textContent = text;
    return box;
  }
  const shown = element("span", null, text.slice(0, most));
  const more = element("button", "more", `show all ${text.length} characters`);
  more.addEventListener("click", () => {
    shown.textContent = text;
    more.remove();
  });
  box.append(shown, more);
  return box;
}

/** The marks of a token that do not change while it is played. */
function tokenClasses(record, place) {
  const classes = ["token", `step-${(record.map[place] - 1) % 8}`];
  if (beginsBlock(record, place)) classes.push("begins");
  if (place >= record.visible) classes.push("behind");
  if (record.origins) classes.push(`origin-${record.origins[place]}`);
  if (record.logprobs) classes.push(`sure-${sureness(record.logprobs[place])}`);
  return classes.join(" ");
}

/** A token: its text keeps its place while it is masked, so that nothing moves. */
function tokenElement(record, place, tokens) {
  const text = tokens.texts[record.row[place]];
  const made = element("span", tokenClasses(record, place), text.replaceAll("\n", "↵\n") || "·");
  made.dataset.place = place;
  made.dataset.step = record.map[place];
  return made;
}

/** Tokens of a response, the first of them at once and the rest when they are asked for. */
class TokenRow {
  constructor(record, tokens) {
    this.record = record;
    this.tokens = tokens;
    this.step = 0;
    this.box = element("div", "text tokens");
    this.box.dir = "auto";
    this.spans = [];
    this.more = element("button", "more");
    this.more.addEventListener("click", () => this.add(this.spans.length + MOST_TOKENS));
    this.add(MOST_TOKENS);
  }

  add(count) {
    const { record, tokens } = this;
    const fresh = document.createDocumentFragment();
    const end = Math.min(count, record.row.length);
    for (let place = this.spans.length; place < end; place += 1) {
      const made = tokenElement(record, place, tokens);
      this.mark(made, record.map[place]);
      this.spans.push(made);
      fresh.append(made);
    }
    this.more.remove();
    this.box.append(fresh);
    if (end < record.row.length) {
      this.more.textContent = `show more of ${record.row.length} tokens`;
      this.box.append(this.more);
    }
  }

  mark(span, committed) {
    const isMasked = committed > this.step;
    span.classList.toggle("masked", isMasked);
    span.classList.toggle("fresh", committed === this.step);
    span.setAttribute("aria-hidden", String(isMasked));
  }

  /** Touches only tokens whose look changes. */
  show(step) {
    const before = this.step;
    this.step = step;
    const [low, high] = [Math.min(before, step), Math.max(before, step)];
    for (const place of committedBetween(this.record.map, low - 1, high)) {
      if (place < this.spans.length) this.mark(this.spans[place], this.record.map[place]);
    }
  }
}

/** What the record says beside its text. */
function facts(record) {
  const lines = [];
  if (record.answer !== undefined) lines.push(["reference", record.answer]);
  if (record.extracted !== undefined) lines.push(["extracted", record.extracted]);
  if (record.reason !== undefined) lines.push(["verdict", record.reason]);
  if (record.finish !== undefined) lines.push(["ended by", record.finish]);
  const list = element("dl", "facts");
  for (const [name, value] of lines) {
    const shown = element("dd", null, value.length > 400 ? `${value.slice(0, 400)} …` : value);
    shown.dir = "auto";
    list.append(element("dt", null, name), shown);
  }
  return list;
}

function originCounts(record) {
  const names = Object.keys(ORIGINS).filter((mark) => record.origins.includes(mark));
  const list = element("p", "legend");
  for (const mark of names) {
    const count = [...record.origins].filter((one) => one === mark).length;
    list.append(element("span", null, null, element("span", `token origin-${mark}`, ORIGINS[mark]), ` ${count}`));
  }
  return list;
}

/** One side: its name, verdict and counts, and the response. */
class Pane {
  constructor(box, tokens) {
    this.box = box;
    this.tokens = tokens;
    this.row = null;
  }

  open(record, source) {
    this.record = record;
    this.row = null;
    const name = element("h2", null, source.name);
    name.dir = "auto";
    this.counts = element("p", "counts");
    this.box.replaceChildren(element("header", null, null, name, ...[badge(record)].filter(Boolean)), this.counts);
    if (!record) {
      this.box.append(element("p", "note", "No response of this id here."));
      return;
    }
    if (record.row) {
      this.row = new TokenRow(record, this.tokens);
      this.box.append(this.row.box);
      if (record.origins) this.box.append(originCounts(record));
    }
    if (record.text !== undefined) this.box.append(longText(record.text, "answer"));
    if (!record.row) this.box.append(element("p", "note", "This record has no order of commits: nothing to play."));
    this.box.append(facts(record));
  }

  /** At a step of the page; a side with fewer steps is finished earlier. */
  show(step) {
    if (!this.record) {
      this.counts.textContent = "";
      return;
    }
    const last = numSteps(this.record);
    const parts = [];
    if (this.row) {
      this.row.show(Math.min(step, last));
      parts.push(`step ${Math.min(step, last)} of ${last}`);
      parts.push(`${this.record.visible} tokens`);
    } else if (this.record.steps !== undefined) {
      parts.push(`${this.record.steps} steps`);
    }
    const { forwards } = this.record;
    parts.push(forwards === undefined ? "forwards not recorded" : `${forwards} forwards`);
    this.counts.textContent = parts.join(" · ");
  }
}
