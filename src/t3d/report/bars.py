"""Plots of accuracies with their intervals: bars by method, lines over a setting."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from t3d.work.files import atomic_file

_MARKS = ("o-", "s-", "^-.", "d:", "v--", "P-")


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A value with its 95 % interval; percent."""

    value: float
    low: float
    high: float

    @property
    def errors(self) -> tuple[float, float]:
        """Below and above; rounding may put an end a hair inside the value."""
        return max(0.0, self.value - self.low), max(0.0, self.high - self.value)


def plot_bars(
    groups: Mapping[str, Mapping[str, Bar]], path: str | Path, title: str, *, baseline: str | None = None
) -> None:
    """A horizontal bar per method and group, as PNG; ``groups`` maps group and method to a bar.

    A dashed line per group stands at the ``baseline`` method, so that what is lost or gained is seen.
    """
    methods = list(dict.fromkeys(method for bars in groups.values() for method in bars))
    height = 0.8 / len(groups)
    figure = Figure(figsize=(7.5, 1.2 + 0.36 * len(methods) * len(groups) ** 0.7), layout="constrained")
    axes = figure.add_subplot()
    for index, (group, bars) in enumerate(groups.items()):
        places = [methods.index(method) + (index - (len(groups) - 1) / 2) * height for method in bars]
        errors = list(zip(*(bar.errors for bar in bars.values()), strict=True))
        values = [bar.value for bar in bars.values()]
        drawn = axes.barh(places, values, height, xerr=errors, capsize=2, color=f"C{index}", label=group)
        axes.bar_label(drawn, fmt="%.1f", padding=3, fontsize=7)
        if baseline is not None and baseline in bars:
            axes.axvline(bars[baseline].value, color=f"C{index}", linestyle="--", linewidth=1)
    axes.set_yticks(range(len(methods)), methods)
    axes.invert_yaxis()
    axes.set(xlim=(0, 112))
    if len(groups) > 1:
        figure.legend(loc="outside lower center", ncols=len(groups), fontsize=8)
    _save(figure, axes, path, title, xlabel="accuracy (%)")


def plot_lines(
    lines: Mapping[str, Sequence[tuple[float, Bar]]], path: str | Path, title: str, *, xlabel: str
) -> None:
    """A line per name through its points with intervals, as PNG."""
    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    axes = figure.add_subplot()
    for mark, (name, points) in zip(cycle(_MARKS), lines.items(), strict=False):
        errors = list(zip(*(bar.errors for _, bar in points), strict=True))
        places, values = [place for place, _ in points], [bar.value for _, bar in points]
        axes.errorbar(places, values, yerr=errors, fmt=mark, capsize=3, label=name)
    axes.set(ylabel="accuracy (%)", ylim=(-2, 104))
    axes.legend(fontsize=8)
    _save(figure, axes, path, title, xlabel=xlabel)


def _save(figure: Figure, axes: Axes, path: str | Path, title: str, *, xlabel: str) -> None:
    axes.set(xlabel=xlabel, title=title)
    axes.set_axisbelow(True)
    axes.grid(alpha=0.3)
    with atomic_file(path) as partial:
        figure.savefig(partial, format="png", dpi=150)
