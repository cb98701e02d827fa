"""Spearman's rank correlation, with an interval by drawing what the pairs belong to.

P pairs, D bootstrap draws.
"""

from collections.abc import Sequence

import numpy as np

DRAWS = 10_000


def ranks(values: Sequence[float], counts_DP: np.ndarray) -> np.ndarray:
    """Ranks from 0, ties sharing their mean, where each value is there so many times."""
    array_P = np.asarray(values)
    behind_PP = (array_P[:, None] > array_P) + (array_P[:, None] == array_P) / 2
    return counts_DP @ behind_PP.T - 0.5


def rank_correlation(
    first: Sequence[float], second: Sequence[float], counts_DP: np.ndarray | None = None
) -> np.ndarray:
    """Spearman's of pairs that are there so many times, once each if left out; nan where all of one side are
    the same."""
    counts = np.ones(len(first)) if counts_DP is None else counts_DP
    one, two = (
        found - (counts * found).sum(-1, keepdims=True) / counts.sum(-1, keepdims=True)
        for found in (ranks(first, counts), ranks(second, counts))
    )
    sizes = (counts * one**2).sum(-1) * (counts * two**2).sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((counts * one * two).sum(-1) / np.sqrt(sizes))


def rank_interval(
    first: Sequence[float], second: Sequence[float], owners: Sequence[int]
) -> tuple[float, float, float]:
    """The rank correlation of pairs, and its 95 % bootstrap interval by drawing owners with all their pairs.

    ``owners``: of each pair a number from 0. The draws are seeded.
    """
    size = max(owners) + 1
    drawn = np.random.default_rng(0).integers(0, size, (DRAWS, size))
    places = (drawn + size * np.arange(DRAWS)[:, None]).ravel()
    counts = np.bincount(places, minlength=DRAWS * size).reshape(DRAWS, size)
    values = rank_correlation(first, second, counts[:, list(owners)])
    low, high = np.nanquantile(values, [0.025, 0.975])
    return float(rank_correlation(first, second)), float(low), float(high)
