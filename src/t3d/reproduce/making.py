"""Making what is missing of many cells, beside other processes at the same output."""

import time
from collections.abc import Callable, Sequence
from statistics import mean
from typing import Any, TypeVar

from t3d.reproduce.recipes import CellSpec
from t3d.reproduce.store import CellStore
from t3d.reproduce.students import Workshop
from t3d.work.lock import InUseError, locked

T = TypeVar("T")
WAIT_SECONDS = 10.0
"""Between two looks at what other processes have made."""
Made = Callable[[CellSpec, dict[str, Any]], object]
"""Told of every finished cell and its record."""


def make_all(
    unfinished: Callable[[], Sequence[T]], make: Callable[[T], int], say: Callable[[str], None]
) -> None:
    """Make all students' cells; returns when none is unfinished, here or in another process.

    ``make`` returns how many cells it made: none where another process is at that student.
    """
    num_waited_for = 0
    while students := unfinished():
        if sum(make(student) for student in students):
            num_waited_for = 0
            continue
        if len(students) != num_waited_for:
            say(f"waiting for other processes, which are making cells of {len(students)} students")
        num_waited_for = len(students)
        time.sleep(WAIT_SECONDS)


def make_cells(
    workshop: Workshop,
    store: CellStore,
    cells: Sequence[CellSpec],
    find: Callable[[CellSpec], dict[str, Any] | None],
    made: Made,
) -> int:
    """Make what is missing of one student's cells, unless another process is at that student or at the
    rollouts it needs; returns how many were made."""
    num_made = 0
    try:
        with locked(workshop.student(cells[0].student).path):
            for cell in cells:
                if find(cell) is None:
                    record = workshop.make_cell(cell)
                    store.write(cell.label, record)
                    num_made += 1
                    made(cell, record)
    except InUseError:
        pass
    return num_made


def cell_accuracy(record: dict[str, Any]) -> float:
    """Mean over the cell's settings and tasks, percent."""
    return mean(100 * row["num_correct"] / row["n"] for row in record["results"])
