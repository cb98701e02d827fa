"""Does the factorisation error of a student say how it answers in few steps? Over the students of the tables
and of studies.

python benchmarks/factorisation_rank.py STUDY.yaml [STUDY.yaml ...] tables --output FOLDER [FOLDER ...]
    [--prompts 32] [--json docs/results/theory/ranks.json]

``FOLDER`` is where ``t3d reproduce study``, or ``t3d reproduce all`` and ``cell``, made the students; cells
of ``tables`` may be those of docs/results/cells. Every student that is there draws so many held-out problems
of each task in blocks of 8 (of the tables in blocks of 4 too), one token per step at temperature 1. Its error
at a setting is the mean of log-probability one by one less that together (``t3d theory``), in nats per token,
on these and on its teacher's. Spearman's rank correlation of both, and of the entropy of its own texts, which
a collapse lowers too, with the accuracy of the setting's cells, and over all pairs of student and setting;
95 % intervals from 10,000 bootstrap draws of students, the same weights once. Students share teacher, prompts
and often rounds, so that the intervals are too narrow for students of other kinds. Writes every student's
numbers and prints Markdown. A killed run leaves what it has measured in ``JSON.unfinished``, and the same
command continues.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from t3d.decoding.params import DecodeParams
from t3d.decoding.rollout import roll_out
from t3d.evaluation.rank_correlation import rank_interval
from t3d.models.loading import LoadedModel, load_model
from t3d.report.markdown import markdown_table
from t3d.reproduce.recipes import ORIGINAL, tables_of
from t3d.reproduce.runner import Reproduction
from t3d.reproduce.study import read_study
from t3d.reproduce.study_run import StudyRun
from t3d.reproduce.suite_choice import ReproduceConfig
from t3d.tasks.mini.suite import TASKS
from t3d.theory.measured import score_trajectory, summary
from t3d.trajectory import Trajectory
from t3d.work.files import write_text
from t3d.work.kept import KeptLines, once
from t3d.work.versions import versions

COUNTS = {8: (2, 4, 8), 4: (2, 4)}
"""Tokens per step by block size."""
SETTINGS = tuple(f"B{size}-T{count}" for size, counts in COUNTS.items() for count in counts)
MAX_NEW_TOKENS = 56
ALL, STUDIES, TABLES, ONE_ROUND = "all", "studies", "tables", "tables, one round"
"""Names of the students together, of those of all studies, and of those of docs/results/tables.md."""
ROWS_OF_TABLES = ("t3d-plus", "t3d-plus-verified")
"""That are added there."""
EVERY = "all settings"
RANKED_BY = ("own", "teachers", "entropy")
"""The error on one's own trajectories and on the teacher's; the entropy of the former."""
Students = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A student, or a teacher, whose cells are finished."""

    group: str
    """The study's name, or ``tables``."""
    path: Path | None
    """Of its weights; None: the teacher."""
    records: tuple[Mapping[str, Any], ...]
    """Of its cells."""

    @property
    def source(self) -> str:
        """What can be loaded."""
        return str(self.path or self.records[0]["teacher"])


def of_study(file: str, output: str) -> Iterator[Trained]:
    """Of each student one cell, not of split ``ood`` and of one answer to a prompt."""
    run = StudyRun(read_study(file), Path(output))
    for choice in run.study.choices():
        record = run.record(choice)
        if record is not None and choice.split != "ood" and choice.samples_per_prompt == 1:
            yield Trained(group=Path(file).stem, path=run.student_path(choice), records=(record,))


def of_tables(output: str) -> Iterator[Trained]:
    """With their cells on test problems; those that only the choice of a learning rate has, with its."""
    config = ReproduceConfig(output=output, seeds=3, rows=ROWS_OF_TABLES)
    run = Reproduction(config, tables_of("all"))
    found: dict[Any, dict[str, list[Mapping[str, Any]]]] = {}
    for cell in run.all_cells():
        record = run.find(cell)
        if record is not None and set(cell.settings) & set(SETTINGS) and cell.samples_per_prompt == 1:
            found.setdefault(cell.student, {}).setdefault(cell.split, []).append(record)
    for student, by_split in found.items():
        path = None if student.method == ORIGINAL else run.workshop.student(student).path
        records = by_split.get("test") or by_split["validation"]
        yield Trained(group=TABLES, path=path, records=tuple(records))


