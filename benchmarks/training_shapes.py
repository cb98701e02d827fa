"""One training step of a model of true shape: samples per second, MFU, peak memory."""

import statistics
from collections.abc import Sequence
from typing import Any

import torch
from decoding_shapes import measure_peaks
from training_sides import Setting, make_side, say, still_adamw, timed_round

from t3d.work.versions import versions

PEAK_TFLOPS = {"H100": 989, "H200": 989, "A100": 312}
"""Dense bfloat16, by a part of the device's name."""


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


def measure_side(
    name: str, setting: Setting, num_micro_batches: int, num_rounds: int, peak_tflops: float | None = None
) -> dict[str, Any]:
    """A side's speed and peak memory, after a round in which it warms up."""
    on_cuda = setting.device == "cuda"
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
    peak = peak_tflops or (known or [measure_peaks(setting.device, setting.dtype)[0] / 1e12])[0]
    flops = model_flops(setting, side.student, ids, setting.config.block_size)
    return {
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


def run_shape(setting: Setting, shape: str, peak_tflops: float | None) -> dict[str, Any]:
    """Ours alone: samples per second, model FLOPs utilisation, peak memory."""
    row = {"shape": shape} | measure_side("ours", setting, 4, 3, peak_tflops)
    return {"rows": [row], "threads": torch.get_num_threads(), "versions": versions()}
