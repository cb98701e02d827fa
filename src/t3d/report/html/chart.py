"""A plot of lines with intervals as SVG, drawn by classes: the page's style colours it, light and dark."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from t3d.report.html.content import Chart
from t3d.report.html.escaped import escaped, isolated
from t3d.report.points import Line

_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 18, 12, 50
_CHARACTER, _LETTERS = 6.6, 13
"""Width and height of a label's text, in the units of the drawing."""
NUM_GREYS = 6
_MARKERS = ("M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0", "M-4-4h8v8h-8z", "M0-5l5 9h-10z", "M0-5l5 5l-5 5l-5-5z")
_MARKERS += ("M0 5l5-9h-10z", "M-4-4l8 8M-4 4l8-8", "M-5 0h10M0-5v10")
_MOST_MARKERS = 40
"""A line through more points has no markers."""
_MOST_LABELS = 60
"""With more none is written; pointing at a mark tells its name."""


@dataclass
class _Axis:
    """From values to places, and round values at which to say them."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def place(self, value: float) -> float:
        if self.is_log:
            value, low, high = math.log2(value), math.log2(self.low), math.log2(self.high)
        else:
            low, high = self.low, self.high
        return self.start + (self.end - self.start) * (value - low) / (high - low)

    def ticks(self) -> list[float]:
        if self.is_log:
            powers = range(math.ceil(math.log2(self.low)), math.floor(math.log2(self.high)) + 1)
            return [2.0**power for power in powers]
        rough = (self.high - self.low) / 5
        unit = 10 ** math.floor(math.log10(rough))
        step = unit * next(factor for factor in (1, 2, 2.5, 5, 10) if factor * unit >= rough * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(number * step, 12) for number in range(first, last + 1)]


@dataclass
class _Taken:
    """Boxes (x0, y0, x1, y1) where a label would cover something."""

    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)

    def covered(self, box: tuple[float, float, float, float]) -> int:
        x0, y0, x1, y1 = box
        return sum(
            x0 < other[2] and other[0] < x1 and y0 < other[3] and other[1] < y1 for other in self.boxes
        )


def svg(chart: Chart) -> str:
    """The drawing; its text says what it shows to those who do not see it."""
    width, height = (440, 270) if chart.is_small else (760, 430)
    places = [place for line in chart.lines for place, _ in line.points.values()]
    ends = [end for line in chart.lines for _, bar in line.points.values() for end in (bar.low, bar.high)]
    across = _axis(places, _LEFT, width - _RIGHT, is_log=chart.has_powers)
    up = _axis(ends, height - _BOTTOM, _TOP)
    drawn = [*_grid(chart, across, up), *_series(chart.lines, across, up)]
    names = ", ".join(line.name for line in chart.lines)
    said = escaped(f"{chart.title}: {chart.ylabel} over {chart.xlabel} of {names}")
    head = f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{said}">'
    return head + "".join(drawn) + "</svg>"


def legend(lines: Sequence[Line]) -> str:
    """The names of lines beside a piece of each, as a list."""
    items = []
    for number, line in enumerate(lines):
        piece = f'<path class="{_style(lines, number)}" d="M2 8h32"/>' if line.is_joined else ""
        mark = f'<path class="{_mark(lines, number)}" transform="translate(18 8)" d="{_marker(number)}"/>'
        drawing = f'<svg viewBox="0 0 36 16" aria-hidden="true">{piece}{mark}</svg>'
        items.append(f"<li>{drawing} {isolated(line.name)}</li>")
    return f'<ul class="legend">{"".join(items)}</ul>'


def _axis(values: Sequence[float], start: float, end: float, *, is_log: bool = False) -> _Axis:
    low, high = min(values), max(values)
    if is_log:
        return _Axis(low / 1.15, max(high, low * 1.5) * 1.15, start, end, is_log=True)
    room = 0.06 * (high - low) or max(0.05 * abs(high), 1e-9)
    return _Axis(low - room, high + room, start, end)


def _grid(chart: Chart, across: _Axis, up: _Axis) -> Iterator[str]:
    for value in up.ticks():
        y = up.place(value)
        yield f'<path class="grid" d="M{across.start} {y:.1f}H{across.end}"/>'
        place = f'x="{across.start - 7}" y="{y + 4:.1f}" text-anchor="end"'
        yield f'<text class="tick" {place}>{_said(value)}</text>'
    for value in across.ticks():
        x = across.place(value)
        yield f'<path class="grid" d="M{x:.1f} {up.end}V{up.start}"/>'
        yield f'<text class="tick" x="{x:.1f}" y="{up.start + 18}" text-anchor="middle">{_said(value)}</text>'
    yield f'<path class="axis" d="M{across.start} {up.end}V{up.start}H{across.end}"/>'
    middle, half = (across.start + across.end) / 2, (up.start + up.end) / 2
    yield f'<text x="{middle}" y="{up.start + 39}" text-anchor="middle">{escaped(chart.xlabel)}</text>'
    turned = f'transform="translate(14 {half}) rotate(-90)"'
    yield f'<text {turned} text-anchor="middle">{escaped(chart.ylabel)}</text>'


def _said(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _series(lines: Sequence[Line], across: _Axis, up: _Axis) -> Iterator[str]:
    taken, labels = _Taken(), []
    for number, line in enumerate(lines):
        points = sorted(line.points.items(), key=lambda item: item[1][0])
        at = [(across.place(place), up.place(bar.value)) for _, (place, bar) in points]
        if line.is_joined and len(at) > 1:
            path = "L".join(f"{x:.1f} {y:.1f}" for x, y in at)
            yield f'<path class="{_style(lines, number)}" d="M{path}"/>'
            taken.boxes += _along(at)
        for (name, (_, bar)), (x, y) in zip(points, at, strict=True):
            if bar.high > bar.low:
                low, high = up.place(bar.low), up.place(bar.high)
                whiskers = f"M{x:.1f} {low:.1f}V{high:.1f}M{x - 4:.1f} {low:.1f}h8M{x - 4:.1f} {high:.1f}h8"
                yield f'<path class="{_style(lines, number)} whisker" d="{whiskers}"/>'
                taken.boxes.append((x - 4, high, x + 4, low))
            if len(at) <= _MOST_MARKERS:
                said = escaped(f"{line.name}, {name}: {bar.value:.4g}" + _ends(bar.low, bar.high))
                mark = f'class="{_mark(lines, number)}" transform="translate({x:.1f} {y:.1f})"'
                yield f'<path {mark} d="{_marker(number)}"><title>{said}</title></path>'
                taken.boxes.append((x - 5, y - 5, x + 5, y + 5))
            if line.is_labelled:
                labels.append((name, x, y, line.is_subject))
    for name, x, y, is_subject in labels if len(labels) <= _MOST_LABELS else ():
        left, base = _free_place(taken, len(name) * _CHARACTER, x, y, across, up)
        kind = "label subject" if is_subject else "label"
        yield f'<text class="{kind}" x="{left:.1f}" y="{base:.1f}">{escaped(name)}</text>'


def _ends(low: float, high: float) -> str:
    return f" [{low:.4g}, {high:.4g}]" if high > low else ""


def _along(at: Sequence[tuple[float, float]]) -> Iterator[tuple[float, float, float, float]]:
    for (x0, y0), (x1, y1) in pairwise(at):
        count = max(1, int(math.hypot(x1 - x0, y1 - y0) / 6))
        for index in range(count):
            x, y = x0 + (x1 - x0) * index / count, y0 + (y1 - y0) * index / count
            yield x - 2, y - 2, x + 2, y + 2


def _free_place(
    taken: _Taken, width: float, x: float, y: float, across: _Axis, up: _Axis
) -> tuple[float, float]:
    """Where a label's text begins: the nearest place that covers least of what is there."""
    least, best = len(taken.boxes) + 1, (x, y, x, y)
    for away in (8, 14, 21, 29, 38):
        for right, down in ((1, 0), (1, -1), (1, 1), (-1, 0), (0, -1), (0, 1), (-1, -1), (-1, 1)):
            left = x + away * right - (width if right < 0 else width / 2 if right == 0 else 0)
            top = y + away * down - _LETTERS / 2
            box = left, top, left + width, top + _LETTERS
            is_inside = across.start < left and left + width < across.end + _RIGHT
            is_inside = is_inside and up.end - _TOP < top and top + _LETTERS < up.start
            covered = taken.covered(box)
            if is_inside and covered < least:
                least, best = covered, box
        if least == 0:
            break
    taken.boxes.append(best)
    return best[0], best[1] + _LETTERS - 3


def _style(lines: Sequence[Line], number: int) -> str:
    return f"line {_colour(lines, number)}"


def _mark(lines: Sequence[Line], number: int) -> str:
    return f"mark {_colour(lines, number)}"


def _colour(lines: Sequence[Line], number: int) -> str:
    """Lines of the subject share the strong colour, and differ by dashes and markers."""
    line = lines[number]
    before = sum(other.is_subject == line.is_subject for other in lines[:number])
    return f"subject dash-{before % 4}" if line.is_subject else f"grey-{before % NUM_GREYS} dash-{before % 4}"


def _marker(number: int) -> str:
    return _MARKERS[number % len(_MARKERS)]
