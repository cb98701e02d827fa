"""One training step of a model of true shape: samples per second, MFU, peak memory."""

import random
import statistics
from collections.abc import Sequence
from typing import Any

import torch
from decoding_shapes import measure_peaks
from training_lengths import BLOCK_SIZE, Lengths
from training_profile import profile_shares
from training_sides import SMOLLM2, Setting, make_side, peak_bytes_apart, say, still_adamw, timed_round

from t3d.models.placement import cpu_has_bfloat16
from t3d.training.freed_memory import keep_freed_memory
from t3d.work.versions import versions

PEAK_TFLOPS = {"H100": 989, "H200": 989, "A100": 312}
"""Dense bfloat16, by a part of the device's name."""
CONTINUED = "smollm2"
"""The shape of continued pretraining."""


def continued_pretraining(micro_batch: int, *, gradient_checkpointing: bool) -> Setting:
    """SmolLM2-135M's shape on a CPU, preset ``sft``, all weights, in float32; with autocast where that pays.

    Texts are of 99 to 110 + 144 to 160 tokens, in whole blocks.
    """
    draw = random.Random(0)
    lengths: Lengths = [(draw.randint(99, 110), draw.randint(144, 157)) for _ in range(64)]
    return Setting(
        model=SMOLLM2,
        lengths=[(prompt, response + -(prompt + response) % BLOCK_SIZE) for prompt, response in lengths],
        architecture="llama",
        preset="sft",
        has_autocast=cpu_has_bfloat16(),
        micro_batch=micro_batch,
        gradient_checkpointing=gradient_checkpointing,
    )


def model_flops(setting: Setting, student: torch.nn.Module, ids: Sequence[int], block_size: int) -> float:
    """FLOPs of one training step on these trajectories, by the rule of the module's docstring."""
    shape, total = setting.model, 0.0
    vocabulary = shape["vocab_size"] * shape["hidden_size"]
    tables = 1 if shape.get("tie_word_embeddings") else 2
    body = sum(parameter.numel() for parameter in student.parameters()) - tables * vocabulary
    per_pair = 4 * shape["num_hidden_layers"] * shape["num_attention_heads"] * shape["head_dim"]
    for prompt, response in (setting.lengths[index] for index in ids):
        block_end = torch.arange(-prompt, response) // block_size * block_size + block_size + prompt
        num_clean = prompt + (response - 1) // block_size * block_size  # nothing sees the last block
        pairs = int(block_end[:num_clean].sum() + block_end[prompt:].clamp(max=prompt + response).sum())
        total += 2 * body * (num_clean + response) + 2 * vocabulary * response + per_pair * pairs
    has_reference = setting.config.objective == "t3d"
    return (3 + has_reference) * total  # the student's forward and twice that backward, the reference's


def measure_side(
    name: str,
    setting: Setting,
    num_micro_batches: int,
    num_rounds: int,
    peak_tflops: float | None = None,
    *,
    is_profiled: bool = False,
) -> dict[str, Any]:
    """A side's speed and peak memory, after a round in which it warms up, and where its time goes."""
    on_cuda = setting.device == "cuda"
    if not on_cuda:
        keep_freed_memory()  # as distil does
    side, ids = make_side(name, setting), range(num_micro_batches * setting.micro_batch)
    optimizer = still_adamw(side.student)
    if on_cuda:
        torch.cuda.reset_peak_memory_stats()
    timed_round(side, optimizer, ids)
    seconds = []
    for _ in range(num_rounds):
        measured = timed_round(side, optimizer, ids)
        seconds.append(measured.accumulation_seconds + measured.optimizer_seconds)
        say(f"{seconds[-1]:.2f} s, loss {measured.loss:.4f}")
    device_name = torch.cuda.get_device_name() if on_cuda else "cpu"
    known = [peak for part, peak in PEAK_TFLOPS.items() if part in device_name]
    dtype = torch.bfloat16 if setting.has_autocast else setting.dtype
    peak = peak_tflops or (known or [measure_peaks(setting.device, dtype)[0] / 1e12])[0]
    flops = model_flops(setting, side.student, ids, setting.config.block_size)
    profile = {"profile": profile_shares(side, ids)} if is_profiled else {}
    return profile | {
        "device": device_name,
        "micro_batch": setting.micro_batch,
        "num_samples": len(ids),
        "seconds_best": min(seconds),
        "seconds_median": statistics.median(seconds),
        "samples_per_second": len(ids) / min(seconds),
        "tokens_per_second": sum(sum(setting.lengths[index]) for index in ids) / min(seconds),
        "peak_tflops": peak,
        "mfu": flops / min(seconds) / (peak * 1e12),
        "peak_mib": torch.cuda.max_memory_allocated() / 2**20 if on_cuda else None,
        "loss": measured.loss,
    }


def run_shape(
    setting: Setting, shape: str, peak_tflops: float | None, *, is_quick: bool = False
) -> dict[str, Any]:
    """Ours alone: samples per second, model FLOPs utilisation, peak memory; on a CPU a profile, too.

    The peak is all that CUDA allocated; on a CPU, where processes hold much else, what a micro-batch adds.
    """
    on_cpu = setting.device == "cpu"
    peak = {"peak_mib": peak_bytes_apart("ours", setting) / 2**20} if on_cpu else {}
    size = (1, 3) if is_quick else (4, 3)
    found = measure_side("ours", setting, *size, peak_tflops, is_profiled=on_cpu)
    profile = {"profile": found.pop("profile")} if "profile" in found else {}
    row = {"shape": shape, "autocast": setting.has_autocast} | found | peak
    return {"rows": [row], **profile, "threads": torch.get_num_threads(), "versions": versions()}
