"""Make the missing cells of some tables, and report them all."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from t3d.claim import claim
from t3d.errors import InputError, require_positive
from t3d.reproduce.eta import Plan, cell_seconds, duration, make_plan, records_seconds, student_seconds
from t3d.reproduce.grid import chosen_rate, grid_scores, missing_grid, owners
from t3d.reproduce.recipes import ORIGINAL, TABLES, CellSpec, Demand, demands
from t3d.reproduce.resolve import resolve_cell
from t3d.reproduce.store import FINISHED, CellStore
from t3d.reproduce.students import Workshop
from t3d.reproduce.suites import Suite, load_suite


@dataclass(frozen=True, kw_only=True)
class ReproduceConfig:
    """Settings of a reproduction."""

    suite: str = "mini"
    """mini (built in), or sdar: SDAR-4B-Chat and SDAR-1.7B-Chat on the real benchmarks, on a GPU."""
    seeds: int = 1
    """Seeds with the main teacher; of ``all``, for Tables 1 and 2. The other teacher has one."""
    output: str = "runs/reproduce"
    """Folder for cells, students, tables.md, tables.json and plots."""
    cells: str | None = "docs/results/cells"
    """Folder of finished cells of earlier runs that may be reused; it may be missing."""
    quick: bool = False
    """Half the prompts and optimizer steps, one seed, learning rates of the kept grid."""
    data: str | None = None
    """Of suite sdar: folder of train.jsonl, solutions.jsonl and the benchmarks."""
    device: str = "auto"
    batch_size: int = 256
    """Requests decoded together."""

    def __post_init__(self) -> None:
        require_positive(self, "seeds", "batch_size")
        if self.quick and self.seeds != 1:
            raise InputError("seeds", self.seeds, "quick has one", "leave out one of the two")


def tables_of(name: str) -> tuple[int, ...]:
    """``table1`` to ``table7``, or ``all``. Raises InputError for another name."""
    names = {f"table{table}": (table,) for table in TABLES} | {"all": TABLES}
    if name not in names:
        raise InputError("table", name, "not known", f"use one of {', '.join(names)}")
    return names[name]


class Reproduction:
    """The cells of some tables: which there are, which are missing, and how to make them."""

    def __init__(self, config: ReproduceConfig, tables: Sequence[int], suite: Suite | None = None) -> None:
        """``suite`` replaces the one that ``config`` names."""
        self.config = config
        self.suite = load_suite(config.suite, config.data) if suite is None else suite
        self.budget = self.suite.budget(quick=config.quick)
        self.demands = demands(self.suite, tables, config.seeds, self.budget)
        earlier = None if config.cells is None else Path(config.cells)
        self.output = Path(config.output)
        self.store = CellStore(self.output / "cells", earlier)
        self.workshop = Workshop(
            suite=self.suite,
            quick=config.quick,
            output=self.output,
            device=config.device,
            batch_size=config.batch_size,
        )

    def plan(self) -> Plan:
        """What is there and what is missing."""
        return make_plan(self.workshop, self.store, self.demands)

    def run(self, say: Callable[[str], None] = print) -> None:
        """Make every missing cell; the same call continues after a kill.

        Raises InputError if another run is using the output.
        """
        clock = _Clock(total=self.plan().seconds, say=say)
        with claim(self.output / "cells", {"suite": self.suite.name}, FINISHED):
            if not self.config.quick:
                for cell in list(missing_grid(self.suite, self.store, self.demands)):
                    self._make(cell, clock)
            for cell in self._ordered_cells():
                if self.find(cell) is None:
                    self._make(cell, clock)

    def learning_rate(self, demand: Demand) -> float | None:
        """Of the grid; with ``quick`` and no finished grid its middle. None: original, or no choice yet."""
        if demand.method == ORIGINAL:
            return None
        rate = chosen_rate(self.suite, self.store, (demand.teacher, demand.method))
        return self.suite.middle_learning_rate if rate is None and self.config.quick else rate

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

    def scores(self) -> dict[tuple[str, str], dict[float, float]]:
        """Validation accuracy by teacher and method, and learning rate."""
        return {owner: grid_scores(self.suite, self.store, owner) for owner in owners(self.demands)}

    def _ordered_cells(self) -> list[CellSpec]:
        """All cells, those of one student side by side, so that it is loaded once."""
        cells = [cell for demand in self.demands for cell in demand.cells(self.learning_rate(demand))]
        students = list(dict.fromkeys(cell.student for cell in cells))
        return sorted(dict.fromkeys(cells), key=lambda cell: students.index(cell.student))

    def _make(self, cell: CellSpec, clock: "_Clock") -> None:
        training = student_seconds(self.workshop, cell.student)
        rollouts = records_seconds(self.workshop, cell.student) if training else 0.0
        estimate = rollouts + training + cell_seconds(self.workshop, cell)
        record = self.workshop.make_cell(cell)
        self.store.write(cell.label, record)
        accuracy = mean(100 * row["num_correct"] / row["n"] for row in record["results"])
        clock.advance(f"{cell.label}: {accuracy:.1f} %", estimate)


@dataclass
class _Clock:
    """Says what is finished and, from the estimates' errors so far, how long the rest takes."""

    total: float
    say: Callable[[str], None]
    done: float = 0.0
    started: float = dataclasses.field(default_factory=time.perf_counter)

    def advance(self, text: str, estimate: float) -> None:
        self.done += estimate
        elapsed = time.perf_counter() - self.started
        rest = ""
        if self.done > 0:
            left = max(0.0, self.total - self.done) * elapsed / self.done
            rest = f", about {duration(left)} left"
        self.say(f"{text} ({duration(elapsed)}{rest})")
