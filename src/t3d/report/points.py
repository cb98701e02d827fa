"""What plots show: values with their 95 % intervals, and lines through them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FORWARDS = "tokens per forward (commits counted)"
"""Label of the axis of few-step decoding."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A value with its 95 % interval; percent, unless the plot says otherwise."""

    value: float
    low: float
    high: float

    @property
    def errors(self) -> tuple[float, float]:
        """Below and above; rounding may put an end a hair inside the value."""
        return max(0.0, self.value - self.low), max(0.0, self.high - self.value)


Points = Mapping[str, tuple[float, Bar]]
"""By name, such as that of a decoding setting: place on the horizontal axis, and accuracy there."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """Points that belong together, and how they are drawn."""

    name: str
    points: Points
    is_subject: bool = False
    """What the plot is about: drawn in the strong colour."""
    is_joined: bool = True
    """Whether a line joins the points; else each stands for itself."""
    is_labelled: bool = False
    """Whether the points' names stand beside them."""


def setting_lines(
    models: Mapping[str, Mapping[str, Mapping[str, Any]]],
    quantity: str = "tokens_per_forward",
    subject: str = "student",
) -> list[Line]:
    """Mean accuracy over a quantity: a line per model and block size, other strategies on their own.

    ``models``: by name the settings, as :func:`t3d.evaluation.over_tasks.over_tasks` gives them.
    """
    return [
        _line(model, kind, settings, quantity, is_subject=model == subject)
        for model, settings in models.items()
        for kind in dict.fromkeys(map(_kind, settings))
    ]


def _kind(setting: str) -> str:
    """``B4`` of ``B4-T2``; of another strategy all of its name."""
    block, _, rest = setting.partition("-")
    return block if rest.startswith("T") else setting


def _line(model: str, kind: str, settings: Mapping[str, Any], quantity: str, *, is_subject: bool) -> Line:
    points = {
        setting: (
            found[quantity],
            Bar(value=found["accuracy"]["mean"], low=found["ci95"]["mean"][0], high=found["ci95"]["mean"][1]),
        )
        for setting, found in settings.items()
        if _kind(setting) == kind
    }
    is_static = any(setting != kind for setting in points)
    return Line(
        name=f"{model}, blocks of {kind[1:]}" if is_static else f"{model}, {kind}",
        points=points,
        is_subject=is_subject,
        is_joined=is_static,
        is_labelled=True,
    )
