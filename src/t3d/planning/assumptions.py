"""What a plan has to assume, with where each number is from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Assumption:
    """A number that no file of the model says."""

    value: float
    unit: str
    text: str
    """What it means."""
    source: str
    """``assumed``, with the reason; ``given``, by flag or recipe; or ``measured`` and the file."""


_DEFAULTS: dict[str, tuple[float, str, str, str]] = {
    "prompt_tokens": (150, "tokens", "mean length of a prompt", "a question of MATH and its instruction"),
    "response_tokens": (500, "tokens", "mean length of a response", "a solution in steps, with a long tail"),
    "longest_prompt": (512, "tokens", "longest prompt", "the released configuration drops longer ones"),
    "peak_tflops": (312, "TFLOP/s", "peak of one GPU in dense bfloat16", "NVIDIA's data sheet of the A100"),
    "memory_bandwidth": (1555, "GB/s", "peak memory traffic of one GPU", "data sheet of the A100 of 40 GB"),
    "training_utilisation": (0.3, "of the peak", "arithmetic that a training step reaches", "never measured"),
    "rollout_utilisation": (0.3, "of the roofline", "speed that a decoding step reaches", "never measured"),
    "reserve_gb": (3, "GiB", "memory of each GPU left alone", "CUDA context, NCCL, fragments: a guess"),
}
ASSUMED = tuple(_DEFAULTS)
"""Their names: flags of ``t3d plan``, and keys of its file of measurements."""


def assumptions(
    given: Mapping[str, float], measured: Mapping[str, float], file: str
) -> dict[str, Assumption]:
    """Each by name: as given, else as measured in ``file``, else the default."""
    found: dict[str, Assumption] = {}
    for name, (value, unit, text, reason) in _DEFAULTS.items():
        kept: dict[str, Any] = {"unit": unit, "text": text}
        if name in given:
            found[name] = Assumption(value=given[name], source="given", **kept)
        elif name in measured:
            found[name] = Assumption(value=measured[name], source=f"measured ({file})", **kept)
        else:
            found[name] = Assumption(value=value, source=f"assumed: {reason}", **kept)
    return found


BESIDES = (
    "every trajectory of a micro-batch is as long as the longest prompt and max_new_tokens allow",
    "all response tokens take loss (mask ratios below 1 leave some out)",
    "activations under FSDP2 are counted as under autocast",
    "no time is counted for communication between GPUs, for loading, for data, and for saving",
    "the rollout's batch is full all the time; every GPU decodes a share of the prompts alone",
    "a GB of a GPU is 2^30 bytes, as their names have it",
)
"""What is assumed besides, in words."""
