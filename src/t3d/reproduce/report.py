"""The report of a reproduction: tables.md, tables.json and plots."""

import dataclasses
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from t3d.report.html.name import NAME
from t3d.report.html.name import check_report as check_page
from t3d.reproduce.paper import INCONSISTENCIES
from t3d.reproduce.plots import plot_paths, write_plots
from t3d.reproduce.runner import Reproduction
from t3d.reproduce.suite_data import draws_training_prompts, shared_share
from t3d.reproduce.suites import Budget, Suite
from t3d.reproduce.summaries import Entry, Records, table_entries
from t3d.reproduce.tables import learning_rate_table, markdown_tables, method_title
from t3d.work.files import check_output_file, check_output_folder, write_text
from t3d.work.own import is_picture, json_with, text_from
from t3d.work.versions import versions

TITLE = "# Tables of the paper on suite"
"""How the Markdown begins."""
OWN_NAMES = ("cells", "students", "records", "evaluations", "checkpoints", "cell.json")
OWN_NAMES += ("tables.md", "tables.json", "table[1-7]-*.png", "accuracy-tpf-*.png", "report.html", "*.yaml")
"""Of what ``t3d reproduce`` and ``t3d reproduce cell`` write, as patterns."""


def check_report(reproduction: Reproduction) -> None:
    """Raise InputError, before the work, for files of somebody else where those of the report belong."""
    output = reproduction.output
    check_output_folder(output, OWN_NAMES)
    tables = output / "tables.json"
    is_report = json_with("suite", "budget", "entries", "versions")
    check_output_file(tables, is_own=is_report)
    check_output_file(output / "tables.md", is_own=text_from(TITLE))
    check_page(output / NAME)
    # A plot of an earlier version says nothing of itself.
    for path in plot_paths([(demand.table, demand.teacher) for demand in reproduction.demands], output):
        check_output_file(
            path, is_own=lambda plot: is_picture(plot) or (tables.is_file() and is_report(tables))
        )


def write_report(reproduction: Reproduction) -> list[Path]:
    """Write all files of the report into the output; returns their paths. All cells have to be there."""
    suite, output, found = reproduction.suite, reproduction.output, reproduction.finished()
    entries = []
    for table in sorted({demand.table for demand, _ in found}):
        entries += table_entries(
            suite, [(demand, records) for demand, records in found if demand.table == table]
        )
    text = markdown_tables(suite, entries, _foreword(reproduction, found), _afterword(reproduction))
    write_text(output / "tables.md", text)
    write_text(output / "tables.json", json.dumps(_as_json(reproduction, entries, found), indent=1) + "\n")
    return [output / "tables.md", output / "tables.json", *write_plots(suite, found, entries, output)]


def _as_json(
    reproduction: Reproduction, entries: Sequence[Entry], found: Sequence[tuple[Any, Records]]
) -> dict[str, Any]:
    """Entries, the learning-rate grid, and what they were made with."""
    grid = [
        {"method": method, "learning_rate": rate, "validation_accuracy": round(score, 4)}
        for method, scores in reproduction.scores().items()
        for rate, score in scores.items()
    ]
    return {
        "suite": reproduction.suite.name,
        "quick": reproduction.config.quick,
        "budget": dataclasses.asdict(reproduction.budget),
        "entries": [dataclasses.asdict(entry) for entry in entries],
        "learning_rates": grid,
        "inconsistencies_of_the_paper": list(INCONSISTENCIES),
        "versions_of_cells": _versions(found),
        "versions": versions(),
    }


def _versions(found: Sequence[tuple[Any, Records]]) -> dict[str, list[str]]:
    """Versions that the cells were made with, each once."""
    seen: dict[str, set[str]] = {}
    for _, records in found:
        for record in records.values():
            for name, version in record["versions"].items():
                seen.setdefault(name, set()).add(version)
    return {name: sorted(values) for name, values in seen.items()}


