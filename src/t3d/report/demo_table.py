"""The demo's comparison of teacher and student as a table on the terminal, as Markdown, and as a plot.

A summary is the content of the demo's ``summary.json``. Accuracies are percent; per setting there is
the mean over the tasks, then one row per task. What the teacher does left to right has a table of its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from rich import box
from rich.table import Table

from t3d.report.console import accuracy_text
from t3d.report.finding import finding
from t3d.report.markdown import markdown_table
from t3d.report.plots import plot_lines
from t3d.report.points import FORWARDS, setting_lines

COLUMNS = ("TPF", "tok/s", "teacher", "student", "gain")
"""Beside a setting's name; TPF and tokens/s are of teacher and student."""
LEFT_TO_RIGHT_TITLE = "The same text in fewer forwards"
LEFT_TO_RIGHT_COLUMNS = ("model", "setting", "accuracy %", "TPF", "tok/s")
_CAPTION = """Bx-Ty: blocks of x, y tokens per step. Of teacher, student: TPF, tokens per
forward; tok/s, visible tokens per second. gain: student minus teacher."""
_GROUPS = {
    "B4/B8 at TokPS 4": ("B4-T4", "B8-T4"),
    "B4/B8 at TokPS 2": ("B4-T2", "B8-T2"),
    "B4/B8 at TokPS 1": ("B4-T1", "B8-T1"),
}

_HEADER = """# The demo, {num_runs} seeds

```sh
for seed in {seeds}; do t3d demo --output runs/demo-$seed --seed $seed --limit {n}; done
python benchmarks/demo_table.py {folders} > docs/results/demo.md
```

A seed draws the training prompts, the held-out prompts, the sampling noise and the training noise; the
bundled teacher is the same. Accuracy in percent on {n} held-out prompts per cell and task ({tasks}),
temperature 0.1, 95 % intervals; a setting's first row is the mean over the tasks. `B8-T4`: blocks of 8, four
tokens per denoising step; `B4-dynamic`: all tokens above confidence 0.9. TPF: tokens per forward of a
request, of teacher and student; its prompt and its commits ride in these forwards. tok/s: visible tokens per
second, of both. `B8-left-to-right`, the teacher one token a forward, and `B8-self-speculative`, the same text
with drafts that are checked, have tables of their own.{precision}
{versions}"""

_PRECISION = {
    "bfloat16": "Decoded in bfloat16 (left to right in float32), trained with products in bfloat16.",
    "float32": "Decoded and trained in float32.",
    "float64": "Decoded in float64, trained in float32.",
}


