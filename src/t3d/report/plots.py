"""Plots of accuracies with their 95 % intervals, as PNG: gains over a baseline, and lines over a quantity.

What the plot is about is drawn in one strong colour, all else in greys.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from t3d.report.labels import Label, place_labels
from t3d.report.points import Bar, Line
from t3d.work.files import atomic_file
from t3d.work.own import SOFTWARE

STRONG = "#c8102e"
_GREYS = ("#333333", "#777777", "#555555", "#999999", "#444444", "#888888", "#666666")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES = ("-", "--", "-.", ":")


def plot_gains(
    groups: Mapping[str, Mapping[str, Bar]], path: str | Path, title: str, *, baseline: str, subject: str
) -> None:
    """A panel per group with a bar per method: its distance from the baseline in points, with its interval.

    Each panel's axis shows what differs in it; the accuracies themselves stand in a column at its right.
    ``groups`` maps group and method to a bar. Without the baseline in a group the bars begin at 0.
    """
    methods = list(dict.fromkeys(method for bars in groups.values() for method in bars))
    figure = Figure(figsize=(3.4 + 3.0 * len(groups), 1.6 + 0.34 * len(methods)), layout="constrained")
    panels = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    for axes, (group, bars) in zip(panels, groups.items(), strict=True):
        zero = bars[baseline].value if baseline in bars else 0.0
        for method, bar in bars.items():
            colour = STRONG if method == subject else "#b0b0b0"
            errors = [[one] for one in bar.errors]
            place = methods.index(method)
            axes.barh(place, bar.value - zero, 0.62, xerr=errors, capsize=2, color=colour)
            axes.text(
                1.02,
                place,
                f"{bar.value:.1f}",
                transform=axes.get_yaxis_transform(),
                va="center",
                fontsize=8,
                fontweight="bold" if method == subject else "normal",
            )
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_xlabel(f"points above {baseline}" if baseline in bars else "accuracy (%)", fontsize=8)
        axes.set_title(f"{group}\naccuracy in % at the right", fontsize=8)
        axes.set_axisbelow(True)
        axes.grid(alpha=0.3, axis="x")
    panels[0].set_yticks(range(len(methods)), methods)
    panels[0].invert_yaxis()
    figure.suptitle(title, fontsize=10)
    _save(figure, path)


def plot_lines(
    lines: Sequence[Line],
    path: str | Path,
    title: str,
    *,
    xlabel: str,
    ylabel: str = "accuracy (%)",
    has_powers: bool = False,
) -> None:
    """The lines, each through its points from left to right; labels keep clear of each other and of points.

    ``has_powers``: the horizontal axis doubles from tick to tick, as tokens per forward do.
    """
    figure = Figure(figsize=(7.5, 5.2), layout="constrained")
    axes = figure.add_subplot()
    labels = []
    for line, marker, (colour, dashes) in zip(lines, cycle(_MARKERS), _styles(lines), strict=False):
        points = sorted(line.points.items(), key=lambda item: item[1][0])
        places, bars = [place for _, (place, _) in points], [bar for _, (_, bar) in points]
        axes.errorbar(
            places,
            [bar.value for bar in bars],
            yerr=_errors(bars),
            color=colour,
            linestyle=dashes if line.is_joined else "none",
            marker=marker,
            markersize=6 if line.is_joined else 10,
            capsize=3,
            label=line.name,
            zorder=3 if line.is_subject else 2,
        )
        if line.is_labelled:
            labels += [Label(name, place, bar.value, colour) for name, (place, bar) in points]
    _scale(axes, [place for line in lines for place, _ in line.points.values()], has_powers=has_powers)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.set_title(title, fontsize=10)
    axes.margins(x=0.1, y=0.1)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8)
    place_labels(figure, axes, labels)
    _save(figure, path)


def _styles(lines: Sequence[Line]) -> Iterator[tuple[str, str]]:
    """Colour and dashes of each line: those of the subject share the strong colour."""
    strong, others = cycle(_DASHES), cycle(_DASHES)
    greys = cycle(_GREYS)
    for line in lines:
        yield (STRONG, next(strong)) if line.is_subject else (next(greys), next(others))


def _scale(axes: Axes, places: Sequence[float], *, has_powers: bool) -> None:
    """Ticks at the powers of two that the points span, or at the points' own few places."""
    if has_powers:
        axes.set_xscale("log", base=2)
        ticks = [2.0**power for power in range(8) if 2.0**power <= 1.2 * max(places)]
    else:
        ticks = sorted(set(places))
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()


def _errors(bars: Sequence[Bar]) -> list[tuple[float, ...]]:
    """Of all bars below, and of all above."""
    return list(zip(*(bar.errors for bar in bars), strict=True))


def _save(figure: Figure, path: str | Path) -> None:
    with atomic_file(path) as partial:
        figure.savefig(partial, format="png", dpi=150, metadata={"Software": SOFTWARE})
