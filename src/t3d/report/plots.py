"""Plots of results."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from matplotlib.figure import Figure

from t3d.work.files import atomic_file


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """One decoding setting of one model; percent."""

    setting: str
    tokens_per_forward: float
    accuracy: float
    low: float
    high: float


_STYLES = (
    ("o--", (6, -10)),
    ("s-", (4, 6)),
    ("^-.", (4, 14)),
    ("d:", (4, 22)),
    ("v--", (4, 6)),
    ("P-", (4, 6)),
    ("X-.", (4, 6)),
)
"""Line and where its labels stand, of one curve after the other."""


def plot_accuracy_per_forward(
    curves: Mapping[str, Sequence[CurvePoint]],
    path: str | Path,
    title: str,
    *,
    annotated: Collection[str] | None = None,
) -> None:
    """Accuracy against tokens per forward, one curve per model, with 95 % intervals, as PNG.

    ``annotated`` are the models whose settings are named beside their points; None: all.
    """
    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    axes = figure.add_subplot()
    for (style, label_offset), (name, curve) in zip(cycle(_STYLES), curves.items(), strict=False):
        points = sorted(curve, key=lambda point: point.tokens_per_forward)
        # Rounding may put an interval's end a hair inside its own point.
        errors = [[max(0.0, bar) for bar in (p.accuracy - p.low, p.high - p.accuracy)] for p in points]
        x, y = [p.tokens_per_forward for p in points], [p.accuracy for p in points]
        axes.errorbar(x, y, yerr=list(zip(*errors, strict=True)), fmt=style, capsize=3, label=name)
        for point in points if annotated is None or name in annotated else ():
            where = (point.tokens_per_forward, point.accuracy)
            axes.annotate(point.setting, where, textcoords="offset points", xytext=label_offset, fontsize=7)
    axes.set(
        xlabel="tokens per forward (commits counted)", ylabel="accuracy (%)", ylim=(-2, 104), title=title
    )
    axes.grid(alpha=0.3)
    axes.legend()
    with atomic_file(path) as partial:
        figure.savefig(partial, format="png", dpi=150)
