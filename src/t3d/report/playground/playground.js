"use strict";
// Asks this server, and plays the steps of each block as it comes. Every text goes in through textContent.

const $ = (id) => document.getElementById(id);
const NUMBERS = ["max_tokens", "block_size", "tokens_per_step", "temperature"];
let asking = null; // what ends the request
let player = null; // the timer
let spans = []; // of tokens, in the order of the text
let step = 0; // played so far
let usage = null;

function say(text, isWrong = false) {
  $("status").textContent = text;
  $("status").classList.toggle("wrong", isWrong);
}

function body() {
  const asked = { messages: [{ role: "user", content: $("prompt").value }], stream: true };
  Object.assign(asked, { return_step_map: true, logprobs: true, stream_options: { include_usage: true } });
  for (const name of NUMBERS) if ($(name).value !== "") asked[name] = Number($(name).value);
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
function add(choice) {
  $("answer").textContent += choice.delta.content || "";
  const named = choice.logprobs ? choice.logprobs.content : [];
  named.forEach((one, place) => {
    const made = document.createElement("span");
    const committed = choice.step_map[place];
    made.className = `token masked step-${(committed - 1) % 8}`;
    made.textContent = one.token.replaceAll("\n", "↵\n") || "·";
    made.dataset.step = committed;
    made.title = `step ${committed}, probability ${Math.exp(one.logprob).toFixed(3)}`;
    spans.push(made);
    $("tokens").append(made);
  });
}

/** One step on, as far as blocks are there. */
function tick() {
  const left = spans.filter((span) => span.classList.contains("masked"));
  for (const span of spans) span.classList.remove("fresh");
  if (left.length) {
    step = Math.min(...left.map((span) => Number(span.dataset.step)));
    for (const span of left) {
      if (Number(span.dataset.step) === step) {
        span.classList.remove("masked");
        span.classList.add("fresh");
      }
    }
    count();
  } else if (asking === null) {
    clearInterval(player);
    player = null;
    count();
  }
}

function count() {
  const forwards = usage === null ? "" : ` · ${usage.num_forwards} forwards`;
  say(`step ${step} · ${spans.length} tokens${forwards}`);
}

/** A number from 1 to 60, whatever is in the field. */
const speed = () => Math.min(60, Math.max(1, Number($("speed").value) || 12));

async function ask() {
  clearInterval(player);
  [spans, step, usage] = [[], 0, null];
  $("tokens").replaceChildren();
  $("answer").textContent = "";
  asking = new AbortController();
  $("ask").disabled = true;
  $("stop").disabled = false;
  say("asked");
  player = setInterval(tick, 1000 / speed());
  const headers = { "Content-Type": "application/json" };
  if ($("key").value) headers.Authorization = `Bearer ${$("key").value}`;
  try {
    const how = { method: "POST", headers, body: body(), signal: asking.signal };
    const response = await fetch("v1/chat/completions", how);
    if (!response.ok) throw new Error((await response.json()).error.message);
    for await (const event of events(response)) {
      if (event.error) throw new Error(event.error.message);
      if (event.usage) usage = event.usage;
      if (event.choices.length) add(event.choices[0]);
    }
  } catch (error) {
    if (error.name !== "AbortError") {
      clearInterval(player);
      player = null;
      say(error.message, true);
    }
  } finally {
    asking = null;
    $("ask").disabled = false;
    $("stop").disabled = true;
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
