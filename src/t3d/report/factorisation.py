"""The table and the picture of ``t3d theory``: what models lose by drawing tokens together."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from t3d.report.plots import plot_lines
from t3d.report.points import Bar, Line

Reports = Mapping[str, Mapping[str, Any]]
"""By model: ``t3d.theory.measured.summary``."""


def factorisation_table(
    reports: Reports, tokens_per_step: Sequence[int], oracle: Mapping[str, Any] | None
) -> Table:
    """One row per model, and one of the true posterior's total correlation where there is one.

    Nats per token with half the 95 % interval over trajectories.
    """
    table = Table(title="Factorisation error, nats per token (95 %)", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("model", overflow="fold", min_width=8)
    for count in tokens_per_step:
        table.add_column(f"{count} a step", justify="right", no_wrap=True)
    for name in ("entropy", "agree %"):
        table.add_column(name, justify="right", no_wrap=True)
    for model, report in reports.items():
        errors = [report["factorisation_error"][str(count)]["all"] for count in tokens_per_step]
        agreement = report["agreement"]
        percent = {key: 100 * agreement[key] for key in ("mean", "half_width")}
        cells = [_text(one, 3) for one in (*errors, report["entropy"])]
        table.add_row(escape(model), *cells, _text(percent, 1))
    if oracle is not None:
        known = [oracle[str(count)]["all"] for count in tokens_per_step]
        table.add_row("oracle", *("-" if one is None else _text(one, 3) for one in known))
    table.caption = (
        "errors: log-probability one by one less drawn together, of the oracle total correlation; "
        "agree: recorded tokens that are its likeliest"
    )
    return table


def plot_factorisation(reports: Reports, tokens_per_step: int, path: str | Path) -> None:
    """Each model's error by masks left where a step begins; the first model is the plot's subject."""
    lines = [
        Line(
            name=model,
            points={
                masks: (float(masks), _bar(one))
                for masks, one in report["factorisation_error"][str(tokens_per_step)]["by_masks_left"].items()
            },
            is_subject=number == 0,
        )
        for number, (model, report) in enumerate(reports.items())
    ]
    title = f"Factorisation error at {tokens_per_step} tokens per step"
    where = "masks left in the block where the step begins"
    plot_lines(lines, path, title, xlabel=where, ylabel="nats per token")


def _bar(one: Mapping[str, float]) -> Bar:
    value, half = one["mean"], one["half_width"]
    return Bar(value=value, low=value - half, high=value + half)


def _text(one: Mapping[str, float], digits: int) -> str:
    return f"{one['mean']:.{digits}f}±{one['half_width']:.{digits}f}"
