"""What a demo found, in one sentence."""

from collections.abc import Mapping
from statistics import mean
from typing import Any


def finding(summary: Mapping[str, Any]) -> str:
    """What the demo found, in one sentence: accuracies at about four tokens per step, and at one."""
    teacher, student = summary["models"]["teacher"], summary["models"]["student"]

    def accuracies(tokens: float) -> tuple[float, float]:
        """Of teacher and student, where the teacher's tokens per step are nearest to that."""
        distances = {name: abs(found["tokens_per_step"] - tokens) for name, found in teacher.items()}
        names = [name for name, distance in distances.items() if distance < min(distances.values()) + 0.5]
        before, after = (
            mean(model[name]["accuracy"]["mean"] for name in names) for model in (teacher, student)
        )
        return before, after

    (few_before, few_after), (before, after) = accuracies(4), accuracies(1)
    return (
        f"At four tokens per step {few_before:.0f} % right before {summary['method']}, "
        f"{few_after:.0f} % after\n(at one {before:.0f} % and {after:.0f} %)"
    )
