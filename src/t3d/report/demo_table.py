"""The demo's comparison of teacher and student as a table on the terminal, as Markdown, and as a plot.

A summary is the content of the demo's ``summary.json``. Accuracies are percent; per setting there is
the mean over the tasks, then one row per task.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from rich.table import Table

from t3d.report.console import accuracy_text
from t3d.report.markdown import markdown_table
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
{versions}"""


def demo_rows(summary: Mapping[str, Any]) -> Iterator[tuple[str, str, list[str]]]:
    """Setting, task (``mean`` first), and the texts beside them: the student's tokens per forward, teacher,
    student, and the gain in points."""
    teacher, student = summary["models"]["teacher"], summary["models"]["student"]
    for setting, before in teacher.items():
        after = student[setting]
        forwards = {"mean": after["tokens_per_forward"], **after["tokens_per_forward_by_task"]}
        for task in before["accuracy"]:
            both = [accuracy_text(found["accuracy"][task], found["ci95"][task]) for found in (before, after)]
            gain = after["accuracy"][task] - before["accuracy"][task]
            yield setting, task, [f"{forwards[task]:.2f}", *both, f"{gain:+.1f}"]


def summary_table(summary: Mapping[str, Any]) -> Table:
    """Teacher and student side by side, one group of rows per setting; 80 columns wide."""
    table = Table(title=f"{summary['method']}, seed {summary['seed']}: accuracy %, 95 % interval")
    for name in ("setting", "TPF", "teacher", "student", "gain"):
        table.add_column(name, justify="left" if name == "setting" else "right", no_wrap=True)
    for setting, task, texts in demo_rows(summary):
        if task == "mean":
            table.add_section()
            table.add_row(setting, *texts)
        else:
            table.add_row(f"  {task}", *texts, style="dim")
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
        parts.append(markdown_table(["setting", "TPF", "teacher", "student", "difference"], rows))
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
