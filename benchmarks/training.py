"""Training speed: the trainer against two other ways to compute the same loss, on the same weights.

python benchmarks/training.py [--json] [--quick] [--gradient-checkpointing] [--micro-batch 4]
python benchmarks/training.py --device cuda --shape sdar-1.7b [--micro-batch 8] [--peak-tflops 989]

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

With ``--shape``: ours alone, bfloat16 on CUDA, gradient checkpointing. MFU counts neither recomputation
nor padding: per token of both copies 6 FLOPs per parameter for the student and 2 for the reference, the
head at loss positions only, and attention to the tokens that the mask allows.
"""

import argparse
import copy
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import get_context
from tempfile import gettempdir
from typing import Any

import torch
from decoding_shapes import SHAPES, measure_peaks
from rich.console import Console
from rich.table import Table
from training_baselines import authors_step, careful_step, draw_state
from training_lengths import Lengths, number_tokenizer, random_trajectory, read_lengths

from t3d.models.sdar import SDARConfig, SDARForCausalLM
from t3d.training.config import T3DConfig
from t3d.training.presets import preset_fields
from t3d.training.trainer import T3DTrainer
from t3d.versions import versions

SIDES = ("authors_step", "careful_step", "ours")
MODEL = {
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "vocab_size": 151_936,
}
PEAK_TFLOPS = {"H100": 989, "H200": 989, "A100": 312}
"""Dense bfloat16, by a part of the device's name."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all sides share."""

    model: dict[str, Any]
    """Fields of SDARConfig."""
    lengths: Lengths
    micro_batch: int = 4
    """Of careful_step and ours."""
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    gradient_checkpointing: bool = False

    @property
    def mask_token_id(self) -> int:
        """The last token; 0 is the stop token and the padding."""
        return self.model["vocab_size"] - 1

    @cached_property
    def config(self) -> T3DConfig:
        """The preset ``released``. One for all sides: a second one resets accelerate's state."""
        return T3DConfig(
            output_dir=gettempdir(),  # nothing is written
            use_cpu=self.device == "cpu",
            per_device_train_batch_size=self.micro_batch,
            **preset_fields("released"),
        )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is measured."""

    num_samples: int
    """Trajectories of the accumulated batch."""
    num_authors_samples: int
    rounds: dict[str, int]


FULL = Plan(num_samples=32, num_authors_samples=32, rounds={"authors_step": 1, "careful_step": 3, "ours": 3})
QUICK = Plan(num_samples=12, num_authors_samples=2, rounds={"authors_step": 1, "careful_step": 1, "ours": 2})


@dataclass(frozen=True, kw_only=True)
class Side:
    """One way to train."""

    student: torch.nn.Module
    micro_batch: int
    accumulate: Callable[[Sequence[int]], float]
    """Forward and backward of these trajectories; returns the loss, their mean."""


def build_model(setting: Setting) -> SDARForCausalLM:
    """Random weights, the same for the same setting."""
    fields = {
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
        "eos_token_id": 0,
        "pad_token_id": 0,
    }
    fields |= {"mask_token_id": setting.mask_token_id, "attn_implementation": "sdpa"} | setting.model
    torch.manual_seed(0)
    default = torch.get_default_dtype()
    torch.set_default_dtype(setting.dtype)
    try:
        with torch.device(setting.device):
            return SDARForCausalLM(SDARConfig(**fields))
    finally:
        torch.set_default_dtype(default)


@torch.no_grad()
def start_student(model: SDARForCausalLM, setting: Setting) -> None:
    """Move a student away from its reference a little, so that margins are not zero, and let it train."""
    torch.manual_seed(1)
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.1 * model.config.initializer_range)
    model.train()
    if setting.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})


def chunks(ids: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """Micro-batches."""
    return (ids[first : first + size] for first in range(0, len(ids), size))


def make_side(name: str, setting: Setting) -> Side:
    """Models and data of a side."""
    vocab_size = setting.model["vocab_size"]
    trajectories = [random_trajectory(row, *pair, vocab_size) for row, pair in enumerate(setting.lengths)]
    config, model = setting.config, build_model(setting)
    if name == "ours":
        trainer = T3DTrainer(model, config, trajectories, processing_class=number_tokenizer(vocab_size))
        start_student(model, setting)
        return Side(
            student=model, micro_batch=setting.micro_batch, accumulate=lambda ids: train_on(trainer, ids)
        )
    reference = copy.deepcopy(model).eval().requires_grad_(False)
    start_student(model, setting)
    states = [draw_state(trajectory, config, vocab_size) for trajectory in trajectories]
    widths = max(prompt for prompt, _ in setting.lengths), max(response for _, response in setting.lengths)
    micro_batch = 1 if name == "authors_step" else setting.micro_batch

    def accumulate(ids: Sequence[int]) -> float:
        shared: dict[str, Any] = {"mask_token_id": setting.mask_token_id, "num_samples": len(ids)}
        total = 0.0
        for chunk in chunks(ids, micro_batch):
            chosen = [states[index] for index in chunk]
            if name == "authors_step":
                total += authors_step(model, reference, chosen[0], widths, config, **shared).item()
            else:
                total += careful_step(model, reference, chosen, config, **shared).item()
        return total

    return Side(student=model, micro_batch=micro_batch, accumulate=accumulate)


def train_on(trainer: T3DTrainer, ids: Sequence[int]) -> float:
    """What Trainer does with an accumulated batch, the optimizer aside."""
    size = trainer.args.per_device_train_batch_size
    batches = [
        trainer.data_collator([trainer.train_dataset[i] for i in chunk]) for chunk in chunks(ids, size)
    ]
    counts = trainer._get_num_items_in_batch(batches, trainer.args.device)
    return sum(trainer.training_step(trainer.model, batch, counts).item() for batch in batches)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One round of a side."""

    accumulation_seconds: float
    optimizer_seconds: float
    loss: float
    grad_norm: float


