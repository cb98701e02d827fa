"""Decoding speed: the engine against two common algorithms, in one process on the same weights.

python benchmarks/decoding.py [--json] [--quick]
python benchmarks/decoding.py --device cuda --shape sdar-1.7b|sdar-4b    (see decoding_shapes.py)

- ``sdar_loop`` and ``reprefill``: see decoding_baselines.py;
- ``separate``: the engine with a forward of its own for each commit and each prompt;
- ``engine``: the engine.

Greedy, float32. A row is one model, batch size, block size B and steps per block S. Each side decodes
the same prompts; its best of several rounds counts, the sides taking turns. The *bound* of a ratio is
what the algorithms allow on this machine: the time that the other side's forwards take at least, over
the time that the fewest possible forwards take, from measured times of plain forwards by their number of
tokens (attention to earlier tokens not counted on either side).
"""

import argparse
import json
import math
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from decoding_baselines import Counted, reprefill, sdar_loop
from decoding_shapes import SHAPES, run_shape

from t3d.decoding.completion import DecodeRequest
from t3d.decoding.engine import Engine, EngineConfig
from t3d.decoding.forward import Forward
from t3d.decoding.jobs import Job
from t3d.decoding.params import DecodeParams
from t3d.decoding.posed_requests import decode_requests
from t3d.decoding.sequences import Committed
from t3d.models.loading import load_model
from t3d.models.sdar import SDARConfig, SDARForCausalLM
from t3d.tasks.mini.suite import TASKS
from t3d.work.versions import versions

SETTINGS = [(4, 4), (4, 2), (4, 1), (8, 8), (8, 4), (8, 2)]
"""(block size, denoising steps per block)."""
SIDES = ("sdar_loop", "reprefill", "separate", "engine")


@dataclass
class Subject:
    """A model, its prompts and how long its responses may be."""

    name: str
    model: torch.nn.Module
    mask_token_id: int
    stop_token_ids: tuple[int, ...]
    requests: list[DecodeRequest]
    max_new_tokens: int
    max_loop_prompts: int
    """sdar_loop takes one prompt at a time: of a slow model, as many as its speed needs."""