def trajectories_of(loaded: LoadedModel, num_prompts: int, block_size: int) -> list[Trajectory]:
    """What a model draws one by one, over all tasks."""
    full = {"block_size": block_size, "steps_per_block": block_size}
    params = DecodeParams(**full, temperature=1.0, max_new_tokens=MAX_NEW_TOKENS)
    return [
        trajectory
        for task in TASKS.values()
        for trajectory in roll_out(loaded, task.problems("test", num_prompts, 0), params)
    ]


def errors_of(
    loaded: LoadedModel, trajectories: Sequence[Trajectory], block_size: int
) -> tuple[dict[str, float], float]:
    """Error by setting, and entropy, in nats per token."""
    counts = COUNTS[block_size]
    scores = [
        score
        for number, one in enumerate(trajectories)
        for score in score_trajectory(
            loaded.model, one, number, tokens_per_step=counts, block_size=block_size
        )
    ]
    found = summary(scores, counts)
    by_count = found["factorisation_error"]
    errors = {f"B{block_size}-T{count}": by_count[str(count)]["all"]["mean"] for count in counts}
    return errors, found["entropy"]["mean"]


def accuracy_of(records: Sequence[Mapping[str, Any]], setting: str) -> float | None:
    """Mean over tasks, percent; None where no cell has the setting."""
    rows = [row for record in records for row in record["results"] if row["setting"] == setting]
    return 100 * mean(row["num_correct"] / row["n"] for row in rows) if rows else None


class Measures:
    """Measures students, each once, beside their teachers' trajectories."""

    def __init__(self, num_prompts: int, kept: KeptLines) -> None:
        self._num_prompts, self._kept = num_prompts, kept
        self._of_teachers: dict[tuple[str, int], list[Trajectory]] = {}

    def of(self, trained: Iterator[Trained]) -> Iterator[dict[str, Any]]:
        """Of every one that is there; what was kept is taken."""
        seen = set()
        for one in trained:
            if one.source in seen or not (one.path is None or one.path.is_dir()):
                continue
            seen.add(one.source)
            name = f"{one.group}/{one.records[0]['config_hash']}"
            if name not in self._kept.rows:
                self._kept.append({"id": name, "student": self._measured(one)})
            found = self._kept.rows[name]["student"]
            print(f"{found['teacher']}, {found['method']}, seed {found['seed']}: {found['own']}", flush=True)
            yield found

    def _measured(self, one: Trained) -> dict[str, Any]:
        loaded, record = load_model(one.source, device="cpu"), one.records[0]
        found: dict[str, Any] = {
            "group": one.group,
            **{name: record[name] for name in ("teacher", "method", "learning_rate", "seed", "split")},
            "cells": [cell["config_hash"] for cell in one.records],
            "weights": loaded.weights_hash,
            "own": {},
            "teachers": {},
            "entropy": {},
        }
        accuracies = {setting: accuracy_of(one.records, setting) for setting in SETTINGS}
        for size in COUNTS if one.group == TABLES else (8,):
            if all(accuracies[f"B{size}-T{count}"] is None for count in COUNTS[size]):
                continue
            own = trajectories_of(loaded, self._num_prompts, size)
            for whose, drawn in (("own", own), ("teachers", self._of_teacher(record["teacher"], size))):
                errors, entropy = errors_of(loaded, drawn, size)
                found[whose] |= errors
                found["entropy"][f"{whose}, B{size}"] = entropy
        return found | {"accuracy": accuracies}

    def _of_teacher(self, teacher: str, block_size: int) -> list[Trajectory]:
        key = teacher, block_size
        if key not in self._of_teachers:
            loaded = load_model(teacher, device="cpu")
            self._of_teachers[key] = trajectories_of(loaded, self._num_prompts, block_size)
        return self._of_teachers[key]


