"""The demo's comparison of teacher and student as a table on the terminal, as Markdown, and as a plot.

A summary is the content of the demo's ``summary.json``. Accuracies are percent; per setting there is
the mean over the tasks, then one row per task.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from rich.table import Table

from t3d.report.console import accuracy_cell
from t3d.report.plots import FORWARDS, Bar, plot_lines

_GROUPS = {
    "B4/B8 at TokPS 4": ("B4-T4", "B8-T4"),
    "B4/B8 at TokPS 2": ("B4-T2", "B8-T2"),
    "B4/B8 at TokPS 1": ("B4-T1", "B8-T1"),
}

_HEADER = """# The demo, {num_runs} seeds

```sh
for seed in {seeds}; do t3d demo --output runs/demo-$seed --seed $seed; done
python benchmarks/demo_table.py {folders} > docs/results/demo.md
```

A seed draws the training prompts, the held-out prompts, the sampling noise and the training noise; the
bundled teacher is the same. Accuracy in percent on {n} held-out prompts per cell and task ({tasks}),
temperature 0.1, 95 % intervals; a setting's first row is the mean over the tasks. `B8-T4`: blocks of 8, four
tokens per denoising step; `B4-dynamic`: all tokens above confidence 0.9. TPF: tokens per forward of a
request; its prompt and its commits ride in these forwards.
{versions}
"""


class Row(NamedTuple):
    """Teacher and student in one setting, on one task or on the mean over all."""

    setting: str
    task: str
    """``mean`` or the name of a task."""
    tokens_per_forward: float
    """The student's."""
    teacher: str
    student: str
    gain: float


def demo_rows(summary: Mapping[str, Any]) -> Iterator[Row]:
    """The rows of the comparison; a demo of one task has the mean only."""
    teacher, student = summary["models"]["teacher"], summary["models"]["student"]
    for setting, before in teacher.items():
        after = student[setting]
        for task in before["accuracy"] if len(before["accuracy"]) > 2 else ("mean",):
            yield Row(
                setting=setting,
                task=task,
                tokens_per_forward=after["tokens_per_forward"]
                if task == "mean"
                else after["tokens_per_forward_by_task"][task],
                teacher=accuracy_cell(before["accuracy"][task], before["ci95"][task]),
                student=accuracy_cell(after["accuracy"][task], after["ci95"][task]),
                gain=after["accuracy"][task] - before["accuracy"][task],
            )


def summary_table(summary: Mapping[str, Any]) -> Table:
    """Teacher and student side by side, one group of rows per setting; 80 columns wide."""
    table = Table(title=f"{summary['method']}, seed {summary['seed']}: accuracy %, 95 % interval")
    for name in ("setting", "TPF", "teacher", "student", "gain"):
        table.add_column(name, justify="left" if name == "setting" else "right", no_wrap=True)
    for row in demo_rows(summary):
        is_mean = row.task == "mean"
        if is_mean:
            table.add_section()
        table.add_row(
            row.setting if is_mean else f"  {row.task}",
            f"{row.tokens_per_forward:.2f}",
            row.teacher,
            row.student,
            f"{row.gain:+.1f}",
            style=None if is_mean else "dim",
        )
    return table


def markdown_report(summaries: Sequence[Mapping[str, Any]], folders: Sequence[str]) -> str:
    """Report of runs with different seeds, one after the other."""
    cells = next(iter(summaries[0]["models"]["teacher"].values()))
    tasks = [name for name in cells["accuracy"] if name != "mean"]
    seeds = [str(summary["seed"]) for summary in summaries]
    lines = [
        _HEADER.format(
            num_runs=len(summaries),
            seeds=" ".join(seeds),
            folders=" ".join(folders),
            n=cells["n"] // len(tasks),
            tasks=", ".join(tasks),
            versions=", ".join(f"{name} {number}" for name, number in summaries[0]["versions"].items()) + ".",
        ),
        "## Student minus teacher\n",
        f"| points | {' | '.join(f'seed {seed}' for seed in seeds)} |",
        f"|---|{'---|' * len(summaries)}",
    ]
    for task in cells["accuracy"] if len(tasks) > 1 else ("mean",):
        lines += _gain_lines(summaries, task)
    for summary in summaries:
        title = f"## Seed {summary['seed']}, {summary['method']}, {summary['seconds']['total']:.0f} seconds"
        lines += [
            "",
            title,
            "",
            "| setting | TPF | teacher | student | difference |",
            "|---|---|---|---|---|",
        ]
        for row in demo_rows(summary):
            name = f"**{row.setting}**" if row.task == "mean" else row.task
            numbers = f"{row.tokens_per_forward:.2f} | {row.teacher} | {row.student} | {row.gain:+.1f}"
            lines.append(f"| {name} | {numbers} |")
        times = ", ".join(f"{name} {value:.0f}" for name, value in summary["seconds"].items())
        lines += ["", f"Seconds: {times}."]
    return "\n".join(lines)


def _gain_lines(summaries: Sequence[Mapping[str, Any]], task: str) -> Iterator[str]:
    def accuracy(summary: Mapping[str, Any], model: str, settings: Sequence[str]) -> float:
        return mean(summary["models"][model][setting]["accuracy"][task] for setting in settings)

    for name, settings in _GROUPS.items():
        gains = [accuracy(s, "student", settings) - accuracy(s, "teacher", settings) for s in summaries]
        yield f"| {task}: {name} | {' | '.join(f'{gain:+.1f}' for gain in gains)} |"
    kept = []
    for summary in summaries:
        before, after = (accuracy(summary, model, ("B4-T1",)) for model in ("teacher", "student"))
        kept.append(f"{100 * after / before:.1f}" if before else "-")
    yield f"| {task}: B4-T1 kept, % of the teacher's | {' | '.join(kept)} |"


def plot_summary(summary: Mapping[str, Any], path: Path) -> None:
    """Mean accuracy against tokens per forward, teacher and student."""
    curves = {
        model: {
            setting: (
                found["tokens_per_forward"],
                Bar(
                    value=found["accuracy"]["mean"],
                    low=found["ci95"]["mean"][0],
                    high=found["ci95"]["mean"][1],
                ),
            )
            for setting, found in settings.items()
        }
        for model, settings in summary["models"].items()
    }
    title = f"Few-step decoding before and after {summary['method']}"
    plot_lines(curves, path, title, xlabel=FORWARDS, annotated=curves)
