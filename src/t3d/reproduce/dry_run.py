"""What a reproduction would do, without doing any of it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from t3d.reproduce.paper import LARGE, SMALL
from t3d.reproduce.recipes import ORIGINAL, StudentSpec, cell_command, learns_solutions
from t3d.reproduce.resolve import resolve_cell
from t3d.reproduce.runner import Reproduction
from t3d.reproduce.suite_data import MISSING
from t3d.reproduce.suites import MEAN_TEST_PROBLEMS

PARAMETERS = {LARGE: 4.4e9, SMALL: 2.0e9}
TRAINING_BYTES = 20
"""Per parameter: weights, gradients, Adam's two moments and the reference in float32."""
GPU_FLOPS = 4e14
"""Per second: 40 % of an H100's bf16 peak. Arithmetic, not a measurement."""
_DUMPER = yaml.CSafeDumper if yaml.__with_libyaml__ else yaml.SafeDumper
MEAN_TOKENS = 600
"""Of a prompt and its response."""
TOKENS_PER_SECOND = 1500
"""Of decoding on one GPU."""


def all_students(reproduction: Reproduction) -> list[StudentSpec]:
    """Every student that is trained."""
    students = dict.fromkeys(cell.student for cell in reproduction.all_cells())
    return [student for student in students if student.method != ORIGINAL]


def configurations(reproduction: Reproduction) -> Iterator[str]:
    """One YAML document per student: its hash, its paths, its whole configuration, its cells' commands."""
    suite, budget, workshop = reproduction.suite, reproduction.budget, reproduction.workshop
    cells: dict[StudentSpec, dict[str, str]] = {}
    for cell in reproduction.all_cells():
        command = cell_command(suite, cell, quick=reproduction.config.quick)
        cells.setdefault(cell.student, {})[resolve_cell(suite, budget, cell).hash] = command
    for student in all_students(reproduction):
        product = workshop.student(student)
        is_solved = learns_solutions(student.method)
        document: dict[str, Any] = {
            "student": student.name,
            "teacher": student.teacher,
            "seed": student.seed,
            "learning_rate": student.learning_rate,
            "hash": product.path.name,
            "weights": str(product.path),
            "records": "real solutions" if is_solved else str(workshop.records(student).path),
            "config": dict(product.plan),
            "cells": cells.get(student, {}),
        }
        yield "---\n" + yaml.dump(document, Dumper=_DUMPER, sort_keys=False, allow_unicode=True, width=110)
    yield "...\n"


def budget_lines(reproduction: Reproduction) -> list[str]:
    """What all of it amounts to."""
    suite, budget = reproduction.suite, reproduction.budget
    students = all_students(reproduction)
    rounds = sum(student.num_rounds for student in students)
    steps, trainings = rounds * budget.num_optimizer_steps, f"{len(students)} students"
    if rounds > len(students):
        trainings += f" in {rounds} rounds"
    lines = [
        f"{trainings}, each {budget.num_optimizer_steps} optimizer steps of "
        f"{budget.train_batch_size} trajectories from {budget.num_prompts} prompts: {steps} optimizer steps",
    ]
    read = suite.data.paths((*suite.tasks, *suite.validation_tasks))
    for path in dict.fromkeys(read):
        lines.append(f"reads {path}" + ("" if path.exists() else ", which is missing"))
    unusable = [task for task in suite.tasks if suite.data.evaluation_identity(task, "test") == MISSING]
    if unusable:
        lines.append(f"cannot be evaluated here: {', '.join(unusable)}")
    if unusable or not all(path.exists() for path in read):
        lines.append("hashes and folders above are those without what is missing")
    if suite.is_below_float32:
        place = f"{suite.dtype} on {suite.device_kind}, in batches of {suite.batch_size}"
        lines.append(f"hashes and folders above are those of {place}")
    if read:  # a suite of real models, which stand for those of the paper
        parameters = {teacher: PARAMETERS[model] for teacher, model in suite.teachers.items()}
        # Clean and noisy copy; 6 per parameter and token for the student, 2 for the reference.
        tokens = 2 * MEAN_TOKENS * budget.num_optimizer_steps * budget.train_batch_size
        flops = sum(8 * parameters[student.teacher] * tokens * student.num_rounds for student in students)
        gpu_seconds = flops / GPU_FLOPS
        cells = {cell for demand in reproduction.demands for cell in demand.cells(suite.middle_learning_rate)}
        responses = sum(
            cell.samples_per_prompt * len(suite.tasks) * (budget.limit or MEAN_TEST_PROBLEMS)
            for cell in cells
        )
        decoding = responses * MEAN_TOKENS / 2 / TOKENS_PER_SECOND
        lines += [
            f"{Path(teacher).name}: about {TRAINING_BYTES * count / 1e9:.0f} GB for training, and activations"
            for teacher, count in parameters.items()
        ]
        lines.append(
            f"about {gpu_seconds / 3600:.0f} hours of one H100 for training and {decoding / 3600:.0f} for "
            "evaluation (arithmetic at 40 % of its peak and 1,500 tokens/s, not measured)"
        )
    return lines