def _foreword(reproduction: Reproduction, found: Sequence[tuple[Any, Records]]) -> str:
    suite, budget, config = reproduction.suite, reproduction.budget, reproduction.config
    table = f"table{found[0][0].table}" if len({demand.table for demand, _ in found}) == 1 else "all"
    flags = ["--suite", suite.name, "--seeds", str(config.seeds), *suite.flags]
    flags += ["--teachers", *config.teachers] if config.teachers else []
    flags += ["--rows", *config.rows] if config.rows else []
    flags += ["--quick"] if config.quick else []
    command = shlex.join(["t3d", "reproduce", table, *flags])
    made_with = ", ".join(f"{name} {'/'.join(values)}" for name, values in _versions(found).items())
    num_test = "all" if budget.limit is None else str(budget.limit)
    temperature = suite.rollout.temperature
    rollouts = "greedy (the paper: T = 0.1)" if temperature == 0 else f"at T = {temperature:g}"
    lines = [
        f"{TITLE} `{suite.name}`",
        f"```sh\n{command}\n```",
        f"Accuracy in percent on {num_test} test problems per task ({', '.join(suite.tasks)}), T = 0.1. "
        "`B8-T4`: blocks of 8, four tokens per denoising step (TokPS). Teachers, and the models of the paper "
        "they stand for: "
        + ", ".join(f"`{teacher}` for {model}" for teacher, model in suite.teachers.items())
        + ". Where our tasks are not the paper's benchmarks, only averages stand side by side, and only the "
        "order of the methods can agree.",
        "- One student per method learns all tasks together; the paper trains one for math and one for code.",
        f"- Every method has the same budget of optimizer steps: {budget.num_optimizer_steps} of "
        f"{budget.train_batch_size} trajectories from the same {budget.num_prompts} rollouts (block size 4, "
        f"full steps, {rollouts}; not filtered), student blocks of 8. SFT learns as many real solutions, "
        "dParallel sees each trajectory in two states. "
        f"That is {_num_epochs(budget):.3g} epochs with {_noise_text(suite)}; the released configuration "
        "trains 30 epochs with noise drawn once (`--regime paper`). `T3D` is preset `t3d`, between `paper` "
        "and `released`, which no table trains.",
        *(
            [
                "- Added rows (`--rows`) take their presets' rounds and filter: `t3d-plus`, of three, has "
                "three times the prompts and optimizer steps."
            ]
            if config.rows
            else []
        ),
        f"- {seeds_note(suite, budget.limit, config.seeds)}",
        "- Intervals (95 %): Wilson over prompts, combined over tasks and seeds; with several seeds at least "
        "the t interval of the seeds' own averages, with one seed over prompts only. Prompts that settings "
        "or seeds of one average share count once.",
        "- vs. original, vs. best (Tables 1, 2, 5 to 7): the average minus that of the original model, and "
        "minus the highest average of the same rows, in points. Answers are paired by prompt (Tango's "
        "interval, clustered by prompt, combined over tasks); with several seeds at least the t interval of "
        "the seeds' own differences. `-`: that row itself, or cells from before verdicts were kept.",
        f"- Learning rate: {_rates_note(reproduction)}",
        "- Tokens/s and latency are those of the machine that made the cell; latency: wall time by samples.",
        "- AUP: accuracy under parallelism (d3LLM), points of one block size over tokens per forward.",
        f"- Cells made with: {made_with}.",
    ]
    return "\n\n".join(lines[:3]) + "\n\n" + "\n".join(lines[3:])


def _num_epochs(budget: Budget) -> float:
    return budget.num_optimizer_steps * budget.train_batch_size / budget.num_prompts


def _noise_text(suite: Suite) -> str:
    return "noise drawn once" if suite.training.get("noise_refresh") == "once" else "fresh noise"


def seeds_note(suite: Suite, limit: int | None, num_seeds: int) -> str:
    """What the seeds of a suite draw, and what they share; ``limit``: test problems per task."""
    drawn, same = [], []
    (drawn if draws_training_prompts(suite.data) else same).append("training prompts")
    seeds = range(max(2, num_seeds))  # what a second seed would share is a fact of the suite
    shared = [task for task in suite.tasks if shared_share(suite.data, task, limit, seeds) == 1]
    own = [task for task in suite.tasks if task not in shared]
    for place, tasks in ((drawn, own), (same, shared)):
        if tasks:
            place.append(f"test problems of {' and '.join(tasks)}")
    text = f"A seed draws {', '.join([*drawn, 'sampling noise'])} and training noise"
    return f"{text}; all seeds share the {' and the '.join(same)}." if same else f"{text}."


def _rates_note(reproduction: Reproduction) -> str:
    rates = ", ".join(f"{rate:g}" for rate in reproduction.suite.learning_rates)
    main = next(iter(reproduction.suite.teachers))
    text = (
        f"of {rates} the one with the best mean accuracy over the settings of Tables 5 to 7 on validation "
        f"problems (seed 0, full budget, teacher `{main}`), by method, for all teachers; last section."
    )
    unknown = [
        method_title(method)
        for method, scores in reproduction.scores().items()
        if len(scores) < len(reproduction.suite.learning_rates)
    ]
    if unknown:
        middle = reproduction.suite.middle_learning_rate
        text += f" No finished grid, so {middle:g}: {', '.join(unknown)}."
    return text


def _afterword(reproduction: Reproduction) -> str:
    scores = reproduction.scores()
    rates = reproduction.suite.learning_rates
    at_edge = [
        method_title(method)
        for method in scores
        if reproduction.chosen_rate(method) in (min(rates), max(rates))
    ]
    note = "Mean validation accuracy, percent; the best of a complete grid is bold and taken."
    if at_edge:
        note += f" At an end of the grid, beyond which a better one may lie: {', '.join(at_edge)}."
    return f"## Learning rates\n\n{note}\n\n{learning_rate_table(rates, scores)}"
