"""Does the factorisation error of a student say how it answers in few steps? Over the students of a study.

python benchmarks/factorisation_rank.py STUDY.yaml [STUDY.yaml ...] --output FOLDER [FOLDER ...]
    [--prompts 32] [--json docs/results/theory/ranks.json]

``FOLDER`` is where ``t3d reproduce study`` made the study, students included. Every student draws so many
held-out problems of each task in blocks of 8, one token per step at temperature 1. Its error on these at 2,
4 and 8 tokens per step is the mean of log-probability one by one less that together (``t3d theory``), in
nats per token; so is that of the same trajectories of its teacher. Spearman's rank correlation with the
accuracy of the study's cells at as many tokens per step in blocks of 8, over all students and in each study,
with a 95 % interval from 10,000 bootstrap draws of students; the teacher counts once. Students of one study
share teacher, prompts and often rounds, so that the interval is too narrow for students of other kinds.
Writes every student's numbers and prints Markdown. A killed run leaves what it has measured in
``JSON.unfinished``, and the same command continues.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from t3d.decoding.params import DecodeParams
from t3d.decoding.rollout import roll_out
from t3d.models.loading import LoadedModel, load_model
from t3d.report.markdown import markdown_table
from t3d.reproduce.cell_choice import CellChoice
from t3d.reproduce.recipes import ORIGINAL
from t3d.reproduce.study import read_study
from t3d.reproduce.study_run import StudyRun
from t3d.tasks.mini.suite import TASKS
from t3d.theory.measured import score_trajectory, summary
from t3d.trajectory import Trajectory
from t3d.work.files import write_text
from t3d.work.kept import KeptLines, once
from t3d.work.versions import versions

COUNTS = (2, 4, 8)
BLOCK_SIZE = 8
PARAMS = DecodeParams(block_size=BLOCK_SIZE, steps_per_block=BLOCK_SIZE, temperature=1.0, max_new_tokens=56)
DRAWS = 10_000
ALL = "all"
"""Name of the students of all studies together."""


def trajectories_of(loaded: LoadedModel, num_prompts: int) -> list[Trajectory]:
    """What a model draws one by one, over all tasks."""
    return [
        trajectory
        for task in TASKS.values()
        for trajectory in roll_out(loaded, task.problems("test", num_prompts, 0), PARAMS)
    ]


def errors_of(loaded: LoadedModel, trajectories: Sequence[Trajectory]) -> dict[str, Any]:
    """Error by tokens per step, and entropy, in nats per token."""
    scores = [
        score
        for number, one in enumerate(trajectories)
        for score in score_trajectory(
            loaded.model, one, number, tokens_per_step=COUNTS, block_size=BLOCK_SIZE
        )
    ]
    found = summary(scores, COUNTS)
    errors = {str(count): found["factorisation_error"][str(count)]["all"]["mean"] for count in COUNTS}
    return {"error": errors, "entropy": found["entropy"]["mean"]}


def accuracy_of(record: Mapping[str, Any], count: int) -> float | None:
    """Mean over tasks in blocks of 8, percent; None where the cell has no such setting."""
    rows = [row for row in record["results"] if row["setting"] == f"B{BLOCK_SIZE}-T{count}"]
    return 100 * mean(row["num_correct"] / row["n"] for row in rows) if rows else None


def ranks(values: Sequence[float], counts: np.ndarray) -> np.ndarray:
    """Ranks from 0, ties sharing their mean, where each value is there so many times (last axis)."""
    array = np.asarray(values)
    behind = (array[:, None] > array) + (array[:, None] == array) / 2
    return counts @ behind.T - 0.5


def rank_correlation(
    first: Sequence[float], second: Sequence[float], counts: np.ndarray | None = None
) -> np.ndarray:
    """Spearman's of pairs that are there so many times, once each if left out; nan where all of one side are
    the same."""
    counts = np.ones(len(first)) if counts is None else counts
    one, two = (
        found - (counts * found).sum(-1, keepdims=True) / counts.sum(-1, keepdims=True)
        for found in (ranks(first, counts), ranks(second, counts))
    )
    sizes = (counts * one**2).sum(-1) * (counts * two**2).sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (counts * one * two).sum(-1) / np.sqrt(sizes)


def with_interval(first: Sequence[float], second: Sequence[float]) -> tuple[float, float, float]:
    """The rank correlation and its 95 % bootstrap interval."""
    size = len(first)
    drawn = np.random.default_rng(0).integers(0, size, (DRAWS, size))
    counts = np.stack([(drawn == number).sum(-1) for number in range(size)], -1)
    low, high = np.nanquantile(rank_correlation(first, second, counts), [0.025, 0.975])
    return float(rank_correlation(first, second)), float(low), float(high)


def measured(
    run: StudyRun, study: str, teacher: Sequence[Trajectory], num_prompts: int, kept: KeptLines
) -> list[dict[str, Any]]:
    """Of every student of a study that is there; what was kept is taken."""
    found, seen = [], set()
    for choice in run.study.choices():
        record, path = run.record(choice), run.student_path(choice)
        if record is None or choice.split == "ood" or choice.samples_per_prompt > 1 or path in seen:
            continue
        if path is not None and not path.is_dir():
            continue
        seen.add(path)
        name = f"{study}/{record['config_hash']}"
        if name not in kept.rows:
            student = {"study": study} | _measured(choice, record, path, teacher, num_prompts)
            kept.append({"id": name, "student": student})
        found.append(kept.rows[name]["student"])
        print(f"{found[-1]['name']}: {found[-1]['own']['error']}", flush=True)
    return found


def _measured(
    choice: CellChoice,
    record: Mapping[str, Any],
    path: Path | None,
    teacher: Sequence[Trajectory],
    num_prompts: int,
) -> dict[str, Any]:
    loaded = load_model(path or choice.teacher or "mini", device="cpu")
    return {
        "name": record["method"],
        "seed": record["seed"],
        "split": record["split"],
        "cell": record["config_hash"],
        "own": errors_of(loaded, trajectories_of(loaded, num_prompts)),
        "teacher": errors_of(loaded, teacher),
        "accuracy": {str(count): accuracy_of(record, count) for count in COUNTS},
    }


def groups(students: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """The students of each study, and of all together, where the teacher counts once."""
    teacher = [one for one in students if one["name"] == ORIGINAL]
    found: dict[str, list[Mapping[str, Any]]] = {ALL: [one for one in students if one not in teacher[1:]]}
    for one in students:
        found.setdefault(one["study"], []).append(one)
    return found


def correlations(students: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """By whose trajectories, then tokens per step."""
    found: dict[str, dict[str, Any]] = {}
    for whose in ("own", "teacher"):
        for count in map(str, COUNTS):
            pairs = [(one[whose]["error"][count], one["accuracy"][count]) for one in students]
            pairs = [pair for pair in pairs if pair[1] is not None]
            errors, accuracies = zip(*pairs, strict=True)
            value, low, high = with_interval(errors, accuracies)
            found.setdefault(whose, {})[count] = {"rho": value, "ci95": [low, high], "students": len(pairs)}
    return found


def report_of(students: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the JSON file holds."""
    found = {name: correlations(of) for name, of in groups(students).items()}
    return {"students": students, "rank_correlation": found, "versions": versions()}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, correlate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("studies", nargs="+", metavar="STUDY")
    parser.add_argument("--output", nargs="+", required=True, metavar="FOLDER")
    parser.add_argument("--prompts", type=int, default=32, help="problems of a task")
    parser.add_argument("--json", default="docs/results/theory/ranks.json", metavar="FILE")
    options = parser.parse_args(argv)

    def work(folder: Path) -> dict[str, Any]:
        kept = KeptLines(folder / "students.jsonl", fresh="student")
        teacher = trajectories_of(load_model("mini", device="cpu"), options.prompts)
        students = []
        for study, output in zip(options.studies, options.output, strict=True):
            run = StudyRun(read_study(study), Path(output))
            students += measured(run, Path(study).stem, teacher, options.prompts, kept)
        report = report_of(students)
        write_text(options.json, json.dumps(report, indent=1) + "\n")
        return report["rank_correlation"]

    plan = {"prompts": options.prompts}
    found = once(Path(f"{options.json}.unfinished"), plan, "*.jsonl", take=lambda: None, work=work)
    for name, of in found.items():
        print(f"\n{name}\n")
        print(table(of))


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown of one group of students."""
    body = [[whose, *(_text(found[whose][str(count)]) for count in COUNTS)] for whose in ("own", "teacher")]
    return markdown_table(["trajectories", *(f"{count} tokens per step" for count in COUNTS)], body)


def _text(value: Mapping[str, Any]) -> str:
    low, high = value["ci95"]
    return f"{value['rho']:+.2f} [{low:+.2f}, {high:+.2f}], {value['students']} students"


if __name__ == "__main__":
    main()
