// Assertions on model.js, which is given as an argument. Run by test_viewer_page.py.
"use strict";
const assert = require("node:assert/strict");
const source = require("node:fs").readFileSync(process.argv[2], "utf-8");
const names = [...source.matchAll(/^function (\w+)/gm)].map((match) => match[1]);
const model = new Function(`"use strict";${source}\nreturn {${names.join(",")}};`)();

const one = { id: "a", row: [0, 1, 2, 0], map: [1, 3, 2, 3], visible: 3, block: 4, offset: 3 };
const texts = ["So", " 7", "\n"];
const graded = (id, correct, forwards) => ({ id, text: `answer ${id}`, correct, forwards });

const tests = {
  "steps are the last step, and none for a text": () => {
    assert.equal(model.numSteps(one), 3);
    assert.equal(model.numSteps({ text: "x" }), 0);
    assert.equal(model.numSteps(null), 0);
  },
  "what steps commit": () => {
    assert.deepEqual(model.committedBetween(one.map, 1, 3), [1, 2, 3]);
    assert.deepEqual(model.committedBetween(one.map, 3, 3), []);
  },
  "blocks lie on the absolute grid": () => {
    assert.deepEqual([0, 1, 2, 3].map((place) => model.beginsBlock(one, place)), [true, true, false, false]);
    assert.deepEqual([0, 1, 3].map((place) => model.blockOf(one, place)), [1, 2, 2]);
    assert.equal(model.beginsBlock({ row: [1] }, 0), false);
  },
  "a token tells what its record has": () => {
    assert.equal(model.tokenDetail(one, 3, [9, 8, 7]), "token 4 of 4 · id 9 · step 3 · block 2 · behind the end of the answer");
    const sure = { ...one, logprobs: [0, -0.0001, -1, 0], origins: "uaac" };
    assert.match(model.tokenDetail(sure, 1, [9, 8, 7]), /probability 1\.000 \(log 0\.000\) · accepted draft$/);
    assert.match(model.tokenDetail(sure, 2, [9, 8, 7]), /probability 0\.368 \(log -1\.000\)/);
  },
  "sureness has five grades": () => {
    assert.deepEqual([0.1, 0.5, 0.8, 0.95, 0.99].map((p) => model.sureness(Math.log(p) + 1e-9)), [0, 1, 2, 3, 4]);
  },
  "pairs are matched by id, and one-sided ones kept": () => {
    const left = { records: [graded("a", true, 9), graded("b", true, 9)] };
    const right = { records: [graded("c", true, 3), graded("b", false, 3)] };
    const pairs = model.pairUp(left, right);
    assert.deepEqual(pairs.map((pair) => [pair.id, !!pair.left, !!pair.right]), [["a", true, false], ["b", true, true], ["c", false, true]]);
    assert.deepEqual(model.totals(pairs), { matched: 1, left: { unit: "forwards", count: 9 }, right: { unit: "forwards", count: 3 } });
    assert.deepEqual(model.found(pairs, "unmatched", "", texts).map((pair) => pair.id), ["a", "c"]);
    assert.deepEqual(model.found(pairs, "changed", "", texts).map((pair) => pair.id), ["b"]);
    assert.equal(model.pairUp(left, null).length, 2);
  },
  "filters go by the verdict, and by none without one": () => {
    const pairs = model.pairUp({ records: [graded("a", true), graded("b", false), { id: "c", text: "" }] }, null);
    const ids = (filter) => model.found(pairs, filter, "", texts).map((pair) => pair.id).join("");
    assert.deepEqual(["all", "right", "wrong"].map(ids), ["abc", "a", "b"]);
  },
  "a search reads tokens too, without case": () => {
    const pairs = model.pairUp({ records: [one, graded("b", true)] }, null);
    assert.deepEqual(model.found(pairs, "all", " so 7", texts).map((pair) => pair.id), ["a"]);
    assert.deepEqual(model.found(pairs, "all", "ANSWER B", texts).map((pair) => pair.id), ["b"]);
  },
  "costs in different units are not compared": () => {
    const pairs = [{ left: one, right: graded("a", true, 3) }];
    assert.deepEqual(model.totals(pairs), { matched: 1, left: { unit: "steps", count: 3 }, right: { unit: "forwards", count: 3 } });
    assert.equal(model.totals([{ left: { text: "" }, right: one }]).left, null);
  },
  "only rows in view are drawn": () => {
    assert.deepEqual(model.rowsInView(52000, 520, 52, 5000), [994, 1016]);
    assert.deepEqual(model.rowsInView(0, 520, 52, 3), [0, 3]);
    assert.deepEqual(model.rowsInView(9999, 520, 52, 0), [0, 0]);
  },
  "an address says what is shown": () => {
    const state = { id: "a&b=#</script>🧑", step: 3, left: 0, right: null, q: "", theme: "dark" };
    const read = model.readLink(`#${model.linkOf(state)}`);
    assert.deepEqual(read, { id: state.id, step: 3, left: 0, theme: "dark" });
    assert.deepEqual(model.readLink("#step=-1&left=x&right=1e9"), {});
  },
  "ids with a lone surrogate cannot be written": () => {
    assert.deepEqual(["a🧑", "\ud800", "x\udc00", ""].map(model.isWellFormed), [true, false, false, true]);
  },
};

let failed = 0;
for (const [name, test] of Object.entries(tests)) {
  try {
    test();
  } catch (error) {
    failed += 1;
    console.error(`${name}: ${error.message}`);
  }
}
console.log(JSON.stringify({ failed, passed: Object.keys(tests).length - failed }));
process.exit(failed ? 1 : 0);
