"""The engine on models of true shape with random weights: how much of the machine's roofline it reaches.

python benchmarks/decoding.py --device cuda --shape sdar-1.7b

Peaks are measured on the spot (a large matrix product, a large copy). The roofline's time of a run is
the larger of its arithmetic over the peak arithmetic and its memory traffic over the peak bandwidth,
both from the counts of ``EngineStats`` (roofline.py).
"""

import itertools
import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from roofline import ModelShape

from t3d.decoding.completion import DecodeRequest
from t3d.decoding.engine import Engine, EngineConfig
from t3d.decoding.jobs import Job
from t3d.decoding.params import DecodeParams
from t3d.decoding.stats import EngineStats
from t3d.models.sdar import SDARConfig, SDARForCausalLM

SHAPES: dict[str, dict[str, int]] = {
    "tiny": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "vocab_size": 1024,
    },
    "small": {
        "hidden_size": 256,
        "intermediate_size": 768,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "vocab_size": 2048,
    },
    "sdar-1.7b": {
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151_936,
    },
    "sdar-4b": {
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151_936,
    },
}
PROMPT_TOKENS, NEW_TOKENS = 448, 128
# On a CPU there are no graphs, and the first two are the same.
VARIANTS = {
    "graphs, fused": EngineConfig(enforce_eager=False),
    "eager, fused": EngineConfig(),
    "graphs, separate commits": EngineConfig(enforce_eager=False, fuse_commits=False),
}


def build_model(shape: str, device: str, dtype: torch.dtype, **further: Any) -> SDARForCausalLM:
    """Random weights, initialised on the device; ``further`` are fields of the config."""
    fields: dict[str, Any] = SHAPES[shape] | further
    mask_token_id = fields["vocab_size"] - 1
    config = SDARConfig(
        **fields,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
        mask_token_id=mask_token_id,
        eos_token_id=0,
        attn_implementation="sdpa",
    )
    torch.manual_seed(0)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            return SDARForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(default)


def _best_seconds(work: Any, device: str, rounds: int = 5) -> float:
    best = float("inf")
    for _ in range(rounds):
        _synchronise(device)
        started = time.perf_counter()
        work()
        _synchronise(device)
        best = min(best, time.perf_counter() - started)
    return best


def _synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def measure_peaks(device: str, dtype: torch.dtype) -> tuple[float, float]:
    """Arithmetic (FLOP/s) and bandwidth (bytes/s, read and written) that this device reaches."""
    size = 8192 if device == "cuda" else 1024
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    flops = 2 * size**3 / _best_seconds(lambda: left @ right, device)
    source = torch.empty(2**30 if device == "cuda" else 2**27, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return flops, 2 * source.nbytes / _best_seconds(lambda: target.copy_(source), device)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A model of true shape on a device, what that reaches, and how long prompts and responses are."""

    name: str
    model: SDARForCausalLM
    device: str
    flops_per_second: float
    bytes_per_second: float
    prompt_tokens: int = PROMPT_TOKENS
    new_tokens: int = NEW_TOKENS


def load_shape(name: str, device: str, **lengths: int) -> Shape:
    """Random weights, bfloat16 on CUDA, and measured peaks."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    model = build_model(name, device, dtype)
    flops, moved = measure_peaks(device, dtype)
    peaks = {"flops_per_second": flops, "bytes_per_second": moved}
    return Shape(name=name, model=model, device=device, **peaks, **lengths)


def measure(shape: Shape, variant: EngineConfig, batch: int, params: DecodeParams) -> dict[str, Any]:
    """One engine's speed on ``batch`` prompts at once, after a round in which it warms up."""
    torch.manual_seed(batch)
    mask_token_id = shape.model.config.mask_token_id
    prompts = torch.randint(1, mask_token_id, (batch, shape.prompt_tokens)).tolist()
    params = replace(params, max_new_tokens=shape.new_tokens)
    jobs = [
        Job(DecodeRequest(id=str(index), prompt_ids=tuple(prompt)), params)
        for index, prompt in enumerate(prompts)
    ]
    engine = Engine(
        shape.model,
        mask_token_id=mask_token_id,
        stop_token_ids=(),
        config=replace(variant, max_batch_size=batch, max_prefill_tokens=8192),
    )
    engine.decode(jobs)  # graphs are recorded, kernels chosen
    engine.stats = EngineStats(max_batch_size=batch)
    engine.decode(jobs)
    _synchronise(shape.device)
    stats = engine.stats.summary()
    return {
        "tokens_per_second": stats["visible_tokens_per_second"],
        "forwards_per_block": stats["forwards_per_block"],
        "roofline_fraction": ModelShape.of_model(shape.model).roofline_fraction(
            engine.stats, flops_per_second=shape.flops_per_second, bytes_per_second=shape.bytes_per_second
        ),
        "tokens_per_forward": stats["tokens_per_forward"],
        "decode_tokens_per_second": stats["visible_tokens"] / max(stats["decode_seconds"], 1e-9),
    }


def run_shape(name: str, device: str) -> list[dict[str, Any]]:
    """One row per batch size, steps per block (blocks of 4) and variant of the engine; prints each."""
    shape = load_shape(name, device)
    print(f"peaks: {shape.flops_per_second / 1e12:.2f} TFLOP/s, {shape.bytes_per_second / 1e9:.1f} GB/s")
    rows = []
    for batch, steps in itertools.product((1, 32, 128), (4, 2, 1)):
        params = DecodeParams(steps_per_block=steps, temperature=0.0)
        for variant, config in VARIANTS.items():
            row = {"shape": name, "batch": batch, "steps": steps, "variant": variant}
            row |= measure(shape, config, batch, params)
            rows.append(row)
            print(
                f"{name} batch {batch} S{steps} {variant}: {row['tokens_per_second']:.0f} tokens/s, "
                f"{row['forwards_per_block']:.2f} forwards per block, "
                f"{100 * row['roofline_fraction']:.0f} % of the roofline",
                flush=True,
            )
    return rows
