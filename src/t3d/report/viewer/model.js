// What is shown and when, without the page: pure functions of the data (the names are those of page.py).

/** Denoising steps that a record can be played over; 0 for a text alone. */
function numSteps(record) {
  return record && record.map ? record.map.reduce((most, step) => Math.max(most, step), 0) : 0;
}

/** Places of the tokens that steps from + 1 to upTo committed. */
function committedBetween(map, from, upTo) {
  const places = [];
  map.forEach((step, place) => {
    if (step > from && step <= upTo) places.push(place);
  });
  return places;
}

/** Whether a block of the absolute grid begins at this place of the response. */
function beginsBlock(record, place) {
  if (!record.block) return false;
  return place === 0 || (place + (record.offset || 0)) % record.block === 0;
}

/** The number of a place's block, from 1. */
function blockOf(record, place) {
  return record.block ? Math.floor((place + (record.offset || 0)) / record.block) + 1 : 0;
}

const ORIGINS = { a: "accepted draft", c: "correction", b: "bonus", u: "no draft", d: "drawn" };

/** What is said of a token where the pointer is. */
function tokenDetail(record, place, tokenIds) {
  const parts = [`token ${place + 1} of ${record.row.length}`, `id ${tokenIds[record.row[place]]}`];
  parts.push(`step ${record.map[place]}`);
  if (record.block) parts.push(`block ${blockOf(record, place)}`);
  if (record.logprobs) {
    const value = record.logprobs[place];
    parts.push(`probability ${Math.exp(value).toFixed(3)} (log ${value.toFixed(3).replace("-0.000", "0.000")})`);
  }
  if (record.origins) parts.push(ORIGINS[record.origins[place]]);
  if (place >= record.visible) parts.push("behind the end of the answer");
  return parts.join(" · ");
}

/** How sure the model was, from 0 (not at all) to 4. */
function sureness(logprob) {
  const probability = Math.exp(logprob);
  return [0.5, 0.8, 0.95, 0.99].filter((bound) => probability >= bound).length;
}

/** Records of both sides by id: those of the left in its order, then those that only the right has. */
function pairUp(left, right) {
  if (!right) return left.records.map((record) => ({ id: record.id, left: record, right: null }));
  const others = new Map(right.records.map((record) => [record.id, record]));
  const pairs = left.records.map((record) => {
    const other = others.get(record.id) || null;
    others.delete(record.id);
    return { id: record.id, left: record, right: other };
  });
  for (const record of others.values()) pairs.push({ id: record.id, left: null, right: record });
  return pairs;
}

function isRight(record) {
  return record ? record.correct : undefined;
}

/** Whether a pair is among those of a filter; the left side's verdict counts, or that of the only side. */
function passes(pair, filter) {
  const verdict = isRight(pair.left || pair.right);
  if (filter === "right") return verdict === true;
  if (filter === "wrong") return verdict === false;
  if (filter === "changed") {
    const [one, other] = [isRight(pair.left), isRight(pair.right)];
    return one !== undefined && other !== undefined && one !== other;
  }
  if (filter === "unmatched") return !pair.left || !pair.right;
  return true;
}

/** The answer as text: its own, or that of its visible tokens. */
function answerText(record, texts) {
  if (record.text !== undefined) return record.text;
  return record.row ? record.row.slice(0, record.visible).map((place) => texts[place]).join("") : "";
}

/** All words of a pair, in lower case, made once. */
function haystack(pair, texts) {
  if (pair.words === undefined) {
    const sides = [pair.left, pair.right].filter(Boolean);
    const of = (side) => [side.task, side.question, side.prompt, side.answer, side.reason, answerText(side, texts)];
    pair.words = [pair.id, ...sides.flatMap(of)].filter(Boolean).join("\n").toLowerCase();
  }
  return pair.words;
}

/** The pairs of a filter that hold a text. */
function found(pairs, filter, query, texts) {
  const wanted = query.trim().toLowerCase();
  return pairs.filter((pair) => passes(pair, filter) && (!wanted || haystack(pair, texts).includes(wanted)));
}

/** What decoding took: forwards where the record has them, else denoising steps. */
function costOf(record) {
  if (!record) return null;
  if (record.forwards !== undefined) return { count: record.forwards, unit: "forwards" };
  const steps = record.steps !== undefined ? record.steps : numSteps(record);
  return steps ? { count: steps, unit: "steps" } : null;
}

/** Sums over the pairs that both sides have; null where a cost is missing or the units differ. */
function totals(pairs) {
  const both = pairs.filter((pair) => pair.left && pair.right);
  const sides = ["left", "right"].map((side) => {
    const costs = both.map((pair) => costOf(pair[side]));
    const unit = costs[0] ? costs[0].unit : null;
    if (!costs.every((cost) => cost && cost.unit === unit)) return null;
    return { unit, count: costs.reduce((sum, cost) => sum + cost.count, 0) };
  });
  return { matched: both.length, left: sides[0], right: sides[1] };
}

/** How many of these records are right, of those that have a verdict. */
function tally(records) {
  const graded = records.filter((record) => record.correct !== undefined);
  return { graded: graded.length, right: graded.filter((record) => record.correct).length };
}

/** The rows of a long list that are in view, and a few around them. */
function rowsInView(scrollTop, height, rowHeight, count, around = 6) {
  const first = Math.min(count, Math.max(0, Math.floor(scrollTop / rowHeight) - around));
  const last = Math.min(count, Math.ceil((scrollTop + height) / rowHeight) + around);
  return [first, last];
}

/** Whether a text survives an address: it has no lone surrogate. */
function isWellFormed(text) {
  return !/[\uD800-\uDBFF](?![\uDC00-\uDFFF])|(?<![\uD800-\uDBFF])[\uDC00-\uDFFF]/.test(text);
}

/** The address of what is shown, behind the #; `n` is the number of the response where its id cannot be written. */
function linkOf(state) {
  const link = new URLSearchParams();
  for (const name of ["id", "n", "step", "left", "right", "filter", "q", "theme"]) {
    const value = state[name];
    if (value !== undefined && value !== null && value !== "") link.set(name, String(value));
  }
  return link.toString();
}

/** What an address says; numbers that are none are left out. */
function readLink(hash) {
  const link = new URLSearchParams(hash.replace(/^#/, ""));
  const state = {};
  for (const name of ["id", "filter", "q", "theme"]) if (link.has(name)) state[name] = link.get(name);
  for (const name of ["n", "step", "left", "right"]) {
    if (/^\d{1,9}$/.test(link.get(name) || "")) state[name] = Number(link.get(name));
  }
  return state;
}
