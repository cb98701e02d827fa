"""The memory of training steps on a CPU: what `t3d plan`'s arithmetic predicts, and what is measured.

python benchmarks/plan.py [--json] [--only NAME ...]

Each configuration is a small random model that takes two optimizer steps of T3DTrainer (forward, backward
and AdamW) in a process of its own. Measured: the peak of resident memory above what the same process held
after its imports and a step of a tiny model, which loads what is loaded late. The C library returns freed
memory at once (``MALLOC_MMAP_THRESHOLD_``), so that the peak is what is in use. Predicted: the arithmetic of
t3d.planning.memory, and one constant, fitted on the configurations FITTED and verified on VERIFIED. All
trajectories of a configuration have the same lengths, and all is float32: few CPUs have bfloat16.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Any

from training_sides import Setting, build_model, make_side, memory_of_process, still_adamw, timed_round

from t3d.models.linear_layers import TARGET_MODULES
from t3d.planning.memory import Step, training_bytes
from t3d.planning.shape import shape_of_model

CONSTANT_BYTES = 6 * 2**20
"""What a step takes besides, such as scratch memory of matrix products: the mean of what the arithmetic left
unexplained of FITTED (11.8, -6.8 and 13.6 MiB)."""
_ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """A model, a micro-batch and how it is trained."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    num_trajectories: int
    prompt_tokens: int
    response_tokens: int
    tie_word_embeddings: bool = False
    accumulation: int = 1
    checkpointing: bool = False
    lora_rank: int = 0
    preset: str = "released"

    @property
    def model(self) -> dict[str, Any]:
        """Fields of the network's config."""
        names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
        names += ("num_key_value_heads", "head_dim", "vocab_size", "tie_word_embeddings")
        return {name: value for name, value in asdict(self).items() if name in names}


_TINY = Configuration(
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=16,
    vocab_size=256,
    num_trajectories=2,
    prompt_tokens=16,
    response_tokens=16,
)
_COMMON: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64}
FITTED = {
    "weights": Configuration(
        hidden_size=512,
        intermediate_size=1536,
        num_hidden_layers=6,
        vocab_size=8192,
        num_trajectories=1,
        prompt_tokens=32,
        response_tokens=32,
        **_COMMON,
    ),
    "activations": Configuration(
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=6,
        vocab_size=2048,
        num_trajectories=8,
        prompt_tokens=64,
        response_tokens=96,
        **_COMMON,
    ),
    "accumulated": Configuration(
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=4,
        vocab_size=16_384,
        num_trajectories=3,
        prompt_tokens=48,
        response_tokens=64,
        accumulation=2,
        **_COMMON,
    ),
}
VERIFIED = {
    "checkpointed": Configuration(
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=8,
        vocab_size=4096,
        num_trajectories=8,
        prompt_tokens=64,
        response_tokens=128,
        accumulation=2,
        checkpointing=True,
        **_COMMON,
    ),
    "adapter": Configuration(
        hidden_size=384,
        intermediate_size=1152,
        num_hidden_layers=6,
        vocab_size=8192,
        num_trajectories=4,
        prompt_tokens=96,
        response_tokens=96,
        lora_rank=8,
        **_COMMON,
    ),
    "tied, long": Configuration(
        hidden_size=320,
        intermediate_size=960,
        num_hidden_layers=5,
        vocab_size=32_768,
        num_trajectories=2,
        prompt_tokens=128,
        response_tokens=256,
        tie_word_embeddings=True,
        **_COMMON,
    ),
    "no reference": Configuration(
        hidden_size=448,
        intermediate_size=1280,
        num_hidden_layers=5,
        vocab_size=12_288,
        num_trajectories=4,
        prompt_tokens=64,
        response_tokens=64,
        accumulation=2,
        preset="naive_td",
        **_COMMON,
    ),
}
CONFIGURATIONS = FITTED | VERIFIED


def predicted(case: Configuration) -> dict[str, float]:
    """Bytes by part, and their total with the constant."""
    shape = shape_of_model(build_model(Setting(model=case.model, lengths=[], device="meta")))
    reference = None if case.preset == "naive_td" else "adapter" if case.lora_rank else "device"
    step = Step(
        shape=shape,
        num_trajectories=case.num_trajectories,
        prompt_tokens=case.prompt_tokens,
        response_tokens=case.response_tokens,
        accumulation=case.accumulation,
        checkpointing=case.checkpointing,
        adapter_parameters=shape.adapter_parameters(case.lora_rank, TARGET_MODULES),
        adapter_rank=case.lora_rank,
        reference=reference,
        device_type="cpu",
    )
    found = training_bytes(step)
    return asdict(found) | {"total": found.total + CONSTANT_BYTES}


def measure(case: Configuration) -> int:
    """Peak bytes of two optimizer steps above a tiny one's; for a process of its own."""
    _train(_TINY)
    gc.collect()
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # forget the peak so far
    before = memory_of_process("VmRSS")
    _train(case)
    return memory_of_process("VmHWM") - before


def _train(case: Configuration) -> None:
    size = case.num_trajectories * case.accumulation
    setting = Setting(
        model=case.model,
        lengths=[(case.prompt_tokens, case.response_tokens)] * size,
        micro_batch=case.num_trajectories,
        preset=case.preset,
        gradient_checkpointing=case.checkpointing,
        lora_rank=case.lora_rank,
    )
    side = make_side("ours", setting)
    optimizer = still_adamw(side.student)
    for _ in range(2):
        timed_round(side, optimizer, range(size))


def measure_apart(name: str) -> int:
    """:func:`measure` in a fresh process."""
    command = [sys.executable, __file__, "--measure", name]
    done = subprocess.run(command, env=os.environ | _ENVIRONMENT, check=True, capture_output=True, text=True)
    return int(done.stdout.splitlines()[-1])


def compare(names: list[str]) -> list[dict[str, Any]]:
    """A row per configuration."""
    rows = []
    for name in names:
        parts, peak = predicted(CONFIGURATIONS[name]), measure_apart(name)
        row = {"name": name, "fitted": name in FITTED, "measured": peak, "ratio": parts["total"] / peak}
        rows.append(row | {"predicted": parts})
        mib = {part: round(size / 2**20, 1) for part, size in parts.items()}
        print(
            f"{name}: measured {peak / 2**20:.1f} MiB, predicted {mib['total']} ({row['ratio']:.3f}): {mib}",
            file=sys.stderr,
        )
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--only", nargs="+", choices=CONFIGURATIONS, default=list(CONFIGURATIONS))
    parser.add_argument("--measure", choices=CONFIGURATIONS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(measure(CONFIGURATIONS[options.measure]))
        return
    rows = compare(options.only)
    if options.json:
        print(json.dumps({"constant_bytes": CONSTANT_BYTES, "rows": rows}))


if __name__ == "__main__":
    main()
