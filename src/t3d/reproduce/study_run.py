"""Running a study: making the cells that are missing, and finding those that are there."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from t3d.evaluation.finished import CELLS
from t3d.reproduce.cell_choice import CellChoice
from t3d.reproduce.eta import Plan, Speeds, added, make_plan
from t3d.reproduce.making import cell_accuracy, make_all, make_cells
from t3d.reproduce.recipes import ORIGINAL, CellSpec
from t3d.reproduce.resolve import resolve_cell
from t3d.reproduce.store import CellStore
from t3d.reproduce.students import Workshop
from t3d.reproduce.study import Study
from t3d.reproduce.suite_choice import COMMITTED_CELLS
from t3d.reproduce.suites import Suite
from t3d.work.progress import duration, numbered
from t3d.work.shards import join


@dataclass
class StudyRun:
    """A study's cells below ``output``; those in the folder ``cells`` are used too.

    Raises InputError, when it is made, for a row that suite or training do not have.
    """

    study: Study
    output: Path
    cells: Path | None = None
    _specs: dict[CellChoice, tuple[Workshop, CellSpec]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._store = CellStore(self.output / "cells", self.cells)
        workshops: dict[Any, Workshop] = {}
        for choice in self.study.choices():
            suite, cell = choice.spec(self.output)
            key = (suite.name, suite.flags, tuple(suite.teachers), choice.quick)
            if key not in workshops:
                workshops[key] = Workshop(suite=suite, quick=choice.quick, output=self.output)
            self._specs[choice] = workshops[key], cell

    @property
    def suites(self) -> list[Suite]:
        """Of its cells, as their rows change them."""
        return [workshop.suite for workshop, _ in self._specs.values()]

    def workshop(self, choice: CellChoice) -> Workshop:
        """That of a cell: cells of different budgets have different ones."""
        return self._specs[choice][0]

    def label(self, choice: CellChoice) -> str:
        """Short text."""
        return self._specs[choice][1].label

    def student_path(self, choice: CellChoice) -> Path | None:
        """Where a student's weights are, or will be; None: the teacher's own are evaluated."""
        workshop, cell = self._specs[choice]
        return None if cell.student.method == ORIGINAL else workshop.student(cell.student).path

    def record(self, choice: CellChoice) -> dict[str, Any] | None:
        """Of a finished cell."""
        workshop, cell = self._specs[choice]
        return self._store.find(resolve_cell(workshop.suite, workshop.budget, cell))

    def missing(self) -> list[CellChoice]:
        """Cells that are not there, in the order in which they are made."""
        return [choice for choice in self._specs if self.record(choice) is None]

    def plan(self) -> Plan:
        """What is there and what is missing, with estimates by the cells that are finished now, of this study
        or else of the tables in the repository."""
        by_workshop: dict[int, dict[CellSpec, CellChoice]] = {}
        for choice, (workshop, cell) in self._specs.items():
            by_workshop.setdefault(id(workshop), {})[cell] = choice
        plans, folders = [], (self._store.folder, self._store.earlier)
        for choices in by_workshop.values():
            workshop = self.workshop(next(iter(choices.values())))
            speeds = Speeds((*folders, Path(COMMITTED_CELLS)), workshop.suite.device_kind)
            find = {cell: self.record(choice) for cell, choice in choices.items()}.get
            plans.append(make_plan(workshop, dict.fromkeys(choices, True), find, speeds))
        return added(plans)

    def run(self, say: Callable[[str], None] = print) -> None:
        """Make what is missing; the same call continues after a kill, and several processes may run.

        Raises InputError, before anything is trained, for what cannot be made.
        """
        missing = self.missing()
        by_workshop: dict[int, list[CellChoice]] = {}
        for choice in missing:
            by_workshop.setdefault(id(self.workshop(choice)), []).append(choice)
        for choices in by_workshop.values():
            self.workshop(choices[0]).check([self._specs[choice][1] for choice in choices])
        for suite in {choice.suite for choice in missing}:
            join(self.output / "cells", {"suite": suite}, CELLS)
        started, before = time.perf_counter(), len(self._specs) - len(missing)

        def make(choice: CellChoice) -> int:
            workshop, cell = self._specs[choice]

            def made(cell: CellSpec, record: dict[str, Any]) -> None:
                num_left, elapsed = len(self.missing()), time.perf_counter() - started
                done = len(self._specs) - num_left
                left = elapsed * num_left / max(1, done - before)
                text = f"{cell.label}: {cell_accuracy(record):.1f} % ({duration(elapsed)}"
                text += f"; about {duration(left)} left)" if num_left else ")"
                say(numbered(done, len(self._specs), text))

            return make_cells(workshop, self._store, [cell], lambda _: self.record(choice), made)

        make_all(self.missing, make, say)
