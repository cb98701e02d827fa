"""How long cells take, by what finished ones took, of this output and of the folder of earlier ones."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from t3d.errors import InputError
from t3d.evaluation.finished import CELLS, read_cell
from t3d.reproduce.recipes import ORIGINAL, CellSpec, StudentSpec, learns_solutions
from t3d.reproduce.students import Workshop
from t3d.reproduce.suites import MEAN_TEST_PROBLEMS, split_problems

PARALLEL_POWER = 0.9
"""Two threads are 2 ** 0.9 times as fast as one (measured on training steps)."""
MAX_THREADS = 4
"""More do not help models of this size."""
TRAINING = "training"


def speed(num_threads: int | None = None) -> float:
    """How much faster than one thread so many are; None: those of this process."""
    return min(num_threads or torch.get_num_threads(), MAX_THREADS) ** PARALLEL_POWER


class Speeds:
    """Seconds that finished cells took on this kind of device, scaled to this process's threads on a CPU.

    They are by teacher, by work (a decoding setting, per response, or TRAINING, per trajectory of a step) and
    by method, without its overrides.
    """

    def __init__(self, folders: Sequence[Path | None], device_kind: str) -> None:
        """``folders`` of finished cells; one that comes first tells more than the next."""
        self._seconds: dict[tuple[str, str, str], list[float]] = {}
        for folder in folders:
            found: dict[tuple[str, str, str], list[float]] = {}
            for path in [] if folder is None else sorted(folder.glob(CELLS)):
                # A file that is damaged or of another form measures nothing; whoever needs it says so.
                with suppress(InputError, KeyError):
                    record = read_cell(path)
                    if str(record["model"]["device"]).partition(":")[0] == device_kind:
                        factor = speed(record["num_threads"]) / speed() if device_kind == "cpu" else 1.0
                        for work, seconds in _parts(record):
                            key = (record["teacher"], work, record["method"].split()[0])
                            found.setdefault(key, []).append(seconds * factor)
            self._seconds = found | self._seconds

    def seconds(self, student: StudentSpec, work: str, count: int) -> float:
        """Of ``count`` units of work: as long as this method took or else, of this teacher, the slowest, at
        this work or else at any decoding; nan: unknown."""
        of_teacher = {
            (kind, method): mean(values)
            for (owner, kind, method), values in self._seconds.items()
            if owner == student.teacher
        }
        same_work = {method: value for (kind, method), value in of_teacher.items() if kind == work}
        decoding = [value for (kind, _), value in of_teacher.items() if TRAINING not in (kind, work)]
        slowest = max(same_work.values() or decoding, default=math.nan)
        return count * same_work.get(student.method, slowest)


def _parts(record: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Each kind of work in a cell, and its seconds per unit."""
    rows = record["results"]
    # Rows count the decoding only; loading and grading are shared out.
    decoding = sum(row["seconds"] for row in rows)
    if not decoding:
        return
    overhead = record["seconds"] / decoding
    for setting in {row["setting"] for row in rows}:
        of_setting = [row for row in rows if row["setting"] == setting]
        seconds = sum(row["seconds"] for row in of_setting)
        yield setting, overhead * seconds / sum(row["n"] for row in of_setting)
    if record["training_seconds"]:
        match {"gradient_accumulation_steps": 1} | record["config"]["training"]:
            case {
                "max_steps": int() as steps,
                "per_device_train_batch_size": int() as size,
                "gradient_accumulation_steps": int() as batches,
            } if steps * size * batches > 0:
                yield TRAINING, record["training_seconds"] / (steps * size * batches)


@dataclass
class PlanLine:
    """What is there and what is missing of one method and teacher."""

    num_students: int = 0
    """To be trained."""
    num_done: int = 0
    """Cells."""
    num_missing: int = 0
    seconds: float = 0.0
    """Of what is missing; nan: unknown."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that a run takes, and how much of it is there."""

    lines: Mapping[tuple[str, str], PlanLine]
    """By teacher and method."""
    num_rollouts: int
    """Sets of trajectories that are missing."""
    rollout_seconds: float

    @property
    def seconds(self) -> float:
        """Of everything that is missing; nan: unknown."""
        return self.rollout_seconds + sum(line.seconds for line in self.lines.values())


def added(plans: Iterable[Plan]) -> Plan:
    """The plan of all that several plan, which have no cell in common."""
    lines: dict[tuple[str, str], PlanLine] = {}
    plans = list(plans)
    for plan in plans:
        for key, line in plan.lines.items():
            before = lines.get(key, PlanLine())
            lines[key] = PlanLine(*map(sum, zip(astuple(before), astuple(line), strict=True)))
    return Plan(
        lines=lines,
        num_rollouts=sum(plan.num_rollouts for plan in plans),
        rollout_seconds=sum(plan.rollout_seconds for plan in plans),
    )


def make_plan(
    workshop: Workshop, cells: Mapping[CellSpec, bool], find: Callable[[CellSpec], Any], speeds: Speeds
) -> Plan:
    """Count cells and estimate times.

    ``cells``: whether the learning rate is known; another one is one of the grid's, still to be chosen.
    ``find`` has the record of a finished cell, or None.
    """
    suite, budget = workshop.suite, workshop.budget
    main = StudentSpec(teacher=next(iter(suite.teachers)), method=ORIGINAL, seed=0)
    lines: dict[tuple[str, str], PlanLine] = {}
    num_trajectories = budget.num_optimizer_steps * budget.train_batch_size
    students, rounds = set[StudentSpec](), set[Path]()
    rollouts: dict[str, StudentSpec] = {}
    for cell, is_known in cells.items():
        student = cell.student
        line = lines.setdefault((student.teacher, student.name), PlanLine())
        if is_known and find(cell) is not None:
            line.num_done += 1
            continue
        line.num_missing += 1
        tasks, limit = split_problems(suite, budget, cell.split)
        num_responses = len(tasks) * (limit or MEAN_TEST_PROBLEMS) * cell.samples_per_prompt
        line.seconds += sum(speeds.seconds(student, setting, num_responses) for setting in cell.settings)
        is_of_grid = not is_known and student == dataclasses.replace(main, method=student.method)
        if student in students or is_of_grid or student.method == ORIGINAL:
            continue
        students.add(student)
        if is_known and workshop.student(student).is_made:
            continue
        line.num_students += 1
        for one in student.rounds:
            trained, records = workshop.student(one), workshop.records(one)
            if trained.path in rounds or (is_known and trained.is_made):
                continue
            rounds.add(trained.path)
            line.seconds += speeds.seconds(student, TRAINING, num_trajectories)
            if not learns_solutions(student.method) and not records.is_made:
                rollouts[records.path.name] = one
    # Rollouts are decoded as the teacher decodes the full-step setting.
    seconds = sum(
        speeds.seconds(
            dataclasses.replace(main, teacher=one.teacher), "B4-T1", one.num_samples * budget.num_prompts
        )
        for one in rollouts.values()
    )
    return Plan(lines=lines, num_rollouts=len(rollouts), rollout_seconds=seconds)
