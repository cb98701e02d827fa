"""A comparison of evaluations as tables on the terminal and as Markdown.

A summary is what ``t3d.evaluation.compare.compare`` returns; for Markdown with ``versions``.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from t3d.report.markdown import markdown_table

Rows = list[list[str]]
TITLE = "# Comparison, prompt by prompt"
"""First line of the Markdown."""


def comparison_tables(summary: Mapping[str, Any]) -> Iterator[Text | Table]:
    """Per two evaluations their names, the differences, the verdicts, and the cost; 80 columns wide."""
    for a, b, cells in _by_pair(summary):
        yield Text(f"{a} = {summary['evaluations'][a]}\n{b} = {summary['evaluations'][b]}")
        yield _table(difference_rows(summary, a, b, cells))
        yield _table(verdict_rows(a, b, cells))
        yield _table(cost_rows(a, b, cells))


def change_lines(summary: Mapping[str, Any]) -> Iterator[str]:
    """The listed answers whose verdict changed, three lines each."""
    for cell in summary["cells"]:
        a, b = cell["a"], cell["b"]
        if cell["changes"]:
            yield f"Changed from {a} to {b}, {_name(cell['task'])} {_settings(cell)}:"
        for change in cell["changes"]:
            yield f"{change['id']}: only {cell[change['right']]} is right"
            yield f"  {a}: {change['response_a']}"
            yield f"  {b}: {change['response_b']}"


def comparison_markdown(summary: Mapping[str, Any]) -> str:
    """The same as Markdown."""
    parts = [TITLE]
    for a, b, cells in _by_pair(summary):
        parts.append(f"{a}: `{summary['evaluations'][a]}`, {b}: `{summary['evaluations'][b]}`")
        tables = difference_rows(summary, a, b, cells), verdict_rows(a, b, cells), cost_rows(a, b, cells)
        for header, *body in tables:
            parts.append(markdown_table(header, body))
    parts.append(
        "Differences in points with 95 % intervals: Tango's score interval for paired proportions. Ratios of "
        "cost are the second's mean by the first's."
    )
    parts.append("\n".join(f"- {note}" for note in summary["notes"]))
    changes = list(change_lines(summary))
    if changes:
        parts.append("\n".join(["```text", *(line.replace("```", "'''") for line in changes), "```"]))
    made_with = ", ".join(f"{name} {number}" for name, number in summary["versions"].items())
    return "\n\n".join(filter(None, [*parts, f"Made with {made_with}."])) + "\n"


def difference_rows(summary: Mapping[str, Any], a: str, b: str, cells: Sequence[Mapping[str, Any]]) -> Rows:
    """Header and rows: accuracies, difference, p-value; Holm's where there are several tests."""
    p_value = "p (Holm)" if len(summary["cells"]) > 1 else "p"
    rows = [["task", "setting", "n", f"{a} %", f"{b} %", f"{b} - {a} [95 %]", p_value]]
    for cell in cells:
        place = [_name(cell["task"]), _settings(cell), str(cell["n"])]
        rows.append([*place, *_accuracies(cell), _p_value(cell["p_holm"])])
    for mean in summary["means"]:
        if (mean["a"], mean["b"]) == (a, b):
            rows.append([f"mean of {len(mean['tasks'])}", _settings(mean), "", *_accuracies(mean), ""])
    return rows


def verdict_rows(a: str, b: str, cells: Sequence[Mapping[str, Any]]) -> Rows:
    """Header and rows: how often which side was right."""
    rows = [["task", "setting", "both right", f"only {a}", f"only {b}", "neither"]]
    for cell in cells:
        counts = [str(cell[name]) for name in ("both_right", "only_a", "only_b", "both_wrong")]
        rows.append([_name(cell["task"]), _settings(cell), *counts])
    return rows


def cost_rows(a: str, b: str, cells: Sequence[Mapping[str, Any]]) -> Rows:
    """Header and rows: TPF and tokens/s of both sides, and steps and length of the second by the first."""
    rows = [["task", "setting", f"TPF {a}", f"TPF {b}", f"tok/s {a}", f"tok/s {b}", "steps", "length"]]
    for cell in cells:
        speeds = [
            "-" if cell[side][name] is None else f"{cell[side][name]:.{digits}f}"
            for name, digits in (("tokens_per_forward", 2), ("tokens_per_second", 0))
            for side in ("speed_a", "speed_b")
        ]
        ratios = cell["cost_ratio"] or {}
        costs = ["-" if ratios.get(n) is None else f"x{ratios[n]:.2f}" for n in ("denoising_steps", "length")]
        rows.append([_name(cell["task"]), _settings(cell), *speeds, *costs])
    return rows


def _by_pair(summary: Mapping[str, Any]) -> Iterator[tuple[str, str, list[Mapping[str, Any]]]]:
    for a, b in dict.fromkeys((cell["a"], cell["b"]) for cell in summary["cells"]):
        yield a, b, [cell for cell in summary["cells"] if (cell["a"], cell["b"]) == (a, b)]


def _name(name: str | None) -> str:
    return "-" if name is None else name


def _settings(cell: Mapping[str, Any]) -> str:
    """``B4-T2``, or ``B4-T1/B4-T2`` where the sides differ."""
    names = dict.fromkeys(_name(cell[side]) for side in ("setting_a", "setting_b"))
    return "/".join(names)


def _accuracies(row: Mapping[str, Any]) -> list[str]:
    """Of both sides, and their difference in points: ``+1.2 [-0.3, +2.7]``."""
    low, high = row["ci95"]
    difference = f"{row['difference']:+.1f} [{low:+.1f}, {high:+.1f}]"
    return [f"{row['accuracy_a']:.1f}", f"{row['accuracy_b']:.1f}", difference]


def _p_value(value: float) -> str:
    return "<0.0001" if value < 1e-4 else f"{value:.4f}"


def _table(rows: Rows) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for index, name in enumerate(rows[0]):
        table.add_column(Text(name), justify="left" if index < 2 else "right", no_wrap=index > 1)
    for row in rows[1:]:
        table.add_row(*map(Text, row))
    return table
