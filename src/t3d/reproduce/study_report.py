"""A study's tables: accuracy with its interval, paired differences to a base row, and what training took."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from t3d.evaluation.intervals import seeds_interval
from t3d.report.console import accuracy_text
from t3d.report.markdown import markdown_table
from t3d.reproduce.cell_choice import CellChoice
from t3d.reproduce.paired import paired_difference
from t3d.reproduce.study import StudyGroup, StudyRow
from t3d.reproduce.study_run import StudyRun
from t3d.reproduce.suite_data import shared_share
from t3d.work.files import check_output_file, check_output_folder, write_text
from t3d.work.own import json_with, text_from

TITLE = "# Study: "
"""How the Markdown begins."""
OWN_NAMES = ("cells", "students", "records", "evaluations", "checkpoints", "study.md", "study.json")
"""Of what a study writes, as patterns."""
_COSTS = ("rollouts", "kept_rollouts", "kept_tokens", "kept_forwards", "optimizer_steps")
_COST_TITLES = ("rollouts", "kept", "tokens of these", "forwards of these", "optimizer steps")

Records = Mapping[int, Mapping[str, Any]]
"""A row's finished cells by seed."""


def check_study_output(output: Path) -> None:
    """Raise InputError, before the work, for files of somebody else where those of a study belong."""
    check_output_folder(output, OWN_NAMES)
    check_output_file(output / "study.md", is_own=text_from(TITLE))
    check_output_file(output / "study.json", is_own=json_with("title", "groups"))


def write_study(run: StudyRun, command: str) -> list[Path]:
    """Write study.md and study.json into the output, of what is finished; returns their paths."""
    parts = [f"{TITLE}{run.study.title}", f"```sh\n{command}\n```", _NOTE]
    groups = []
    for group in run.study.groups:
        found = {row.name: _finished(run, row) for row in group.rows}
        parts += _tables(run, group, found)
        groups.append(
            {"title": group.title, "rows": [_entry(run, row, found[row.name]) for row in group.rows]}
        )
    path = run.output
    write_text(path / "study.md", "\n\n".join(parts) + "\n")
    write_text(path / "study.json", json.dumps({"title": run.study.title, "groups": groups}, indent=1) + "\n")
    return [path / "study.md", path / "study.json"]


_NOTE = (
    "Accuracy in percent, mean over the tasks with its 95 % interval, then each task's in brackets. "
    "`B8-T4`: blocks of 8, four tokens per denoising step. Intervals are Wilson's over prompts, combined "
    "over tasks and seeds, with several seeds at least the t interval of the seeds' own averages; with "
    "one seed they say nothing of training noise. Differences are paired by prompt."
)


def _finished(run: StudyRun, row: StudyRow) -> Records:
    records = {seed: run.record(choice) for seed, choice in row.choices.items()}
    return {seed: record for seed, record in records.items() if record is not None}


def _tables(run: StudyRun, group: StudyGroup, found: Mapping[str, Records]) -> list[str]:
    settings = list(dict.fromkeys(name for row in group.rows for name in row.settings))
    body = []
    for row in group.rows:
        records = found[row.name]
        cells = [_accuracy_text(run, row, records, setting) for setting in settings]
        body.append([row.name, _number_of_seeds(row, records), *cells, _distinct_text(records)])
    has_distinct = any(line[-1] != "-" for line in body)
    header = ["row", "seeds", *settings, "distinct answers"]
    cut = None if has_distinct else -1
    parts = [f"## {group.title}", *([group.note] if group.note else [])]
    parts.append(markdown_table(header[:cut], [line[:cut] for line in body]))
    if group.base is not None:
        base = next(row for row in group.rows if row.name == group.base)
        others = [row for row in group.rows if row is not base]
        body = [[row.name, *(_gain_text(run, base, row, found, name) for name in settings)] for row in others]
        parts += [
            f"Points above {base.name}, on the same prompts and the seeds that both have:",
            markdown_table(["row", *settings], body),
        ]
    costs = [[row.name, *_cost_texts(found[row.name])] for row in group.rows]
    parts += ["What a student took (mean over seeds):", markdown_table(["row", *_COST_TITLES], costs)]
    return parts


def _number_of_seeds(row: StudyRow, records: Records) -> str:
    wanted, there = len(row.choices), len(records)
    return str(there) if there == wanted else f"{there} of {wanted}"


def _rows(records: Records) -> dict[tuple[int, str, str], Mapping[str, Any]]:
    """Rows of results by seed, setting and task."""
    return {
        (seed, entry["setting"], entry["task"]): entry
        for seed, record in records.items()
        for entry in record["results"]
    }


