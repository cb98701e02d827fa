"use strict";
// Asks this server, and plays the steps of each block as it comes. Every text goes in through textContent.

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
  Object.assign(pane, { spans: [], step: 0, usage: null, isAsking: true, isWrong: false });
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
  Object.assign(asked, { return_step_map: true, logprobs: true, stream_options: { include_usage: true } });
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

/** A block's tokens, all masked at first. */
function add(pane, choice) {
  pane.answer.textContent += choice.delta.content || "";
  const named = choice.logprobs ? choice.logprobs.content : [];
  named.forEach((one, place) => {
    const made = document.createElement("span");
    const committed = choice.step_map[place];
    made.className = `token masked step-${(committed - 1) % 8}`;
    made.textContent = one.token.replaceAll("\n", "↵\n") || "·";
    made.dataset.step = committed;
    made.title = `step ${committed}, probability ${Math.exp(one.logprob).toFixed(3)}`;
    pane.spans.push(made);
    pane.tokens.append(made);
  });
}

/** One step on in each answer, as far as blocks are there. */
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
  const left = pane.spans.filter((span) => span.classList.contains("masked"));
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
  say(pane, `step ${pane.step} · ${pane.spans.length} tokens${forwards}`);
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
  }
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
$("stop").addEventListener("click", () => asking && asking.abort());
$("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("form").requestSubmit();
});
