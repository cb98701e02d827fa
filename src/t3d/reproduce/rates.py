"""The learning rate of each method: the best of the suite's on validation problems, main teacher, seed 0."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import mean

from t3d.reproduce.recipes import ORIGINAL, CellSpec, Demand, grid_cells
from t3d.reproduce.resolve import resolve_cell
from t3d.reproduce.store import CellStore
from t3d.reproduce.suites import Suite


def trained_methods(found: Sequence[Demand]) -> list[str]:
    """Whose learning rates these demands take."""
    return list(dict.fromkeys(demand.method for demand in found if demand.method != ORIGINAL))


def grid_scores(suite: Suite, store: CellStore, method: str) -> dict[float, float]:
    """Mean accuracy (percent) over GRID_SETTINGS and the tasks, of the finished grid cells.

    Grid cells are always of the full budget.
    """
    scores = {}
    for cell in grid_cells(suite, method):
        record = store.find(resolve_cell(suite, suite.full, cell))
        if record is not None:
            accuracies = [100 * row["num_correct"] / row["n"] for row in record["results"]]
            scores[cell.student.learning_rate or 0.0] = mean(accuracies)
    return scores


def best_rate(suite: Suite, scores: Mapping[float, float]) -> float | None:
    """The best learning rate, of two equal ones the smaller; None until the whole grid is finished.

    All teachers of the suite take that of the main one.
    """
    if len(scores) < len(suite.learning_rates):
        return None
    return max(scores, key=lambda rate: (scores[rate], -rate))


def missing_grid(suite: Suite, store: CellStore, found: Sequence[Demand]) -> Iterator[CellSpec]:
    """The grid cells that are not finished."""
    for method in trained_methods(found):
        for cell in grid_cells(suite, method):
            if store.find(resolve_cell(suite, suite.full, cell)) is None:
                yield cell
