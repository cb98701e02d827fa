"""How fast the engine decodes at true shapes, and how near to the machine's floor: parts of gpu_check.py.

Weights are random, so ``self_speculative`` accepts few drafts: its rows tell what a forward with drafts
costs, not what drafts bring. The floor is the time that the measured peaks of arithmetic and memory allow
(roofline.py); tokens per second count the prompt's forwards, ``decode`` leaves them out.
"""

import gc
from functools import partial

import torch
from decoding_shapes import VARIANTS, load_shape, measure
from gpu_parts import Case, Machine, Row

from t3d.decoding.engine import EngineConfig
from t3d.decoding.params import DecodeParams

STEPS = (4, 1, 2)
"""Denoising steps per block of 4."""
DRAFTING = DecodeParams(remasking="self_speculative", temperature=0.0, block_size=8)


def cases_of(name: str, machine: Machine) -> list[Case]:
    """What matters most comes first: with graphs, drafts, without graphs."""
    shape = (
        load_shape("tiny", machine.device, prompt_tokens=24, new_tokens=8)
        if machine.is_tiny
        else load_shape(name, machine.device)
    )
    batches = (1, 4) if machine.is_tiny else (1, 32, 128)

    def peaks() -> Row:
        reached = {"peak TFLOP/s": shape.flops_per_second / 1e12, "peak GB/s": shape.bytes_per_second / 1e9}
        return {"decoding": "what the machine reaches"} | reached

    def case(label: str, variant: EngineConfig, batch: int, params: DecodeParams) -> Row:
        gc.collect()  # slots and graphs of the case before
        if machine.on_cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        found = measure(shape, variant, batch, params)
        return {
            "decoding": label,
            "batch": batch,
            "tokens/s": found["tokens_per_second"],
            "decode tokens/s": found["decode_tokens_per_second"],
            "tokens per forward": found["tokens_per_forward"],
            "% of the floor": 100 * found["roofline_fraction"],
            "peak GiB": torch.cuda.max_memory_allocated() / 2**30 if machine.on_cuda else None,
        }

    settings = {f"B4 S{steps}": DecodeParams(steps_per_block=steps, temperature=0.0) for steps in STEPS}

    def by_steps(what: str, variant: EngineConfig) -> list[Case]:
        return [
            partial(case, f"{label}, {what}", variant, batch, params)
            for label, params in settings.items()
            for batch in batches
        ]

    eager = VARIANTS["eager, fused"]
    graphs = by_steps("graphs", VARIANTS["graphs, fused"]) if machine.on_cuda else []
    drafts = [partial(case, "B8 self-speculative", eager, batch, DRAFTING) for batch in batches]
    return [peaks, *graphs, *drafts, *by_steps("eager", eager)]


def small_cases(machine: Machine) -> list[Case]:
    """SDAR-1.7B's shape."""
    return cases_of("sdar-1.7b", machine)


def large_cases(machine: Machine) -> list[Case]:
    """SDAR-4B's shape."""
    return cases_of("sdar-4b", machine)
