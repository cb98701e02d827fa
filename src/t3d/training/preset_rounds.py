"""What presets that are made for rounds of rollout and training do unless they are told otherwise."""

from typing import Any

ROUNDS: dict[str, dict[str, Any]] = {
    "t3d-plus": {"num_rounds": 3},
    "t3d-plus-verified": {"num_rounds": 3, "rollout_filter": "correct"},
}
"""By preset: flags of ``t3d distil``, ``t3d reproduce cell`` and ``t3d demo``. ``rollout_settings`` are block
size and tokens per step of the rollouts, by round."""


def preset_rollouts(preset: str, num_rounds: int) -> tuple[str, ...]:
    """The decoding settings of a preset's rollouts, one for each round, further ones like its last; empty:
    full steps in all."""
    settings: tuple[str, ...] = ROUNDS.get(preset, {}).get("rollout_settings", ())
    return (*settings, *settings[-1:] * num_rounds)[:num_rounds]