def bundled_teacher(count: int) -> Subject:
    """The mini teacher on held-out problems of its three tasks, in turn."""
    loaded = load_model("mini", device="cpu")
    per_task = [task.problems("test", -(-count // len(TASKS)), 0) for task in TASKS.values()]
    problems = [problem for group in zip(*per_task, strict=True) for problem in group][:count]
    requests = decode_requests(loaded.tokenizer, problems)
    return Subject("mini", loaded.model, loaded.mask_token_id, loaded.stop_token_ids, requests, 56, 64)


def random_model(count: int) -> Subject:
    """25 M random parameters, half of them in a vocabulary of 32,768; prompts of 32 to 96 tokens."""
    torch.manual_seed(0)
    config = SDARConfig(
        vocab_size=32_768,
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=8,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        mask_token_id=32_767,
        eos_token_id=0,
        attn_implementation="sdpa",
    )
    model = SDARForCausalLM(config).eval()
    lengths = torch.randint(32, 97, (count,)).tolist()
    requests = [
        DecodeRequest(id=str(row), prompt_ids=tuple(torch.randint(1, 32_767, (length,)).tolist()))
        for row, length in enumerate(lengths)
    ]
    return Subject("random-25M", model, 32_767, (), requests, 32, 4)


class PeakMemory:
    """Highest resident memory above the start, sampled every 5 ms."""

    def __enter__(self) -> "PeakMemory":
        self._start, self.peak, self._stop = self._resident(), 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            self.peak = max(self.peak, self._resident() - self._start)

    @staticmethod
    def _resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


class ForwardTimes:
    """Seconds of a plain forward by its number of tokens, measured; between the sizes linear."""

    SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model
        self.seconds: dict[int, float] = {}

    @torch.inference_mode()
    def _measure(self, tokens: int) -> float:
        rows = max(1, tokens // 8)  # attention among few tokens, as between cached blocks
        ids = torch.ones(rows, tokens // rows, dtype=torch.int64)
        mask = torch.ones(rows, 1, ids.shape[1], ids.shape[1], dtype=torch.bool)
        one = torch.zeros(1, dtype=torch.int64)
        best = math.inf
        for _ in range(max(3, min(20, 2000 // tokens))):
            started = time.perf_counter()
            self.model(input_ids=ids, attention_mask=mask, use_cache=False, logit_positions=one)
            best = min(best, time.perf_counter() - started)
        return best

    def __call__(self, tokens: int) -> float:
        """Seconds of a forward of this many tokens, without the head."""
        if tokens == 0:
            return 0.0
        low = (
            max(size for size in self.SIZES if size <= tokens) if tokens < self.SIZES[-1] else self.SIZES[-2]
        )
        high = next(size for size in self.SIZES if size > low)
        for size in (low, high):
            if size not in self.seconds:
                self.seconds[size] = self._measure(size)
        slope = (self.seconds[high] - self.seconds[low]) / (high - low)
        return self.seconds[low] + slope * (tokens - low)


class HeadTimes(ForwardTimes):
    """Seconds of the head by its number of positions."""

    @torch.inference_mode()
    def _measure(self, tokens: int) -> float:
        hidden = torch.randn(tokens, self.model.config.hidden_size)
        best = math.inf
        for _ in range(max(3, min(20, 2000 // tokens))):
            started = time.perf_counter()
            self.model.lm_head(hidden)
            best = min(best, time.perf_counter() - started)
        return best


@dataclass
class Measured:
    """One side of one setting."""

    seconds: float
    responses: dict[str, list[int]]
    forwards: list[tuple[int, int]]
    """(tokens, logit positions) of each forward."""
    peak_bytes: int = 0

    @property
    def num_tokens(self) -> int:
        """Response tokens, terminal blocks whole."""
        return sum(map(len, self.responses.values()))


def run_side(side: str, subject: Subject, params: DecodeParams, batch: int) -> Measured:
    """Decode a side's prompts once."""
    requests, ids = subject.requests, (subject.mask_token_id, subject.stop_token_ids)
    if side in ("sdar_loop", "reprefill"):
        counted = Counted(subject.model, *ids, params)
        if side == "sdar_loop":
            requests = requests[: subject.max_loop_prompts]
        step = 1 if side == "sdar_loop" else batch
        decode = sdar_loop if side == "sdar_loop" else reprefill
        responses: list[list[int]] = []
        started = time.perf_counter()
        for first in range(0, len(requests), step):
            responses += decode(counted, requests[first : first + step])
        seconds = time.perf_counter() - started
        by_id = {request.id: response for request, response in zip(requests, responses, strict=True)}
        return Measured(seconds, by_id, counted.forwards)
    forwards: list[tuple[int, int]] = []
    engine = Engine(
        subject.model,
        mask_token_id=ids[0],
        stop_token_ids=ids[1],
        config=EngineConfig(max_batch_size=batch, fuse_commits=side == "engine"),
    )
    count = engine.stats.count_forward

    def count_forward(forward: Forward, left: Committed, **rest: Any) -> None:
        forwards.append((int(forward.spans.length_R.sum()), len(forward.row_M)))
        count(forward, left, **rest)

    engine.stats.count_forward = count_forward
    started = time.perf_counter()
    done = engine.decode([Job(request, params) for request in requests])
    seconds = time.perf_counter() - started
    return Measured(seconds, {name: list(c.response_ids) for name, c in done.items()}, forwards)


def measure_row(
    subject: Subject,
    batch: int,
    block_size: int,
    steps: int,
    times: "tuple[ForwardTimes, HeadTimes]",
    rounds: int,
) -> dict[str, Any]:
    """All sides of one setting, taking turns; the best of the rounds counts."""
    params = DecodeParams(
        block_size=block_size,
        steps_per_block=steps,
        temperature=0.0,
        max_new_tokens=subject.max_new_tokens,
    )
    best: dict[str, Measured] = {}
    for round_index in range(max(3, rounds)):  # the engine's two sides are cheap, and close to each other
        for side in SIDES if round_index < rounds else ("separate", "engine"):
            with PeakMemory() as memory:
                measured = run_side(side, subject, params, batch)
            peak = max(memory.peak, best[side].peak_bytes if side in best else 0)
            if side not in best or measured.seconds < best[side].seconds:
                best[side] = measured
            best[side].peak_bytes = peak
    engine = best["engine"]
    prompt_length = {request.id: len(request.prompt_ids) for request in subject.requests}

    def num_blocks(side: Measured) -> int:
        return sum(
            -(-(prompt_length[name] % block_size + len(response)) // block_size)
            for name, response in side.responses.items()
        )

    def floor_per_token(side: Measured) -> float:
        return sum(times[0](t) + times[1](logits) for t, logits in side.forwards) / side.num_tokens

    speed = {name: side.num_tokens / side.seconds for name, side in best.items()}
    return {
        "model": subject.name,
        "prompts": len(subject.requests),
        "batch": batch,
        "block_size": block_size,
        "steps": steps,
        "tokens_per_second": speed,
        "forwards": {name: len(side.forwards) for name, side in best.items()},
        "forwards_per_block": {name: len(side.forwards) / num_blocks(side) for name, side in best.items()},
        "peak_mib": {name: side.peak_bytes / 2**20 for name, side in best.items()},
        "equal_outputs": {
            name: sum(engine.responses[i] == ids for i, ids in side.responses.items()) / len(side.responses)
            for name, side in best.items()
        },
        "ratio": {name: speed["engine"] / value for name, value in speed.items()},
        "bound": {name: floor_per_token(side) / floor_per_token(engine) for name, side in best.items()},
        "engine_share_of_floor": floor_per_token(engine) * speed["engine"],
    }


def geometric_mean(values: Sequence[float]) -> float:
    """exp of the mean log."""
    return math.exp(statistics.fmean(map(math.log, values)))


def ratios_of(rows: Sequence[dict]) -> dict[str, float]:
    """The headline numbers: 64 prompts of the bundled teacher, geometric means over the settings."""
    at_64 = [row for row in rows if row["model"] == "mini" and row["batch"] == 64]
    alone = [row for row in rows if row["model"] == "mini" and row["batch"] == 1]
    one_step = [row for row in alone if row["steps"] == 1]
    return {
        "engine_vs_sdar_loop": geometric_mean([row["ratio"]["sdar_loop"] for row in at_64]),
        "engine_vs_sdar_loop_bound": geometric_mean([row["bound"]["sdar_loop"] for row in at_64]),
        "engine_vs_reprefill": geometric_mean([row["ratio"]["reprefill"] for row in at_64]),
        "engine_vs_reprefill_bound": geometric_mean([row["bound"]["reprefill"] for row in at_64]),
        "fused_vs_unfused_s1_batch1": geometric_mean([row["ratio"]["separate"] for row in one_step]),
        "fused_vs_unfused_min": min(row["ratio"]["separate"] for row in rows),
    }


def cases(quick: bool) -> list[tuple[Callable[[int], Subject], int, int, list[tuple[int, int]]]]:
    """(model, prompts, batch size, settings)."""
    if quick:
        return [(bundled_teacher, 64, 64, SETTINGS), (bundled_teacher, 4, 1, SETTINGS)]
    return [
        (bundled_teacher, 8, 1, SETTINGS),
        (bundled_teacher, 64, 64, SETTINGS),
        (bundled_teacher, 256, 256, SETTINGS),
        (random_model, 2, 1, SETTINGS),
        (random_model, 64, 64, SETTINGS),
        (random_model, 256, 256, SETTINGS),
    ]


def main() -> None:
    """Measure and print; the last line of ``--json`` is one object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--quick", action="store_true", help="the headline ratios only, in minutes")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="with --shape")
    parser.add_argument("--shape", choices=sorted(SHAPES), help="a model of true shape, the engine alone")
    options = parser.parse_args()
    if options.shape is None and options.device != "cpu":
        parser.error("--device is for --shape")
    if options.shape is not None:
        rows = run_shape(options.shape, options.device)
        print(json.dumps({"rows": rows, "device": options.device, "versions": versions()}))
        return
    rows = []
    for make, count, batch, settings in cases(options.quick):
        subject = make(count)
        times = ForwardTimes(subject.model), HeadTimes(subject.model)
        for block_size, steps in settings:
            rounds = 2 if options.quick or subject.name == "mini" else 1
            row = measure_row(subject, batch, block_size, steps, times, rounds)
            rows.append(row)
            ratio = ", ".join(
                f"{side} {row['ratio'][side]:.2f} (bound {row['bound'][side]:.2f})" for side in SIDES[:-1]
            )
            speed = row["tokens_per_second"]["engine"]
            print(
                f"{subject.name} batch {batch} B{block_size} S{steps}: {speed:.0f} tokens/s, {ratio}, "
                f"equal {min(row['equal_outputs'].values()):.2f}",
                flush=True,
            )
    report = {
        "rows": rows,
        "ratios": ratios_of(rows),
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }
    print(json.dumps(report if options.json else report["ratios"], indent=None if options.json else 1))


if __name__ == "__main__":
    main()
