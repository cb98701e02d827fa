"""Training at SDAR-1.7B's shape beside what a careful user would write: a part of gpu_check.py.

All weights, and LoRA. Tokens are those of prompts and responses, once. Peak memory is all that PyTorch
allocated: two models (with LoRA one), gradients, optimizer, activations. MFU is defined for all weights only.
"""

import gc
from functools import partial

import torch
from decoding_shapes import SHAPES
from gpu_parts import Case, Machine, Row
from training_lengths import read_lengths
from training_shapes import measure_side
from training_sides import Setting

LORA_RANK = 16
SIDES = {"careful": ("careful_step", 0), "ours": ("ours", 0), "ours, LoRA": ("ours", LORA_RANK)}
TINY_LENGTHS = [(20, 24), (9, 11), (12, 32), (8, 16)]


def speed_cases(machine: Machine) -> list[Case]:
    """The baseline, which compiles nothing, comes first."""
    is_tiny = machine.is_tiny

    def case(label: str) -> Row:
        name, rank = SIDES[label]
        setting = Setting(
            model=SHAPES["tiny" if is_tiny else "sdar-1.7b"],
            lengths=TINY_LENGTHS if is_tiny else read_lengths(),
            micro_batch=2 if is_tiny else 8,
            device=machine.device,
            dtype=torch.bfloat16 if machine.on_cuda else torch.float32,
            gradient_checkpointing=True,
            lora_rank=rank,
        )
        gc.collect()  # what the side before it held
        if machine.on_cuda:
            torch.cuda.empty_cache()
        found = measure_side(name, setting, num_micro_batches=2, num_rounds=2)
        return {
            "training": label,
            "tokens/s": found["tokens_per_second"],
            "seconds per step": found["seconds_best"],
            "samples": found["num_samples"],
            "% MFU": None if rank else 100 * found["mfu"],
            "peak GiB": found["peak_mib"] and found["peak_mib"] / 1024,
            "loss": found["loss"],
        }

    return [partial(case, label) for label in SIDES]
