"""Training speed: the trainer against two other ways to compute the same loss, on the same weights.

python benchmarks/training.py [--json] [--quick] [--gradient-checkpointing] [--micro-batch 4]
python benchmarks/training.py --device cuda --shape sdar-1.7b [--micro-batch 8] [--peak-tflops 989]
python benchmarks/training.py --shape smollm2 [--quick] [--micro-batch 4] [--gradient-checkpointing]

- ``authors_step`` and ``careful_step``: see training_baselines.py;
- ``ours``: ``T3DTrainer``'s collator and ``training_step``.

A random model with SDAR-4B's vocabulary and an untied head, float32, preset ``released``; trajectories of
the lengths of training_lengths.json. All sides train on the same accumulated batch, the same noisy states
and the same fake tokens, and take turns; a round is collation, forward and backward of all micro-batches,
clipping and one AdamW step, whose learning rate is 0, so that all rounds do the same work and every side's
loss and gradient can be compared. ``authors_step`` pads every sample to the data set's longest, so its
micro-batches cost the same: it may be timed on fewer of them, and the rest is extrapolated.

Peak memory is that of forward and backward of one micro-batch, the one with the data set's longest
response, above what models and data hold, in a process of its own; gradients count, the optimizer does not.
``--gradient-checkpointing``, as the authors' configuration has it, goes for all sides.

With ``--shape``: ours alone, bfloat16 on CUDA, gradient checkpointing; on a CPU with a profile and the peak
memory of above (on CUDA it is all that was allocated). MFU counts
neither recomputation nor padding: per token of both copies 6 FLOPs per parameter for the student and 2 for
the reference, the head at loss positions only, and attention to the tokens that the mask allows.
``smollm2`` is continued pretraining on a CPU: SmolLM2-135M's shape, preset ``sft``, all weights in float32,
texts of about 110 + 160 tokens; with bfloat16 autocast where the CPU has instructions for it. With
``--quick`` one micro-batch, three times after the one that warms up.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from decoding_shapes import SHAPES
from rich.console import Console
from rich.table import Table
from training_lengths import read_lengths
from training_profile import profile_shares
from training_shapes import CONTINUED, continued_pretraining, run_shape
from training_sides import (
    MODEL,
    SIDES,
    Measured,
    Setting,
    make_side,
    peak_bytes_apart,
    say,
    still_adamw,
    timed_round,
)

from t3d.work.versions import versions


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is measured."""

    num_samples: int
    """Trajectories of the accumulated batch."""
    num_authors_samples: int
    rounds: dict[str, int]


FULL = Plan(num_samples=32, num_authors_samples=8, rounds={"authors_step": 1, "careful_step": 3, "ours": 3})
QUICK = Plan(num_samples=12, num_authors_samples=2, rounds={"authors_step": 1, "careful_step": 1, "ours": 2})


def compare(setting: Setting, plan: Plan) -> dict[str, Any]:
    """The report: all sides on one accumulated batch."""
    peaks = {name: peak_bytes_apart(name, setting) for name in SIDES}
    say(f"peak memory: {', '.join(f'{name} {peak / 2**20:.0f} MiB' for name, peak in peaks.items())}")
    sides = {name: make_side(name, setting) for name in SIDES}
    optimizers = {name: still_adamw(side.student) for name, side in sides.items()}
    everyone = range(plan.num_samples)
    ids = {
        name: everyone[: plan.num_authors_samples] if name == "authors_step" else everyone for name in SIDES
    }
    few_ours = timed_round(sides["ours"], optimizers["ours"], ids["authors_step"])  # warms up, too
    timed_round(sides["careful_step"], optimizers["careful_step"], ids["authors_step"])
    rounds: dict[str, list[Measured]] = {name: [] for name in SIDES}
    for number in range(max(plan.rounds.values())):
        for name in SIDES:
            if number < plan.rounds[name]:
                measured = timed_round(sides[name], optimizers[name], ids[name])
                rounds[name].append(measured)
                seconds = measured.accumulation_seconds / len(ids[name])
                say(f"round {number + 1}: {name} {seconds:.2f} s per sample, loss {measured.loss:.6f}")
    rows = [row_of(name, rounds[name], len(ids[name]), plan.num_samples, peaks[name]) for name in SIDES]
    best = {row["side"]: row["seconds_best"] for row in rows}
    pairs = [(rounds["authors_step"][0], few_ours), (rounds["careful_step"][0], rounds["ours"][0])]
    return {
        "ratios": {
            "vs_authors": best["authors_step"] / best["ours"],
            "vs_careful": best["careful_step"] / best["ours"],
            "peak_memory_vs_authors": peaks["ours"] / peaks["authors_step"],
        },
        "loss_abs_diff": max(abs(other.loss - ours.loss) for other, ours in pairs),
        "grad_norm_rel_diff": max(abs(other.grad_norm / ours.grad_norm - 1) for other, ours in pairs),
        "rows": rows,
        "profile": profile_shares(sides["ours"], everyone),
        "num_samples": plan.num_samples,
        "micro_batch": setting.micro_batch,
        "gradient_checkpointing": setting.gradient_checkpointing,
        "widths": [
            max(prompt for prompt, _ in setting.lengths),
            max(length for _, length in setting.lengths),
        ],
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }


