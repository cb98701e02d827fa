"""Make the missing cells of some tables, and report them all."""

import dataclasses
import difflib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t3d.errors import InputError
from t3d.evaluation.finished import CELLS
from t3d.reproduce.eta import Plan, Speeds, make_plan
from t3d.reproduce.making import cell_accuracy, make_all, make_cells
from t3d.reproduce.recipes import (
    ORIGINAL,
    AddedRow,
    CellSpec,
    Demand,
    StudentSpec,
    best_rate,
    demands,
    grid_cells,
    trained_methods,
)
from t3d.reproduce.resolve import resolve_cell
from t3d.reproduce.store import CellStore
from t3d.reproduce.students import Workshop, training_config
from t3d.reproduce.suite_choice import ReproduceConfig
from t3d.training.ignored import check_training_fields
from t3d.training.presets import PRESETS, parse_overrides
from t3d.work.progress import duration, numbered
from t3d.work.shards import join

_OF_TABLES = ("max_steps", "num_train_epochs", "learning_rate", "seed", "output_dir", "use_cpu")
_OF_TABLES += ("per_device_train_batch_size", "gradient_accumulation_steps")
"""T3DConfig fields that a budget, a grid or a seed sets."""


def added_row(text: str) -> AddedRow:
    """A preset and its overrides from ``PRESET NAME=VALUE ...``. Raises InputError, naming ``rows``."""
    method, *overrides = text.split() or [text]
    known = [name for name in PRESETS if name != "drafter"]  # that is no student
    if method not in known:
        close = difflib.get_close_matches(method, known, n=1)
        fix = f"did you mean {close[0]}" if close else f"begin with one of {', '.join(known)}"
        raise InputError("rows", text, f"no preset {method!r}", fix)
    try:
        fields = parse_overrides(overrides)
    except InputError as error:
        raise InputError("rows", text, f"{error.value!r} {error.problem}", error.fix) from error
    for name in fields:
        if name in _OF_TABLES:
            raise InputError("rows", text, f"{name} is the same for all rows of a table", "leave it out")
    return method, tuple(fields.items())


