"""Plots of accuracies with their 95 % intervals, as PNG: bars by method, and lines over a quantity."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from matplotlib.figure import Figure

from t3d.work.files import atomic_file

FORWARDS = "tokens per forward (commits counted)"
"""Label of the axis of few-step decoding."""
_STYLES = (
    ("o--", (6, -10)),
    ("s-", (4, 6)),
    ("^-.", (4, 14)),
    ("d:", (4, 22)),
    ("v--", (4, 6)),
    ("P-", (4, 6)),
    ("X-.", (4, 6)),
)
"""Line and where its labels stand, of one line after the other."""


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


Points = Mapping[str, tuple[float, Bar]]
"""By name, such as that of a decoding setting: place on the horizontal axis, and accuracy there."""


def plot_bars(
    groups: Mapping[str, Mapping[str, Bar]], path: str | Path, title: str, *, baseline: str
) -> None:
    """A horizontal bar per method and group; ``groups`` maps group and method to a bar.

    A dashed line per group stands at the ``baseline`` method, so that what is lost or gained is seen.
    """
    methods = list(dict.fromkeys(method for bars in groups.values() for method in bars))
    height = 0.8 / len(groups)
    figure = Figure(figsize=(7.5, 1.2 + 0.36 * len(methods) * len(groups) ** 0.7), layout="constrained")
    axes = figure.add_subplot()
    for index, (group, bars) in enumerate(groups.items()):
        places = [methods.index(method) + (index - (len(groups) - 1) / 2) * height for method in bars]
        values, errors = [bar.value for bar in bars.values()], _errors(list(bars.values()))
        drawn = axes.barh(places, values, height, xerr=errors, capsize=2, color=f"C{index}", label=group)
        axes.bar_label(drawn, fmt="%.1f", padding=3, fontsize=7)
        if baseline in bars:
            axes.axvline(bars[baseline].value, color=f"C{index}", linestyle="--", linewidth=1)
    axes.set_yticks(range(len(methods)), methods)
    axes.invert_yaxis()
    axes.set(xlim=(0, 112), xlabel="accuracy (%)", title=title)
    axes.set_axisbelow(True)
    if len(groups) > 1:
        figure.legend(loc="outside lower center", ncols=len(groups), fontsize=8)
    _save(figure, path)


def plot_lines(
    lines: Mapping[str, Points], path: str | Path, title: str, *, xlabel: str, annotated: Collection[str] = ()
) -> None:
    """A line per name through its points, from left to right.

    ``annotated`` are the lines whose points' names stand beside them.
    """
    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    axes = figure.add_subplot()
    for (style, label_offset), (line, named) in zip(cycle(_STYLES), lines.items(), strict=False):
        points = sorted(named.items(), key=lambda item: item[1][0])
        places, bars = [place for _, (place, _) in points], [bar for _, (_, bar) in points]
        values = [bar.value for bar in bars]
        axes.errorbar(places, values, yerr=_errors(bars), fmt=style, capsize=3, label=line)
        for name, (place, bar) in points if line in annotated else ():
            where = (place, bar.value)
            axes.annotate(name, where, textcoords="offset points", xytext=label_offset, fontsize=7)
    axes.set(xlabel=xlabel, ylabel="accuracy (%)", ylim=(-2, 104), title=title)
    axes.legend()
    _save(figure, path)


def _errors(bars: Sequence[Bar]) -> list[tuple[float, ...]]:
    """Of all bars below, and of all above."""
    return list(zip(*(bar.errors for bar in bars), strict=True))


def _save(figure: Figure, path: str | Path) -> None:
    figure.axes[0].grid(alpha=0.3)
    with atomic_file(path) as partial:
        figure.savefig(partial, format="png", dpi=150)