def row_of(
    name: str, rounds: Sequence[Measured], num_timed: int, num_samples: int, peak: int
) -> dict[str, Any]:
    """A side's numbers for an optimizer step on ``num_samples``, of which ``num_timed`` were run."""
    scale = num_samples / num_timed
    seconds = [scale * measured.accumulation_seconds + measured.optimizer_seconds for measured in rounds]
    return {
        "side": name,
        "timed_samples": num_timed,
        "rounds": len(rounds),
        "seconds_best": min(seconds),
        "seconds_median": statistics.median(seconds),
        "optimizer_seconds": min(measured.optimizer_seconds for measured in rounds),
        "samples_per_second": num_samples / min(seconds),
        "peak_mib": peak / 2**20,
        "loss": rounds[0].loss,
        "grad_norm": rounds[0].grad_norm,
    }


def show(report: dict[str, Any]) -> None:
    """The rows as columns of a table, and the ratios."""
    table = Table("", *(["value"] * len(report["rows"])), show_header=False)
    for name in report["rows"][0]:
        values = [row[name] for row in report["rows"]]
        table.add_row(name, *(f"{value:.4g}" if isinstance(value, float) else str(value) for value in values))
    console = Console()
    console.print(table)
    numbers = report.get("ratios", {}) | {name: report[name] for name in report if name.endswith("_diff")}
    for name, value in numbers.items():
        console.print(f"{name}: {value:.3g}")


def main() -> None:
    """Measure and print; the last line of ``--json`` is one object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--quick", action="store_true", help="a smaller batch, in minutes")
    parser.add_argument("--micro-batch", type=int, help="default 4, with --shape of SDAR 8")
    parser.add_argument(
        "--gradient-checkpointing", action="store_true", help="of all; with --shape of SDAR always"
    )
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="with --shape")
    parser.add_argument(
        "--shape", choices=sorted({*SHAPES, CONTINUED}), help="a model of true shape, ours alone"
    )
    parser.add_argument("--peak-tflops", type=float, help="with --shape; default by the device's name")
    options = parser.parse_args()
    if options.shape in (None, CONTINUED) and options.device != "cpu":
        parser.error("--device is for --shape of SDAR")
    if options.shape is None:
        setting = Setting(
            model=MODEL,
            lengths=read_lengths(),
            micro_batch=options.micro_batch or 4,
            gradient_checkpointing=options.gradient_checkpointing,
        )
        report = compare(setting, QUICK if options.quick else FULL)
    elif options.shape == CONTINUED:
        how = {"gradient_checkpointing": options.gradient_checkpointing}
        setting = continued_pretraining(options.micro_batch or 4, **how)
        report = run_shape(setting, CONTINUED, options.peak_tflops, is_quick=options.quick)
    else:
        setting = Setting(
            model=SHAPES[options.shape],
            lengths=read_lengths(),
            micro_batch=options.micro_batch or 8,
            device=options.device,
            dtype=torch.bfloat16 if options.device == "cuda" else torch.float32,
            gradient_checkpointing=True,
        )
        report = run_shape(setting, options.shape, options.peak_tflops, is_quick=options.quick)
    if options.json:
        print(json.dumps(report))
    else:
        show(report)


if __name__ == "__main__":
    main()
