"""Where the time of the trainer's own side goes."""

from collections.abc import Sequence

import torch
from training_sides import Side

_PARTS = {"_HeadScoresFunction": "head", "_GroupAttention": "attention"}
"""Parts of the step by their autograd functions, forward and backward."""


def profile_shares(side: Side, ids: Sequence[int]) -> dict[str, float]:
    """Percent of the time: head and attention with all they call, and the operations that take most."""
    with torch.profiler.profile() as profile:
        side.accumulate(ids)
    events = profile.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    shares = dict.fromkeys(_PARTS.values(), 0.0)
    for event in events:
        for function, part in _PARTS.items():
            if event.key in (function, f"{function}Backward"):
                shares[part] += 100 * event.cpu_time_total / total
    for event in sorted(events, key=lambda event: -event.self_cpu_time_total)[:8]:
        shares[event.key] = 100 * event.self_cpu_time_total / total
    return shares
