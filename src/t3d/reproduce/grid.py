"""The learning rate of each method: the best of the suite's three on validation problems, at seed 0."""

from collections.abc import Iterator, Sequence
from statistics import mean

from t3d.reproduce.recipes import ORIGINAL, CellSpec, Demand, grid_cells
from t3d.reproduce.resolve import resolve_cell
from t3d.reproduce.store import CellStore
from t3d.reproduce.suites import Suite

Owner = tuple[str, str]
"""A teacher and a method."""


def owners(found: Sequence[Demand]) -> list[Owner]:
    """Whose learning rates these demands take."""
    pairs = ((demand.teacher, demand.method) for demand in found if demand.method != ORIGINAL)
    return list(dict.fromkeys(pairs))


def grid_scores(suite: Suite, store: CellStore, owner: Owner) -> dict[float, float]:
    """Mean accuracy (percent) over GRID_SETTINGS and the tasks, of the finished grid cells.

    Grid cells are always of the full budget.
    """
    scores = {}
    for cell in grid_cells(suite, *owner):
        record = store.find(resolve_cell(suite, suite.full, cell))
        if record is not None:
            accuracies = [100 * row["num_correct"] / row["n"] for row in record["results"]]
            scores[cell.student.learning_rate or 0.0] = mean(accuracies)
    return scores


def chosen_rate(suite: Suite, store: CellStore, owner: Owner) -> float | None:
    """The best learning rate, of two equal ones the smaller; None until the whole grid is finished."""
    scores = grid_scores(suite, store, owner)
    if len(scores) < len(suite.learning_rates):
        return None
    return max(scores, key=lambda rate: (scores[rate], -rate))


def missing_grid(suite: Suite, store: CellStore, found: Sequence[Demand]) -> Iterator[CellSpec]:
    """The grid cells that are not finished."""
    for owner in owners(found):
        for cell in grid_cells(suite, *owner):
            if store.find(resolve_cell(suite, suite.full, cell)) is None:
                yield cell
