"use strict";
// Asks this server, and shows the steps of its answers as they come. Every text goes in through textContent.

const $ = (id) => document.getElementById(id);
const NUMBERS = ["max_tokens", "block_size", "temperature"];
let asking = null; // what ends the requests
let player = null; // the timer, one for all models, so that a step of one is a step of the others

const BUDGETS = [...document.querySelectorAll(".budget")];

/** What is shown of each model. */
const panes = [...document.querySelectorAll(".pane")].map((root, index) => ({
  model: root.dataset.model,
  budget: BUDGETS[index],
  status: root.querySelector(".status"),
  tokens: root.querySelector(".tokens"),
  answer: root.querySelector(".answer"),
}));

function reset(pane) {
  Object.assign(pane, { spans: [], told: 0, step: 0, usage: null, isAsking: true, isWrong: false });
  pane.tokens.replaceChildren();
  pane.answer.textContent = "";
  say(pane, "asked");
}

function say(pane, text) {
  if (pane.status.textContent !== text) pane.status.textContent = text; // said aloud once
  pane.status.classList.toggle("wrong", pane.isWrong);
}

function body(pane) {
  const messages = [{ role: "user", content: $("prompt").value }];
  const asked = { model: pane.model, messages, stream: true };
  Object.assign(asked, { return_step_map: true, return_drafts: true, logprobs: true, stream_options: { include_usage: true } });
  for (const name of NUMBERS) if ($(name).value !== "") asked[name] = Number($(name).value);
  if (pane.budget.value !== "") asked.tokens_per_step = Number(pane.budget.value);
  return JSON.stringify(asked);
}

/** The events of a stream, as they come. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (buffer + value).split("\n\n");
    buffer = parts.pop();
    for (const part of parts) {
      const said = part.replace(/^data: /, "");
      if (said !== "[DONE]") yield JSON.parse(said);
    }
  }
}

/** What a chunk tells: a piece of the answer, or what the next block is so far; a piece replaces what was drafted. */
function add(pane, choice) {
  pane.answer.textContent += choice.delta.content || "";
  const { draft } = choice;
  if (draft) {
    draft.tokens.forEach((token, place) => fill(pane, draft.start + place, token, draft.step_map[place]));
    return;
  }
  const named = choice.logprobs ? choice.logprobs.content : [];
  named.forEach(({ token, logprob }, place) => {
    const made = fill(pane, pane.told + place, token, choice.step_map[place]);
    made.title += `, probability ${Math.exp(logprob).toFixed(3)}`;
  });
  pane.told += named.length;
  for (const span of pane.spans.splice(pane.told)) span.remove();
}

/** The token of that place: masked until its step is played, and for as long as it has none. */
function fill(pane, place, token, committed) {
  while (pane.spans.length <= place) {
    const made = document.createElement("span");
    made.className = "token masked";
    made.textContent = "···";
    pane.spans.push(made);
    pane.tokens.append(made);
  }
  const span = pane.spans[place];
  if (committed === null) return span;
  span.classList.add(`step-${(committed - 1) % 8}`);
  span.textContent = token.replaceAll("\n", "↵\n") || "·";
  span.dataset.step = committed;
  span.title = `step ${committed}`;
  return span;
}

const isMasked = (span) => span.classList.contains("masked");

/** One step on in each answer, as far as steps are there. */
function tick() {
  const isPlaying = panes.map(advance).some(Boolean);
  if (asking === null && !isPlaying) {
    clearInterval(player);
    player = null;
  }
}

/** Whether there was a step left to show. */
function advance(pane) {
  if (pane.isWrong) return false;
  const left = pane.spans.filter((span) => isMasked(span) && span.dataset.step);
  for (const span of pane.spans) span.classList.remove("fresh");
  if (left.length) {
    pane.step = Math.min(...left.map((span) => Number(span.dataset.step)));
    for (const span of left) {
      if (Number(span.dataset.step) === pane.step) {
        span.classList.remove("masked");
        span.classList.add("fresh");
      }
    }
  }
  if (left.length || !pane.isAsking) count(pane);
  return left.length > 0;
}

function count(pane) {
  const forwards = pane.usage === null ? "" : ` · ${pane.usage.num_forwards} forwards`;
  const shown = pane.spans.filter((span) => !isMasked(span)).length;
  say(pane, `step ${pane.step} · ${shown} tokens${forwards}`);
}

/** A number from 1 to 60, whatever is in the field. */
const speed = () => Math.min(60, Math.max(1, Number($("speed").value) || 12));

async function ask() {
  clearInterval(player);
  panes.forEach(reset);
  asking = new AbortController();
  $("ask").disabled = true;
  $("stop").disabled = false;
  player = setInterval(tick, 1000 / speed());
  await Promise.all(panes.map((pane) => answer(pane, asking.signal)));
  asking = null;
  $("ask").disabled = false;
  $("stop").disabled = true;
}

/** Ask a model, and take its answer in as it comes; what goes wrong is said, and leaves the others alone. */
async function answer(pane, signal) {
  const headers = { "Content-Type": "application/json" };
  if ($("key").value) headers.Authorization = `Bearer ${$("key").value}`;
  try {
    const how = { method: "POST", headers, body: body(pane), signal };
    const response = await fetch("v1/chat/completions", how);
    if (!response.ok) throw new Error((await response.json()).error.message);
    for await (const event of events(response)) {
      if (event.error) throw new Error(event.error.message);
      if (event.usage) pane.usage = event.usage;
      if (event.choices.length) add(pane, event.choices[0]);
    }
  } catch (error) {
    if (error.name !== "AbortError") {
      pane.isWrong = true;
      say(pane, error.message);
    }
  } finally {
    pane.isAsking = false;
    pane.spans = pane.spans.filter((span) => span.dataset.step || span.remove()); // of those nothing came
  }
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
$("stop").addEventListener("click", () => asking && asking.abort());
$("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !asking) $("form").requestSubmit();
});