def _dtypes(summaries: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Those that the summaries tell; older ones do not."""
    return (summary["dtype"] for summary in summaries if summary.get("dtype") in _PRECISION)


def demo_rows(summary: Mapping[str, Any]) -> Iterator[tuple[str, str, list[str]]]:
    """Setting, task (``mean`` first), and the texts beside them, by ``COLUMNS``."""
    teacher, student = summary["models"]["teacher"], summary["models"]["student"]
    for setting, before in teacher.items():
        both = before, student[setting]
        for task in before["accuracy"]:
            texts = [accuracy_text(found["accuracy"][task], found["ci95"][task]) for found in both]
            gain = both[1]["accuracy"][task] - before["accuracy"][task]
            speeds = [
                _speeds(both, "tokens_per_forward", task, 2),
                _speeds(both, "tokens_per_second", task, 0),
            ]
            yield setting, task, [*speeds, *texts, f"{gain:+.1f}"]


def _speeds(both: Sequence[Mapping[str, Any]], name: str, task: str, digits: int) -> str:
    """Of teacher and student: ``2.15, 3.11``."""
    values = [found[name] if task == "mean" else found[f"{name}_by_task"][task] for found in both]
    return ", ".join(f"{value:.{digits}f}" for value in values)


def summary_table(summary: Mapping[str, Any]) -> Table:
    """Teacher and student side by side, one group of rows per setting; 80 columns wide."""
    title = f"{summary['method']}, seed {summary['seed']}: accuracy %, 95 % interval"
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    for name in ("setting", *COLUMNS):
        table.add_column(name, justify="left" if name == "setting" else "right", no_wrap=True)
    for setting, task, texts in demo_rows(summary):
        if task == "mean":
            table.add_section()
            table.add_row(setting, *texts)
        else:
            table.add_row(f"  {task}", *texts, style="dim")
    table.caption, table.caption_justify = _CAPTION, "left"
    return table


def left_to_right_rows(summary: Mapping[str, Any]) -> Iterator[list[str]]:
    """Of each model and setting left to right, by ``LEFT_TO_RIGHT_COLUMNS``: means over the tasks."""
    for model, settings in summary["self_speculative"].items():
        for setting, found in settings.items():
            accuracy = accuracy_text(found["accuracy"]["mean"], found["ci95"]["mean"])
            yield [
                model,
                setting,
                accuracy,
                f"{found['tokens_per_forward']:.2f}",
                f"{found['tokens_per_second']:.0f}",
            ]


def left_to_right_table(summary: Mapping[str, Any]) -> Table:
    """The teacher token by token and with drafts, its own and a drafter's; within 80 columns."""
    table = Table(title=LEFT_TO_RIGHT_TITLE, box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    for name in LEFT_TO_RIGHT_COLUMNS:
        table.add_column(name, justify="left" if name in ("model", "setting") else "right", no_wrap=True)
    for texts in left_to_right_rows(summary):
        table.add_row(*texts)
    table.caption = "tok/s: many requests at once; drafts gain most with few"
    return table


def markdown_report(summaries: Sequence[Mapping[str, Any]], folders: Sequence[str]) -> str:
    """Report of runs with different seeds, one after the other."""
    measured = next(iter(summaries[0]["models"]["teacher"].values()))
    tasks = [name for name in measured["accuracy"] if name != "mean"]
    seeds = [str(summary["seed"]) for summary in summaries]
    header = _HEADER.format(
        num_runs=len(summaries),
        seeds=" ".join(seeds),
        folders=" ".join(folders),
        n=measured["n"] // len(tasks),
        tasks=", ".join(tasks),
        precision="".join(f" {_PRECISION[dtype]}" for dtype in sorted({*_dtypes(summaries)})),
        versions=", ".join(f"{name} {number}" for name, number in summaries[0]["versions"].items()) + ".",
    )
    gains = [row for task in measured["accuracy"] for row in _gain_rows(summaries, task)]
    parts = [header, "## Student minus teacher"]
    parts.append(markdown_table(["points", *(f"seed {seed}" for seed in seeds)], gains))
    for summary in summaries:
        seconds = summary["seconds"]
        parts.append(f"## Seed {summary['seed']}, {summary['method']}, {seconds['total']:.0f} seconds")
        rows = [
            [f"**{setting}**" if task == "mean" else task, *texts]
            for setting, task, texts in demo_rows(summary)
        ]
        parts.append(markdown_table(["setting", *COLUMNS], rows))
        parts.append(f"{LEFT_TO_RIGHT_TITLE}, means over the tasks:")
        parts.append(markdown_table(LEFT_TO_RIGHT_COLUMNS, list(left_to_right_rows(summary))))
        parts.append(f"Seconds: {', '.join(f'{name} {value:.0f}' for name, value in seconds.items())}.")
    return "\n\n".join(parts)


def _gain_rows(summaries: Sequence[Mapping[str, Any]], task: str) -> Iterator[list[str]]:
    def accuracy(summary: Mapping[str, Any], model: str, settings: Sequence[str]) -> float:
        return mean(summary["models"][model][setting]["accuracy"][task] for setting in settings)

    for name, settings in _GROUPS.items():
        gains = [accuracy(s, "student", settings) - accuracy(s, "teacher", settings) for s in summaries]
        yield [f"{task}: {name}", *(f"{gain:+.1f}" for gain in gains)]
    both = [[accuracy(s, model, ("B4-T1",)) for model in ("teacher", "student")] for s in summaries]
    kept = [f"{100 * after / before:.1f}" if before else "-" for before, after in both]
    yield [f"{task}: B4-T1 kept, % of the teacher's", *kept]


def plot_summary(summary: Mapping[str, Any], path: Path) -> None:
    """Mean accuracy against tokens per forward: a line per model and block size, ``dynamic`` on its own."""
    plot_lines(setting_lines(summary["models"]), path, finding(summary), xlabel=FORWARDS, has_powers=True)