def groups(students: Students) -> dict[str, list[Mapping[str, Any]]]:
    """All, those of the studies, of each, of the tables, and of these with one round of their teacher's
    rollouts; of the same weights what stands first."""
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for one in students:
        names = [ALL, one["group"]]
        if one["group"] != TABLES:
            names.append(STUDIES)
        elif not ("num_rounds" in one["method"] or one["method"] in (ORIGINAL, "sft")):
            names.append(ONE_ROUND)
        for name in names:
            found.setdefault(name, {}).setdefault(one["weights"], one)
    return {name: list(members.values()) for name, members in found.items()}


def told_by(one: Mapping[str, Any], what: str, setting: str) -> float | None:
    """What is to rank a student: an error, or the entropy of its own texts; None where not measured."""
    if what == "entropy":
        return one["entropy"].get(f"own, {setting.partition('-')[0]}")
    return one[what].get(setting)


def correlations(students: Students) -> dict[str, dict[str, Any]]:
    """By what is to rank them, then by setting."""
    found: dict[str, dict[str, Any]] = {}
    for what in RANKED_BY:
        for name, settings in {**{setting: (setting,) for setting in SETTINGS}, EVERY: SETTINGS}.items():
            pairs = [
                (told_by(one, what, setting), one["accuracy"][setting], one["weights"])
                for one in students
                for setting in settings
            ]
            pairs = [pair for pair in pairs if None not in pair]
            if not pairs:
                continue
            values, accuracies, weights = zip(*pairs, strict=True)
            numbers = {hashed: number for number, hashed in enumerate(dict.fromkeys(weights))}
            rho, low, high = rank_interval(values, accuracies, [numbers[hashed] for hashed in weights])
            interval = {"rho": rho, "ci95": [low, high]}
            found.setdefault(what, {})[name] = interval | {"students": len(numbers), "pairs": len(pairs)}
    return found


def report_of(students: Students) -> dict[str, Any]:
    """What the JSON file holds."""
    found = {name: correlations(of) for name, of in groups(students).items()}
    return {"students": students, "rank_correlation": found, "versions": versions()}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, correlate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("groups", nargs="+", metavar="STUDY.yaml or tables")
    parser.add_argument("--output", nargs="+", required=True, metavar="FOLDER")
    parser.add_argument("--prompts", type=int, default=32, help="problems of a task")
    parser.add_argument("--json", default="docs/results/theory/ranks.json", metavar="FILE")
    options = parser.parse_args(argv)

    def work(folder: Path) -> dict[str, Any]:
        measures = Measures(options.prompts, KeptLines(folder / "students.jsonl", fresh="student"))
        students: list[dict[str, Any]] = []
        for group, output in zip(options.groups, options.output, strict=True):
            students += measures.of(of_tables(output) if group == TABLES else of_study(group, output))
        report = report_of(students)
        write_text(options.json, json.dumps(report, indent=1) + "\n")
        return report["rank_correlation"]

    plan = {"prompts": options.prompts}
    found = once(Path(f"{options.json}.unfinished"), plan, "*.jsonl", take=lambda: None, work=work)
    print(table(found))


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown of all groups."""
    columns = (*SETTINGS, EVERY)
    body = [
        [name if what == RANKED_BY[0] else "", what, *(_text(of[what].get(column)) for column in columns)]
        for name, of in found.items()
        for what in RANKED_BY
    ]
    return markdown_table(["students", "by", *columns], body)


def _text(value: Mapping[str, Any] | None) -> str:
    if value is None:
        return "-"
    low, high = value["ci95"]
    return f"{value['rho']:+.2f} [{low:+.2f}, {high:+.2f}], {value['students']}"


if __name__ == "__main__":
    main()
