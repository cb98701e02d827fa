"""Difference of two accuracies measured on the same prompts: interval and test.

A gain is second minus first. Several answers to one prompt are not independent, so that interval and test
then go by prompts; for one answer each they are Tango's interval and McNemar's exact test.
"""

import math
from collections.abc import Sequence

import numpy as np

Z = 1.959964
"""Two-sided 95 % point of the normal distribution."""
_HALVINGS = 50


def score_interval(more: int, less: int, num_pairs: int, z: float = Z) -> tuple[float, float]:
    """Interval of (more - less) / num_pairs, as fractions: pairs that only the second or the first has right.

    Inverts the score test of a given difference (Tango, 1998, Statistics in Medicine 17:891, eq. 24 to 26).
    Not empty without any discordant pair.
    """
    return _lower_limit(more, less, num_pairs, z), -_lower_limit(less, more, num_pairs, z)


def _lower_limit(more: int, less: int, n: int, z: float) -> float:
    low, high = -1.0, (more - less) / n
    if not _rejected(low, more, less, n, z):
        return low
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _rejected(middle, more, less, n, z) else (low, middle)
    return high


def _rejected(difference: float, more: int, less: int, n: int, z: float) -> bool:
    """Whether the counts lie further than ``z`` from what this difference predicts."""
    # Maximum likelihood of P(only the first is right) if the difference is this; clamped for rounding.
    linear = (2 * n - more + less) * difference - more - less
    constant = -less * difference * (1 - difference)
    root = math.sqrt(max(0.0, linear * linear - 8 * n * constant))
    only_first = min(max((root - linear) / (4 * n), 0.0, -difference), (1 - difference) / 2)
    variance = n * (2 * only_first + difference * (1 - difference))
    return (more - less - n * difference) ** 2 > z * z * max(0.0, variance)


def clustered_interval(pairs_by_prompt: Sequence[Sequence[tuple[bool, bool]]]) -> tuple[float, float]:
    """Tango's interval of the second's share of right answers minus the first's, from pairs of verdicts.

    Counts are divided by the design effect of the prompts (Rao and Scott, 1992, Biometrics 48:577; for
    paired data Obuchowski, 1998, Statistics in Medicine 17:1495), so that answers to one prompt weigh as
    much as they vary: between one pair for the whole prompt and a pair each.
    """
    more = sum(second and not first for pairs in pairs_by_prompt for first, second in pairs)
    less = sum(first and not second for pairs in pairs_by_prompt for first, second in pairs)
    num_pairs = sum(map(len, pairs_by_prompt))
    effect = _design_effect(pairs_by_prompt, more, less, num_pairs)
    return score_interval(more, less, num_pairs, Z * math.sqrt(effect))  # the same as smaller counts


def _design_effect(
    pairs_by_prompt: Sequence[Sequence[tuple[bool, bool]]], more: int, less: int, num_pairs: int
) -> float:
    largest = sum(len(pairs) ** 2 for pairs in pairs_by_prompt) / num_pairs
    difference = (more - less) / num_pairs
    independent = (more + less) - num_pairs * difference**2
    num_prompts = len(pairs_by_prompt)
    if independent <= 0 or num_prompts == 1:
        return largest
    squares = math.fsum((gain(pairs) - len(pairs) * difference) ** 2 for pairs in pairs_by_prompt)
    return min(max(num_prompts / (num_prompts - 1) * squares / independent, 1.0), largest)


def gain(pairs: Sequence[tuple[bool, bool]]) -> int:
    """Answers of one prompt that are right in the second evaluation, minus those in the first."""
    return sum(second - first for first, second in pairs)


def mcnemar_p(more: int, less: int) -> float:
    """Two-sided exact p-value of McNemar's test: discordant pairs as tosses of a fair coin."""
    discordant = more + less
    ways, tail = 1, 0
    for k in range(min(more, less) + 1):
        tail += ways
        ways = ways * (discordant - k) // (k + 1)
    return min(1.0, 2 * tail / 2**discordant)


def sign_flip_p(gains: Sequence[int]) -> float:
    """Two-sided exact p-value of the summed gains of prompts if each may as well have the other sign.

    McNemar's test where every gain is -1, 0 or 1. The signs' 2^prompts combinations are counted by sum.
    """
    sizes = [abs(value) for value in gains if value]
    total = sum(sizes)
    share_of_sum = np.zeros(total + 1)
    share_of_sum[0] = 1.0
    for size in sizes:
        share_of_sum /= 2
        share_of_sum[size:] += share_of_sum[:-size].copy()
    as_far = np.abs(total - 2 * np.arange(total + 1)) >= abs(sum(gains))
    return min(1.0, float(share_of_sum[as_far].sum()))


def mean_of_differences(differences: Sequence[tuple[float, float, float]]) -> tuple[float, float, float]:
    """Unweighted mean of independent (difference, low, high), with its interval.

    Distances to the ends are added in squares, as in :func:`~t3d.evaluation.metrics.mean_interval`.
    """
    count = len(differences)
    mean = math.fsum(point for point, _, _ in differences) / count
    below = math.hypot(*(point - low for point, low, _ in differences)) / count
    above = math.hypot(*(high - point for point, _, high in differences)) / count
    return mean, mean - below, mean + above


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for the number of tests (Holm, 1979): all below 0.05 hold together at 95 %."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