def accuracy(
    run: StudyRun, row: StudyRow, records: Records, setting: str
) -> tuple[float, float, float, dict[str, float]] | None:
    """(mean, low, high, by task) in percent; None where no finished cell has this setting."""
    if not records or setting not in row.settings:
        return None
    choice = row.choices[next(iter(records))]
    workshop, rows = run.workshop(choice), _rows(records)
    tasks = list(dict.fromkeys(task for _, name, task in rows if name == setting))
    limits = workshop.budget.limit if choice.split != "validation" else workshop.budget.validation_limit
    seeds = tuple(records)
    per_seed = [
        (
            [rows[seed, setting, task]["num_correct"] / rows[seed, setting, task]["n"] for task in tasks],
            [rows[seed, setting, task]["num_prompts"] for task in tasks],
        )
        for seed in seeds
    ]
    shared = [shared_share(workshop.suite.data, task, limits, seeds, choice.split) for task in tasks]
    centre, low, high = (100 * value for value in seeds_interval(per_seed, shared))
    by_task = {task: 100 * mean(each[0][index] for each in per_seed) for index, task in enumerate(tasks)}
    return centre, low, high, by_task


def _accuracy_text(run: StudyRun, row: StudyRow, records: Records, setting: str) -> str:
    found = accuracy(run, row, records, setting)
    if found is None:
        return "-"
    centre, low, high, by_task = found
    tasks = " / ".join(f"{value:.0f}" for value in by_task.values())
    return f"{accuracy_text(centre, (low, high))} ({tasks})"


def gain(
    run: StudyRun, base: StudyRow, row: StudyRow, found: Mapping[str, Records], setting: str
) -> tuple[float, float, float] | None:
    """Points above the base on the same prompts, with the interval; None where they share no seed."""
    ours, theirs = found[row.name], found[base.name]
    seeds = [seed for seed in ours if seed in theirs]
    if not seeds or setting not in row.settings or setting not in base.settings:
        return None
    choice, other = row.choices[seeds[0]], base.choices[seeds[0]]
    workshop = run.workshop(choice)
    budget = workshop.budget
    if not _same_problems(run, choice, other):
        return None
    limit = budget.limit if choice.split != "validation" else budget.validation_limit
    rows = _rows(ours)
    tasks = list(dict.fromkeys(task for _, name, task in rows if name == setting))
    how: dict[str, Any] = {"seeds": seeds, "settings": (setting,), "tasks": tasks, "split": choice.split}
    difference = paired_difference(workshop.suite.data, limit, _rows(theirs), rows, **how)
    return None if difference is None else (100 * difference[0], 100 * difference[1], 100 * difference[2])


def _same_problems(run: StudyRun, choice: CellChoice, other: CellChoice) -> bool:
    """Whether two cells answer the same prompts as often."""

    def of(one: CellChoice) -> tuple[object, ...]:
        suite, budget = run.workshop(one).suite, run.workshop(one).budget
        tasks = suite.validation_tasks if one.split == "validation" else suite.tasks
        return suite.name, one.split, tasks, budget.limit, budget.validation_limit, one.samples_per_prompt

    return of(choice) == of(other)


def _gain_text(
    run: StudyRun, base: StudyRow, row: StudyRow, found: Mapping[str, Records], setting: str
) -> str:
    value = gain(run, base, row, found, setting)
    return "-" if value is None else f"{value[0]:+z.1f} [{value[1]:z.1f}, {value[2]:z.1f}]"


def _distinct_text(records: Records) -> str:
    """Distinct answers to a prompt, where several were drawn."""
    entries = [entry for record in records.values() for entry in record["results"]]
    drawn = [entry["distinct_answers_per_prompt"] for entry in entries if entry["n"] > entry["num_prompts"]]
    return f"{mean(drawn):.2f}" if drawn else "-"


def _cost(records: Records) -> dict[str, float]:
    costs = [record.get("training_cost", {}) for record in records.values()]
    return {
        name: mean(cost[name] for cost in costs) for name in _COSTS if costs and all(name in c for c in costs)
    }


def _cost_texts(records: Records) -> Sequence[str]:
    cost = _cost(records)
    return [f"{cost[name]:,.0f}" if name in cost else "-" for name in _COSTS]


def _entry(run: StudyRun, row: StudyRow, records: Records) -> dict[str, Any]:
    """A row for study.json."""
    found = {name: accuracy(run, row, records, name) for name in row.settings}
    return {
        "name": row.name,
        "seeds": list(records),
        "accuracy": {
            name: {"mean": round(value[0], 3), "ci95": [round(value[1], 3), round(value[2], 3)]}
            | {"tasks": {task: round(each, 3) for task, each in value[3].items()}}
            for name, value in found.items()
            if value is not None
        },
        "training_cost": _cost(records),
        "cells": [record["config_hash"] for record in records.values()],
        "commands": [record["command"] for record in records.values()],
    }
