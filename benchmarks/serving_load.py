"""``t3d serve`` under load, beside the bare engine on the same requests, in one run.

python benchmarks/serving_load.py [--model mini] [--streams 1 8 50] [--requests 4] [--rounds 3]
                                  [--random-width 512 --random-layers 8]

A server of its own process and N clients, each of which asks for one stream after the other over its own
connection: time to the first block and to the end (50th and 95th percentile of all requests), visible tokens
per second of all. Beside it ``LLM.generate`` in this process with the same requests at once, in batches of N.
The best round of each counts, sides in turn; the server's process waits meanwhile. Both share the machine's
cores with the clients. Problems of the mini suite, greedy, by the checkpoint's own settings. Prints Markdown.

With ``--random-width`` both sides decode by a model of that width, with the tokenizer and settings of
``--model`` and random weights: its responses mean nothing, and take as long as those of any such model.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from t3d.decoding.completion import DecodeRequest
from t3d.decoding.llm import LLM
from t3d.decoding.posed_requests import decode_requests
from t3d.models.export import export_model
from t3d.models.loading import load_model
from t3d.models.sdar import SDARForCausalLM
from t3d.tasks.mini.suite import TASKS

MAX_NEW_TOKENS = 56


@dataclass(frozen=True)
class Answered:
    """One stream, as its client saw it."""

    first_block_s: float
    seconds: float
    visible_tokens: int


def random_model(like: str, width: int, num_layers: int, folder: Path) -> int:
    """Write a checkpoint with heads of 64 and random weights into the folder; how many it has."""
    loaded = load_model(like)
    shape = {"hidden_size": width, "intermediate_size": 3 * width, "num_hidden_layers": num_layers}
    heads = {"num_attention_heads": width // 64, "num_key_value_heads": width // 128, "head_dim": 64}
    own = loaded.model.config
    torch.manual_seed(0)
    model = SDARForCausalLM(type(own)(**{**own.to_dict(), **shape, **heads, "layer_types": None}))
    model.generation_config = loaded.model.generation_config
    export_model(replace(loaded, model=model.eval()), folder)
    return model.num_parameters()


@contextmanager
def server(model: str, batch: int) -> Iterator[int]:
    """A process that serves the model; its port."""
    flags = ["--model", model, "--model-name", "m", "--port", "0", "--max-batch-size", str(batch)]
    command = [sys.executable, "-m", "t3d", "serve", *flags, "--device", "cpu", "--max-model-len", "256"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        line = next((line for line in process.stderr if line.startswith("serving ")), None)
        if line is None:
            raise RuntimeError("the server did not start")
        yield int(line.split(":")[-1].split("/")[0])
    finally:
        process.terminate()
        process.communicate()


async def _ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: DecodeRequest
) -> Answered:
    """One stream over an open connection. Raises RuntimeError for an answer that is none."""
    body = {
        "model": "m",
        "prompt": list(request.prompt_ids),
        "max_tokens": MAX_NEW_TOKENS,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    data = json.dumps(body).encode()
    head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    started = time.perf_counter()
    writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    first, tokens = 0.0, 0
    async for line in reader:
        if line.startswith(b"HTTP/1.1 ") and b" 200 " not in line:
            raise RuntimeError(line.decode())
        if line.startswith(b"data: {"):
            first = first or time.perf_counter() - started
            usage = json.loads(line[6:]).get("usage")
            tokens = usage["completion_tokens"] if usage else tokens
        elif line == b"0\r\n":  # the last chunk
            await reader.readline()
            return Answered(first, time.perf_counter() - started, tokens)
    raise RuntimeError("the connection was closed")


async def _client(port: int, requests: Sequence[DecodeRequest]) -> list[Answered]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        return [await _ask(reader, writer, request) for request in requests]
    finally:
        writer.close()


async def served(port: int, requests: Sequence[DecodeRequest], streams: int) -> tuple[float, list[Answered]]:
    """Seconds of all and each stream's own, the requests dealt to so many clients."""
    started = time.perf_counter()
    clients = [_client(port, requests[number::streams]) for number in range(streams)]
    answered = [answer for answers in await asyncio.gather(*clients) for answer in answers]
    return time.perf_counter() - started, answered


def percentiles(values: Sequence[float]) -> str:
    """50th and 95th, milliseconds."""
    cuts = statistics.quantiles(values, n=20, method="inclusive")
    return f"{1000 * cuts[9]:.0f} / {1000 * cuts[18]:.0f}"


def measure(model: str, llm: LLM, requests: Sequence[DecodeRequest], streams: int, rounds: int) -> str:
    """A line of the table."""
    params = replace(llm.default_params, max_new_tokens=MAX_NEW_TOKENS, temperature=0.0)
    prompts = [list(request.prompt_ids) for request in requests]
    best_served, best_bare = (0.0, []), 0.0
    with server(model, streams) as port:
        asyncio.run(served(port, requests[:streams], streams))  # warms up
        for _ in range(rounds):
            seconds, answered = asyncio.run(served(port, requests, streams))
            speed = sum(answer.visible_tokens for answer in answered) / seconds
            best_served = max(best_served, (speed, answered), key=lambda pair: pair[0])
            started = time.perf_counter()
            done = llm.generate(prompts, params, progress=False)
            visible = sum(completion.visible_length for completion in done)
            best_bare = max(best_bare, visible / (time.perf_counter() - started))
    speed, answered = best_served
    assert sum(answer.visible_tokens for answer in answered) == visible, "the server gave other answers"
    cells = [
        str(streams),
        str(len(requests)),
        percentiles([answer.first_block_s for answer in answered]),
        percentiles([answer.seconds for answer in answered]),
        f"{speed:.0f}",
        f"{best_bare:.0f}",
        f"{100 * speed / best_bare:.0f} %",
    ]
    return "| " + " | ".join(cells) + " |"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--streams", nargs="+", type=int, default=[1, 8, 50])
    parser.add_argument("--requests", type=int, default=4, help="of each stream, one after the other")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--random-width", type=int, help="a multiple of 128; random weights")
    parser.add_argument("--random-layers", type=int, default=8)
    options = parser.parse_args(argv)
    model, width = options.model, options.random_width
    print(f"{torch.get_num_threads()} threads, PyTorch {torch.__version__}, {model}")
    with tempfile.TemporaryDirectory() as temporary:
        if width is not None:
            model = str(Path(temporary) / "random")
            count = random_model(options.model, width, options.random_layers, Path(model))
            print(f"random weights, {width} wide, {options.random_layers} layers: {count / 1e6:.1f} million")
        print(
            "\n| streams | requests | first block, ms: p50 / p95 | end, ms | tokens/s | bare engine | share |"
        )
        print("|---|---|---|---|---|---|---|")
        for streams in options.streams:
            count = max(8, streams * options.requests)
            llm = LLM(model, device="cpu", max_batch_size=streams)
            per_task = [task.problems("test", -(-count // len(TASKS)), 0) for task in TASKS.values()]
            problems = [problem for group in zip(*per_task, strict=True) for problem in group][:count]
            requests = decode_requests(llm.tokenizer, problems)
            print(measure(model, llm, requests, streams, options.rounds), flush=True)


if __name__ == "__main__":
    main()
