"""Does the factorisation error of a student say how it answers in few steps? Over the students of a study.

python benchmarks/factorisation_rank.py STUDY.yaml [STUDY.yaml ...] --output FOLDER [FOLDER ...]
    [--prompts 32] [--json FILE]

``FOLDER`` is where ``t3d reproduce study`` made the study, students included. Every student draws so many
held-out problems of each task in blocks of 8, one token per step at temperature 1. Its error on these at 2,
4 and 8 tokens per step is the mean of log-probability one by one less that together (``t3d theory``), in
nats per token; so is that of the same trajectories of its teacher. Spearman's rank correlation with the
accuracy of the study's cells at as many tokens per step in blocks of 8, over all students, with a 95 %
interval from 10,000 bootstrap draws of students. Students of one study share teacher, prompts and often
rounds, so that the interval is too narrow for students of other kinds. Prints Markdown.
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
from t3d.reproduce.study import read_study
from t3d.reproduce.study_run import StudyRun
from t3d.tasks.mini.suite import TASKS
from t3d.theory.measured import score_trajectory, summary
from t3d.trajectory import Trajectory
from t3d.work.files import write_text
from t3d.work.versions import versions

COUNTS = (2, 4, 8)
BLOCK_SIZE = 8
PARAMS = DecodeParams(block_size=BLOCK_SIZE, steps_per_block=BLOCK_SIZE, temperature=1.0, max_new_tokens=56)
DRAWS = 10_000


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


def ranks(values: Sequence[float]) -> np.ndarray:
    """Ranks from 0, ties sharing their mean."""
    array = np.asarray(values)
    below = (array[:, None] > array).sum(1)
    same = (array[:, None] == array).sum(1)
    return below + (same - 1) / 2


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's; nan where all of one side are the same."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.corrcoef(ranks(first), ranks(second))[0, 1])


def with_interval(first: Sequence[float], second: Sequence[float]) -> tuple[float, float, float]:
    """The rank correlation and its 95 % bootstrap interval."""
    draw, size = np.random.default_rng(0), len(first)
    one, two = np.asarray(first), np.asarray(second)
    drawn = [rank_correlation(one[index], two[index]) for index in draw.integers(0, size, (DRAWS, size))]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return rank_correlation(first, second), float(low), float(high)


def measured(run: StudyRun, teacher: Sequence[Trajectory], num_prompts: int) -> list[dict[str, Any]]:
    """Of every student of a study that is there."""
    found, seen = [], set()
    for choice in run.study.choices():
        record, path = run.record(choice), run.student_path(choice)
        if record is None or choice.split == "ood" or choice.samples_per_prompt > 1 or path in seen:
            continue
        if path is not None and not path.is_dir():
            continue
        seen.add(path)
        found.append(_measured(choice, record, path, teacher, num_prompts))
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


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, correlate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("studies", nargs="+", metavar="STUDY")
    parser.add_argument("--output", nargs="+", required=True, metavar="FOLDER")
    parser.add_argument("--prompts", type=int, default=32, help="problems of a task")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args(argv)
    teacher = trajectories_of(load_model("mini", device="cpu"), options.prompts)
    students = []
    for study, folder in zip(options.studies, options.output, strict=True):
        students += measured(StudyRun(read_study(study), Path(folder)), teacher, options.prompts)
    found = correlations(students)
    if options.json is not None:
        report = {"students": students, "rank_correlation": found, "versions": versions()}
        write_text(options.json, json.dumps(report, indent=1) + "\n")
    body = [[whose, *(_text(found[whose][str(count)]) for count in COUNTS)] for whose in ("own", "teacher")]
    print(markdown_table(["trajectories", *(f"{count} tokens per step" for count in COUNTS)], body))


def _text(value: Mapping[str, Any]) -> str:
    low, high = value["ci95"]
    return f"{value['rho']:+.2f} [{low:+.2f}, {high:+.2f}], {value['students']} students"


if __name__ == "__main__":
    main()
