"""How a student decodes where nothing else is said: in its own blocks, in the few steps it was made for."""

import math
from collections.abc import Sequence
from typing import Any

from t3d.decoding.params import DecodeParams, steps_of
from t3d.trajectory import Trajectory

TOKENS_PER_STEP = 4
"""Of a student for which nothing else is said; fewer where they do not divide its blocks."""


def student_settings(
    trajectories: Sequence[Trajectory],
    block_size: int,
    *,
    tokens_per_step: int | None = None,
    threshold: float | None = None,
) -> dict[str, Any]:
    """Fields of DecodeParams that an export carries: a number of tokens per step, or a confidence
    ``threshold`` of dynamic decoding; the temperature is that of its rollouts, if they share one.

    Raises InputError for tokens per step that do not divide the block size, or no threshold in [0, 1].
    """
    settings: dict[str, Any] = {"block_size": block_size, "steps_per_block": block_size}
    if threshold is not None:
        settings |= {"remasking": "low_confidence_dynamic", "confidence_threshold": threshold}
    else:
        count = math.gcd(block_size, TOKENS_PER_STEP) if tokens_per_step is None else tokens_per_step
        settings["steps_per_block"] = steps_of(block_size, count)
        settings["remasking"] = DecodeParams.remasking
    temperatures = {trajectory.decode_params.get("temperature") for trajectory in trajectories}
    if len(temperatures) == 1 and temperatures != {None}:
        settings["temperature"] = temperatures.pop()
    DecodeParams(**settings)
    return settings
