"""Names beside the points of a plot, where they cover neither each other nor a point."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import cos, pi, sin

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

_MARKER, _LINE = 5.0, 1.5
"""Half of what a marker and a line are wide, in pixels."""
_FURTHEST = 10
"""Rings of places that are tried around a point."""


@dataclass(frozen=True)
class Label:
    """A text for the point (x, y)."""

    text: str
    x: float
    y: float
    colour: str


def place_labels(figure: Figure, axes: Axes, labels: Sequence[Label]) -> None:
    """Write each label at the place around its point that covers least of what is there: best nothing."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    figure.set_layout_engine("none")  # what is measured now stays where it is
    taken = list(_drawn(axes))
    frame = axes.get_window_extent(renderer)
    for label in labels:
        least, best = len(taken) + 1, (0.0, 0.0)
        for offset in _offsets():
            note = _annotate(axes, label, *offset)
            box = note.get_window_extent(renderer)
            note.remove()
            is_inside = frame.x0 < box.x0 and box.x1 < frame.x1 and frame.y0 < box.y0 and box.y1 < frame.y1
            covered = sum(box.overlaps(other) for other in taken)
            if is_inside and covered < least:
                least, best = covered, offset
            if least == 0:
                break
        taken.append(_annotate(axes, label, *best).get_window_extent(renderer))


def _annotate(axes: Axes, label: Label, dx: float, dy: float) -> Annotation:
    horizontal = "left" if dx > 1 else "right" if dx < -1 else "center"
    vertical = "bottom" if dy > 1 else "top" if dy < -1 else "center"
    is_far = dx * dx + dy * dy > 15**2
    line = {"arrowstyle": "-", "color": label.colour, "linewidth": 0.5} if is_far else None
    return axes.annotate(
        label.text,
        (label.x, label.y),
        textcoords="offset points",
        xytext=(dx, dy),
        ha=horizontal,
        va=vertical,
        fontsize=7,
        color=label.colour,
        arrowprops=line,
    )


def _offsets() -> Iterator[tuple[float, float]]:
    """Places around a point in points (1/72 inch), the nearest first, at the right first."""
    for ring in range(1, _FURTHEST + 1):
        for eighth in (1, 7, 3, 5, 2, 6, 0, 4):
            angle = eighth * pi / 4
            yield 7.0 * ring * cos(angle), 7.0 * ring * sin(angle)


def _drawn(axes: Axes) -> Iterator[Bbox]:
    """Squares of a marker's size at all points, with their intervals, and small ones along all lines."""
    for container in axes.containers:
        line, _, (bars, *_) = container.lines  # ty: ignore[missing-attribute]
        pixels = axes.transData.transform(line.get_xydata())
        for x, y in pixels:
            yield _square(x, y, _MARKER)
        for segment in bars.get_segments():
            (x, low), (_, high) = axes.transData.transform(segment)
            yield Bbox.from_extents(x - _LINE, low, x + _LINE, high)
        if line.get_linestyle() != "None":
            for start, end in pairwise(pixels):
                count = int(max(abs(end - start)) / _LINE)
                for index in range(count):
                    x, y = start + (end - start) * index / count
                    yield _square(x, y, _LINE)


def _square(x: float, y: float, half: float) -> Bbox:
    return Bbox.from_extents(x - half, y - half, x + half, y + half)