class Reproduction:
    """The cells of some tables: which there are, which are missing, and how to make them."""

    def __init__(self, config: ReproduceConfig, tables: Sequence[int]) -> None:
        self.config = config
        self.suite = config.chosen_suite(config.teachers)
        self.budget = self.suite.budget(quick=config.quick)
        added = [added_row(text) for text in config.rows]
        self.demands = demands(self.suite, tables, config.seeds, self.budget, added)
        self.output = Path(config.output)
        for demand in self.demands if added else ():
            if demand.method != ORIGINAL:
                student = demand.student(0, self.suite.middle_learning_rate)
                check_training_fields(training_config(self.suite, self.budget, student, self.output))
        self.store = CellStore(self.output / "cells", None if config.cells is None else Path(config.cells))
        self.workshop = Workshop(suite=self.suite, quick=config.quick, output=self.output)
        self._kept_scores: dict[str, dict[float, float]] = {}

    def speeds(self) -> Speeds:
        """By the cells that are finished now."""
        return Speeds((self.store.folder, self.store.earlier), self.suite.device_kind)

    def plan(self, speeds: Speeds | None = None) -> Plan:
        """What is there and what is missing, with estimates by the present speeds or by given ones."""
        return make_plan(self.workshop, self._cells(), self.find, speeds or self.speeds())

    def all_cells(self) -> list[CellSpec]:
        """Cells of the grid and of the tables; where the grid has not chosen yet, at its middle rate."""
        cells = self._grid()
        for demand in self.demands:
            cells += demand.cells(self.learning_rate(demand) or self.suite.middle_learning_rate)
        return list(dict.fromkeys(cells))

    def run(self, say: Callable[[str], None] = print) -> None:
        """Make every missing cell; the same call continues after a kill.

        Several processes may run at the same output. Each takes a student that no other is making, and
        returns when all cells are there. Raises InputError for an output of another suite or version and,
        before anything is trained, for data, graders and teachers that are missing or do not do.
        """
        if self._unfinished():
            self.workshop.check(self.all_cells())
        join(self.output / "cells", {"suite": self.suite.name}, CELLS)
        speeds = self.speeds()
        plan = self.plan(speeds)
        clock = _Clock(total=plan.seconds, speeds=speeds, say=say)
        clock.count(plan)
        make_all(self._unfinished, lambda cells: self._make_cells(cells, clock), say)

    def learning_rate(self, demand: Demand) -> float | None:
        """Of the grid; with ``quick`` and no finished grid its middle. None: original, or no choice yet."""
        if demand.method == ORIGINAL:
            return None
        rate = self.chosen_rate(demand.method)
        return self.suite.middle_learning_rate if rate is None and self.config.quick else rate

    def chosen_rate(self, method: str) -> float | None:
        """The best of a finished grid, whose choice all teachers take."""
        return best_rate(self.suite.learning_rates, self._scores(method))

    def find(self, cell: CellSpec) -> dict[str, Any] | None:
        """The record of a finished cell."""
        return self.store.find(resolve_cell(self.suite, self.budget, cell))

    def finished(self) -> list[tuple[Demand, dict[tuple[int, str], dict[str, Any]]]]:
        """Every demand with its records by seed and setting; all cells have to be there."""
        result = []
        for demand in self.demands:
            cells = demand.cells(self.learning_rate(demand))
            records = {(cell.student.seed, cell.settings[0]): self.find(cell) for cell in cells}
            complete = {key: record for key, record in records.items() if record is not None}
            assert len(complete) == len(records), f"cells of {demand} are missing"
            result.append((demand, complete))
        return result

    def scores(self) -> dict[str, dict[float, float]]:
        """Mean validation accuracy (percent; GRID_SETTINGS, all tasks) by method and learning rate."""
        return {method: self._scores(method) for method in trained_methods(self.demands)}

    def _grid(self) -> list[CellSpec]:
        methods = [] if self.config.quick else trained_methods(self.demands)
        return [cell for method in methods for cell in grid_cells(self.suite, method)]

    def _cells(self) -> dict[CellSpec, bool]:
        """Those of the grid, then the tables'; False: of a method whose learning rate is open."""
        cells = dict.fromkeys(self._grid(), True)
        for demand in self.demands:
            rate = self.learning_rate(demand)
            cells |= dict.fromkeys(demand.cells(rate), rate is not None or demand.method == ORIGINAL)
        return cells

    def _scores(self, method: str) -> dict[float, float]:
        """Scores of the grid, always of the full budget. Those of a finished one stay what they are, and with
        ``quick`` those of any: another process may finish it meanwhile, but this run has begun with the
        middle rate."""
        if method in self._kept_scores:
            return self._kept_scores[method]
        scores = {}
        for cell in grid_cells(self.suite, method):
            record = self.store.find(resolve_cell(self.suite, self.suite.full, cell))
            if record is not None:
                scores[cell.student.learning_rate or 0.0] = cell_accuracy(record)
        if self.config.quick or len(scores) == len(self.suite.learning_rates):
            self._kept_scores[method] = scores
        return scores

    def _unfinished(self) -> list[list[CellSpec]]:
        """Cells to be made by student, the grid's first; none of a method whose learning rate is open."""
        by_student: dict[StudentSpec, list[CellSpec]] = {}
        for cell, is_known in self._cells().items():
            if is_known and self.find(cell) is None:
                by_student.setdefault(cell.student, []).append(cell)
        return list(by_student.values())

    def _make_cells(self, cells: Sequence[CellSpec], clock: "_Clock") -> int:
        def made(cell: CellSpec, record: dict[str, Any]) -> None:
            clock.say_finished(f"{cell.label}: {cell_accuracy(record):.1f} %")

        num_made = make_cells(self.workshop, self.store, cells, self.find, made)
        if num_made:
            clock.say_left(self.plan)
        return num_made


@dataclass
class _Clock:
    """Says what is finished and, from how fast the estimate of the rest has shrunk, how long that takes."""

    total: float
    """Estimate of all, by ``speeds``; nan: unknown."""
    speeds: Speeds
    say: Callable[[str], None]
    started: float = dataclasses.field(default_factory=time.perf_counter)
    num_done: int = 0
    num_cells: int = 0

    def count(self, plan: Plan) -> None:
        """Take over which cells are there, those of other processes too."""
        self.num_done = sum(line.num_done for line in plan.lines.values())
        self.num_cells = self.num_done + sum(line.num_missing for line in plan.lines.values())

    def say_finished(self, text: str) -> None:
        self.num_done += 1
        elapsed = duration(time.perf_counter() - self.started)
        self.say(numbered(self.num_done, self.num_cells, f"{text} ({elapsed})"))

    def say_left(self, make: Callable[[Speeds | None], Plan]) -> None:
        """What other processes have made is no part of it. Where too little was known at the start, the
        cells made since then tell, once they tell of all that is left."""
        plan = make(None if math.isnan(self.total) else self.speeds)
        self.count(plan)
        if math.isnan(self.total):
            left = plan.seconds
        else:
            rest, elapsed = plan.seconds, time.perf_counter() - self.started
            left = rest * elapsed / (self.total - rest) if rest < self.total else math.nan
        if left > 0:
            self.say(f"about {duration(left)} left")
