"""How long cells take: seconds measured on one thread, scaled to this machine's threads and to the budget.

Measured on 2026-11-26 on one core of an AMD EPYC (AVX-512), float32, PyTorch 2.13, the other core busy:
cross-entropy, rollouts, B4-T1, B8-T2 and B8-T4 of ``mini``. The others are scaled from an earlier run.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from t3d.reproduce.recipes import (
    ORIGINAL,
    CellSpec,
    Demand,
    StudentSpec,
    grid_cells,
    learns_solutions,
    trained_methods,
)
from t3d.reproduce.resolve import resolve_cell
from t3d.reproduce.store import CellStore
from t3d.reproduce.students import Workshop
from t3d.reproduce.suites import split_problems
from t3d.training.presets import preset_fields

STEP_SECONDS = {
    "mini": {"cross_entropy": 1.4, "certainty_forcing": 2.8, "t3d": 1.9},
    "mini-small": {"cross_entropy": 0.7, "certainty_forcing": 1.4, "t3d": 0.9},
}
"""Per optimizer step of 64 trajectories, by teacher and objective; another one is taken to be as slow as the
slowest of them."""
ROLLOUT_SECONDS = {"mini": 15.0, "mini-small": 8.0}
"""Per thousand prompts."""
EVALUATION_SECONDS = {
    "B4-T1": 15.0,
    "B4-T2": 12.0,
    "B4-T4": 8.0,
    "B8-T1": 18.0,
    "B8-T2": 13.0,
    "B8-T4": 8.0,
    "B8-T8": 6.0,
    "B4-dynamic": 9.0,
    "B4-dynamic-sampled": 9.0,
    "B4-T1-temperature-1": 15.0,
}
"""Per thousand responses of teacher ``mini``."""
SMALL_FACTOR = 0.5
"""Evaluation of ``mini-small`` against ``mini``."""
PARALLEL_POWER = 0.9
"""Two threads are 2 ** 0.9 times as fast as one (measured on training steps)."""
MAX_THREADS = 4
"""More do not help models of this size."""


@dataclass
class PlanLine:
    """What is there and what is missing of one method and teacher."""

    teacher: str
    method: str
    num_students: int = 0
    """To be trained."""
    num_done: int = 0
    """Cells."""
    num_missing: int = 0
    seconds: float = 0.0


def speed() -> float:
    """How much faster than one thread these threads are."""
    return min(torch.get_num_threads(), MAX_THREADS) ** PARALLEL_POWER


def student_seconds(workshop: Workshop, spec: StudentSpec) -> float:
    """Estimate of a training; 0 if the student is there, or for a suite without measurements."""
    if spec.method == ORIGINAL or spec.teacher not in STEP_SECONDS:
        return 0.0
    if spec.learning_rate is not None and workshop.student(spec).is_made:
        return 0.0
    budget = workshop.suite.budget(quick=workshop.quick)
    measured = STEP_SECONDS[spec.teacher]
    objective = str(preset_fields(spec.method).get("objective", "t3d"))
    step = measured.get(objective, max(measured.values())) * budget.train_batch_size / 64
    return step * budget.num_optimizer_steps / speed()


def records_seconds(workshop: Workshop, spec: StudentSpec) -> float:
    """Estimate of the rollouts that a student learns from."""
    if spec.teacher not in ROLLOUT_SECONDS or learns_solutions(spec.method) or spec.method == ORIGINAL:
        return 0.0
    if workshop.records(spec).is_made:
        return 0.0
    num_prompts = workshop.suite.budget(quick=workshop.quick).num_prompts
    return ROLLOUT_SECONDS[spec.teacher] * num_prompts / 1000 / speed()


def cell_seconds(workshop: Workshop, cell: CellSpec) -> float:
    """Estimate of a cell's evaluation, without its student's training."""
    teacher = cell.student.teacher
    if teacher not in STEP_SECONDS:
        return 0.0
    suite, budget = workshop.suite, workshop.suite.budget(quick=workshop.quick)
    tasks, limit = split_problems(suite, budget, cell.split)
    responses = (limit or 0) * len(tasks) * cell.samples_per_prompt
    per_thousand = sum(EVALUATION_SECONDS[setting] for setting in cell.settings)
    factor = 1.0 if teacher == "mini" else SMALL_FACTOR
    return per_thousand * factor * responses / 1000 / speed()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that a run takes, and how much of it is there."""

    lines: Mapping[tuple[str, str], PlanLine]
    rollouts: Sequence[StudentSpec]
    """One student for each set of trajectories that is missing."""
    rollout_seconds: float

    @property
    def seconds(self) -> float:
        """Of everything that is missing."""
        return self.rollout_seconds + sum(line.seconds for line in self.lines.values())


def make_plan(
    workshop: Workshop, store: CellStore, found: Sequence[Demand], rates: Mapping[str, float | None]
) -> Plan:
    """Count cells and estimate times.

    ``rates``: learning rates of the trained methods. None is one of the grid's, still to be chosen.
    """
    suite, budget = workshop.suite, workshop.suite.budget(quick=workshop.quick)
    lines: dict[tuple[str, str], PlanLine] = {}
    main = StudentSpec(teacher=next(iter(suite.teachers)), method=ORIGINAL, seed=0)
    trained: set[StudentSpec] = set()
    rollouts: dict[str, StudentSpec] = {}

    def add(cell: CellSpec, *, is_known: bool) -> None:
        student = cell.student
        line = lines.setdefault(
            (student.teacher, student.name), PlanLine(teacher=student.teacher, method=student.name)
        )
        if is_known and store.find(resolve_cell(suite, budget, cell)) is not None:
            line.num_done += 1
            return
        line.num_missing += 1
        line.seconds += cell_seconds(workshop, cell)
        is_of_grid = not is_known and student == dataclasses.replace(main, method=student.method)
        if student in trained or is_of_grid or student.method == ORIGINAL:
            return
        trained.add(student)
        if student.learning_rate is None or not workshop.student(student).is_made:
            line.num_students += 1
            line.seconds += student_seconds(workshop, student)
            records = workshop.records(student)
            if not learns_solutions(student.method) and not records.is_made:
                rollouts[records.path.name] = student

    for method in trained_methods(found):
        for cell in [] if workshop.quick else grid_cells(suite, method):
            add(cell, is_known=True)
    cells = {
        cell: rates.get(demand.method) is not None or demand.method == ORIGINAL
        for demand in found
        for cell in demand.cells(rates.get(demand.method))
    }
    for cell, is_known in cells.items():
        add(cell, is_known=is_known)
    seconds = sum(records_seconds(workshop, spec) for spec in rollouts.values())
    return Plan(lines=lines, rollouts=list(rollouts.values()), rollout_seconds=seconds)


def duration(seconds: float) -> str:
    """``1 h 20 min`` or ``3 min`` or ``40 s``."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