def timed_round(side: Side, optimizer: torch.optim.Optimizer, ids: Sequence[int]) -> Measured:
    """Train once on these trajectories."""
    started = time.perf_counter()
    loss = side.accumulate(ids)  # ends in .item(), so a GPU has finished
    accumulated = time.perf_counter()
    grad_norm = torch.nn.utils.clip_grad_norm_(side.student.parameters(), 1.0).item()
    optimizer.step()
    optimizer.zero_grad()
    if side.student.device.type == "cuda":
        torch.cuda.synchronize()
    return Measured(
        accumulation_seconds=accumulated - started,
        optimizer_seconds=time.perf_counter() - accumulated,
        loss=loss,
        grad_norm=grad_norm,
    )


def still_adamw(student: torch.nn.Module) -> torch.optim.Optimizer:
    """AdamW that does all its work and changes nothing."""
    return torch.optim.AdamW(student.parameters(), lr=0.0, weight_decay=0.01)


def peak_bytes(name: str, setting: Setting) -> int:
    """Peak memory of a side's heaviest micro-batch above its models and data; for a process of its own."""
    side = make_side(name, setting)
    everyone = range(len(setting.lengths))
    heaviest = max(
        chunks(everyone, side.micro_batch), key=lambda ids: max(setting.lengths[i][1] for i in ids)
    )
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # forget the peak so far
    before = _memory_of_process("VmRSS")
    side.accumulate(heaviest)
    return _memory_of_process("VmHWM") - before


def _memory_of_process(field: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field))


def peak_bytes_apart(name: str, setting: Setting) -> int:
    """:func:`peak_bytes` in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(peak_bytes, name, setting).result()


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


def model_flops(setting: Setting, student: torch.nn.Module, ids: Sequence[int], block_size: int) -> float:
    """FLOPs of one training step on these trajectories, by the rule of the module's docstring."""
    shape, total = setting.model, 0.0
    vocabulary = shape["vocab_size"] * shape["hidden_size"]
    body = sum(parameter.numel() for parameter in student.parameters()) - 2 * vocabulary
    per_pair = 4 * shape["num_hidden_layers"] * shape["num_attention_heads"] * shape["head_dim"]
    for prompt, response in (setting.lengths[index] for index in ids):
        block_end = torch.arange(-prompt, response) // block_size * block_size + block_size + prompt
        num_clean = prompt + (response - 1) // block_size * block_size  # nothing sees the last block
        pairs = int(block_end[:num_clean].sum() + block_end[prompt:].clamp(max=prompt + response).sum())
        total += 2 * body * (num_clean + response) + 2 * vocabulary * response + per_pair * pairs
    return 4 * total  # the student's forward and twice that backward, the reference's forward


def run_shape(setting: Setting, shape: str, peak_tflops: float | None) -> dict[str, Any]:
    """Ours alone: samples per second, model FLOPs utilisation, peak memory."""
    side, ids = make_side("ours", setting), range(4 * setting.micro_batch)
    optimizer, on_cuda = still_adamw(side.student), setting.device == "cuda"
    timed_round(side, optimizer, ids)
    if on_cuda:
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(3):
        measured = timed_round(side, optimizer, ids)
        seconds.append(measured.accumulation_seconds + measured.optimizer_seconds)
        say(f"{seconds[-1]:.2f} s, loss {measured.loss:.4f}")
    device_name = torch.cuda.get_device_name() if on_cuda else "cpu"
    known = [peak for name, peak in PEAK_TFLOPS.items() if name in device_name]
    peak = peak_tflops or (known or [measure_peaks(setting.device, setting.dtype)[0] / 1e12])[0]
    flops = model_flops(setting, side.student, ids, setting.config.block_size)
    row = {
        "shape": shape,
        "device": device_name,
        "micro_batch": setting.micro_batch,
        "num_samples": len(ids),
        "seconds_best": min(seconds),
        "seconds_median": statistics.median(seconds),
        "samples_per_second": len(ids) / min(seconds),
        "peak_tflops": peak,
        "mfu": flops / min(seconds) / (peak * 1e12),
        "peak_mib": torch.cuda.max_memory_allocated() / 2**20 if on_cuda else None,
    }
    return {"rows": [row], "threads": torch.get_num_threads(), "versions": versions()}


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


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
    parser.add_argument("--micro-batch", type=int, help="default 4, with --shape 8")
    parser.add_argument("--gradient-checkpointing", action="store_true", help="of all; with --shape always")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="with --shape")
    parser.add_argument("--shape", choices=sorted(SHAPES), help="a model of true shape, ours alone")
    parser.add_argument("--peak-tflops", type=float, help="with --shape; default by the device's name")
    options = parser.parse_args()
    if options.shape is None and options.device != "cpu":
        parser.error("--device is for --shape")
    if options.shape is None:
        setting = Setting(
            model=MODEL,
            lengths=read_lengths(),
            micro_batch=options.micro_batch or 4,
            gradient_checkpointing=options.gradient_checkpointing,
        )
        report = compare(setting, QUICK if options.quick else FULL)
    else:
        setting = Setting(
            model=SHAPES[options.shape],
            lengths=read_lengths(),
            micro_batch=options.micro_batch or 8,
            device=options.device,
            dtype=torch.bfloat16 if options.device == "cuda" else torch.float32,
            gradient_checkpointing=True,
        )
        report = run_shape(setting, options.shape, options.peak_tflops)
    if options.json:
        print(json.dumps(report))
    else:
        show(report)


if __name__ == "__main__":
    main()
