// The list of responses: only the rows in view are in the page, so that thousands cost nothing.

const ROW_HEIGHT = 52;

class ResponseList {
  constructor(box, onChoose) {
    this.box = box;
    this.onChoose = onChoose;
    this.pairs = [];
    this.chosen = -1;
    this.drawn = null;
    this.inner = element("div", "rows");
    this.box.replaceChildren(this.inner);
    this.box.addEventListener("scroll", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(this.box);
  }

  fill(pairs, compared) {
    this.pairs = pairs;
    this.compared = compared;
    this.inner.style.height = `${pairs.length * ROW_HEIGHT}px`;
    this.drawn = null;
    this.draw();
  }

  choose(index) {
    this.chosen = index;
    const top = index * ROW_HEIGHT;
    if (index >= 0 && (top < this.box.scrollTop || top + ROW_HEIGHT > this.box.scrollTop + this.box.clientHeight)) {
      this.box.scrollTop = Math.max(0, top - this.box.clientHeight / 2);
    }
    this.draw();
  }

  /** Makes the rows in view anew only where they are others than before. */
  draw() {
    const [first, last] = rowsInView(this.box.scrollTop, this.box.clientHeight, ROW_HEIGHT, this.pairs.length);
    if (this.drawn === null || this.drawn[0] !== first || this.drawn[1] !== last) {
      const focused = document.activeElement && document.activeElement.dataset.index;
      const rows = [];
      for (let index = first; index < last; index += 1) rows.push(this.row(this.pairs[index], index));
      this.inner.replaceChildren(...rows);
      this.drawn = [first, last];
      const again = rows.find((row) => row.dataset.index === focused);
      if (again) again.focus({ preventScroll: true });
    }
    for (const row of this.inner.children) {
      if (Number(row.dataset.index) === this.chosen) row.setAttribute("aria-current", "true");
      else row.removeAttribute("aria-current");
    }
  }

  row(pair, index) {
    const name = element("span", "name", pair.id);
    name.dir = "auto";
    const about = element("span", "about", null, ...this.about(pair));
    const made = element("button", "row", null, name, about);
    made.type = "button";
    made.dataset.index = index;
    made.style.top = `${index * ROW_HEIGHT}px`;
    made.addEventListener("click", () => this.onChoose(index));
    return made;
  }

  about(pair) {
    const parts = [];
    for (const side of this.compared ? ["left", "right"] : ["left"]) {
      const record = pair[side];
      if (record) {
        const verdict = record.correct === undefined ? "" : record.correct ? "✓ " : "✗ ";
        const cost = costOf(record);
        const kind = record.correct === undefined ? "" : record.correct ? "right" : "wrong";
        parts.push(element("span", `mini ${kind}`, `${verdict}${cost ? `${cost.count} ${cost.unit}` : "text"}`));
      } else {
        parts.push(element("span", "mini", `not on the ${side}`));
      }
    }
    return parts;
  }
}
