"""Where the engine's time goes beyond its bound, and what SDAR's stand-in costs with a real vocabulary.

python benchmarks/decoding_gap.py [--parts engine vocabulary] [--batch 1 64] [--rounds 3]

- ``engine``: the bundled teacher under the settings of decoding.py. The *floor* is what plain forwards of as
  many tokens take, as in the bound there; beyond it, *layers* is what they take longer in the engine
  (attention to earlier tokens, writing keys), *around* what surrounds them in a forward (its plan, gathering
  logits), *deciding* all outside the forward (schedule, choice of tokens, bookkeeping).
- ``vocabulary``: ``sdar_loop`` with its own ``decide`` and with the operations of SDAR's generate.py, in
  turn, on random weights with 151,936 tokens.

The least of the rounds counts. Prints Markdown.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from decoding import SETTINGS, ForwardTimes, HeadTimes, Subject, bundled_teacher
from decoding_baselines import Counted, sdar_loop
from decoding_shapes import build_model
from torch import Tensor

from t3d.decoding.completion import DecodeRequest
from t3d.decoding.engine import Engine, EngineConfig
from t3d.decoding.forward import Forward
from t3d.decoding.jobs import Job
from t3d.decoding.params import DecodeParams
from t3d.decoding.runner import ModelRunner
from t3d.decoding.sequences import Committed

VOCABULARY = 151_936


class Stopwatch:
    """Seconds inside calls of functions, by name, while it is in use."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function; its time is added up."""
        self.seconds[name] = 0.0

        def call(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[name] += time.perf_counter() - started

        return call


def decode_timed(
    subject: Subject, params: DecodeParams, batch: int
) -> tuple[dict[str, float], list[tuple[int, int]]]:
    """Seconds of a decoding in all, in forwards, layers and head; and its (tokens, logit positions)."""
    forwards: list[tuple[int, int]] = []
    engine = Engine(
        subject.model,
        mask_token_id=subject.mask_token_id,
        stop_token_ids=subject.stop_token_ids,
        config=EngineConfig(max_batch_size=batch),
    )
    count = engine.stats.count_forward

    def count_forward(forward: Forward, left: Committed, **rest: Any) -> None:
        forwards.append((int(forward.spans.length_R.sum()), len(forward.row_M)))
        count(forward, left, **rest)

    engine.stats.count_forward = count_forward
    watch = Stopwatch()
    body, head, run = subject.model.model, subject.model.lm_head, ModelRunner.run
    body.forward = watch.timed("layers", body.forward)
    head.forward = watch.timed("head", head.forward)
    ModelRunner.run = watch.timed("forwards", run)
    try:
        started = time.perf_counter()
        engine.decode([Job(request, params) for request in subject.requests])
        seconds = time.perf_counter() - started
    finally:
        del body.forward, head.forward
        ModelRunner.run = run
    return {"all": seconds, **watch.seconds}, forwards


def engine_row(
    subject: Subject, times: tuple[ForwardTimes, HeadTimes], batch: int, setting: tuple[int, int], rounds: int
) -> str:
    """One line of the table: shares of the engine's time."""
    params = DecodeParams(
        block_size=setting[0],
        steps_per_block=setting[1],
        temperature=0.0,
        max_new_tokens=subject.max_new_tokens,
    )
    runs = [decode_timed(subject, params, batch) for _ in range(rounds)]
    seconds, forwards = min(runs, key=lambda run: run[0]["all"])
    floor_layers = sum(times[0](tokens) for tokens, _ in forwards)
    floor_head = sum(times[1](positions) for _, positions in forwards)
    shares = {
        "floor": floor_layers + floor_head,
        "layers": seconds["layers"] - floor_layers,
        "head": seconds["head"] - floor_head,
        "around": seconds["forwards"] - seconds["layers"] - seconds["head"],
        "deciding": seconds["all"] - seconds["forwards"],
    }
    cells = [f"{100 * share / seconds['all']:.0f}" for share in shares.values()]
    return (
        f"| {batch} | {setting[0]} | {setting[1]} | {1000 * seconds['all']:.0f} | " + " | ".join(cells) + " |"
    )


class SdarOperations(Counted):
    """Decides with what SDAR's loop does: the softmax of all places of a block, then a top-k."""

    def decide(self, logits_RSV: Tensor, ids_RS: Tensor, is_masked_RS: Tensor, denoising_step: int) -> None:
        """Commit the planned number of tokens of each row, in place."""
        logits_RSV[
            ..., self.mask_token_id
        ] = -torch.inf  # theirs leaves the mask id in; both texts are compared
        probability_RSV = logits_RSV.softmax(-1)
        token_RS = probability_RSV.argmax(-1)
        chosen_RS = probability_RSV.gather(-1, token_RS[..., None])[..., 0]
        confidence_RS = torch.where(is_masked_RS, chosen_RS, -torch.inf)
        for row in range(len(ids_RS)):
            count = min(self.plan[denoising_step], int(is_masked_RS[row].sum()))
            picked = confidence_RS[row].topk(count).indices
            ids_RS[row, picked] = token_RS[row, picked]
            is_masked_RS[row, picked] = False


def vocabulary_rows(rounds: int) -> list[str]:
    """Milliseconds per forward of both loops, at full and few steps."""
    model = build_model("small", "cpu", torch.float32, vocab_size=VOCABULARY)
    generator = torch.Generator().manual_seed(0)
    requests = [
        DecodeRequest(
            id=str(row),
            prompt_ids=tuple(torch.randint(1, VOCABULARY - 1, (64,), generator=generator).tolist()),
        )
        for row in range(2)
    ]
    rows = []
    for steps in (4, 1):
        params = DecodeParams(block_size=4, steps_per_block=steps, temperature=0.0, max_new_tokens=32)
        least: dict[str, float] = {}
        texts = {}
        for _ in range(rounds):
            for kind in (Counted, SdarOperations):
                counted = kind(model, VOCABULARY - 1, (), params)
                started = time.perf_counter()
                texts[kind.__name__] = sdar_loop(counted, requests)
                each = (time.perf_counter() - started) / len(counted.forwards)
                least[kind.__name__] = min(each, least.get(kind.__name__, each))
        ours, theirs = (1000 * least[kind.__name__] for kind in (Counted, SdarOperations))
        same = texts["Counted"] == texts["SdarOperations"]
        rows.append(
            f"| {steps} | {ours:.1f} | {theirs:.1f} | {ours / theirs:.2f} | {'yes' if same else 'no'} |"
        )
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--parts", nargs="+", default=["engine", "vocabulary"], choices=["engine", "vocabulary"]
    )
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 64])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(argv)
    print(f"{torch.get_num_threads()} threads, PyTorch {torch.__version__}\n")
    if "engine" in options.parts:
        print("| batch | B | steps | ms | floor % | layers % | head % | around % | deciding % |")
        print("|---|---|---|---|---|---|---|---|---|")
        for batch in options.batch:
            subject = bundled_teacher(min(64, 4 * batch))
            times = ForwardTimes(subject.model), HeadTimes(subject.model)
            for setting in SETTINGS:
                print(engine_row(subject, times, batch, setting, options.rounds), flush=True)
        print()
    if "vocabulary" in options.parts:
        print("| steps | our stand-in: ms a forward | SDAR's operations | ratio | same text |")
        print("|---|---|---|---|---|")
        print("\n".join(vocabulary_rows(options.rounds)))


if __name__ == "__main__":
    main()
