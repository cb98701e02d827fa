"""95 % intervals and tests: of one accuracy, of means over tasks and seeds, of ratios, of paired differences.

A gain is second minus first. Several answers to one prompt are not independent, so that paired intervals and
tests go by prompts; for one answer each they are Tango's interval and McNemar's exact test.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from statistics import fmean, stdev

import numpy as np

Z = 1.959964
"""Two-sided 95 % point of the normal distribution."""


def wilson_interval(num_correct: float, num_total: int) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson, 1927), as fractions; [0, 1] for no samples."""
    if num_total == 0:
        return 0.0, 1.0
    share, z2 = num_correct / num_total, Z * Z / num_total
    centre = (share + z2 / 2) / (1 + z2)
    half = Z / (1 + z2) * math.sqrt(share * (1 - share) / num_total + z2 / (4 * num_total))
    return max(0.0, centre - half), min(1.0, centre + half)


def mean_interval(accuracies: Sequence[float], counts: Sequence[int]) -> tuple[float, float]:
    """95 % interval of the unweighted mean of independent proportions, as fractions.

    The distances from each proportion to the ends of its Wilson interval are added in squares (Zou and
    Donner, 2008), so that it is Wilson's interval for one proportion and never empty at 0 or 1.
    """
    mean = sum(accuracies) / len(accuracies)
    below, above = _distances(
        [(a, *wilson_interval(a * n, n)) for a, n in zip(accuracies, counts, strict=True)]
    )
    return mean - below, mean + above


def _distances(points: Sequence[tuple[float, float, float]]) -> tuple[float, float]:
    """From the mean of independent (value, low, high) to both ends of its interval: added in squares."""
    below = math.hypot(*(value - low for value, low, _ in points)) / len(points)
    return below, math.hypot(*(high - value for value, _, high in points)) / len(points)


T_QUANTILES = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
"""0.975 quantiles of Student's t for 1 to 30 degrees of freedom (NIST/SEMATECH e-Handbook, 1.3.6.7.2)."""


SeedAccuracies = tuple[Sequence[float], Sequence[int]]
"""Of one seed: the accuracies of the tasks, as fractions, and their numbers of prompts."""


def seeds_interval(per_seed: Sequence[SeedAccuracies], shared: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95 % interval of accuracies (fractions), over tasks and seeds.

    ``shared`` is by task the share of prompts that two seeds have in common. Each side of the interval is
    the larger of two distances: Wilson's over prompts, and the half-width of the t interval of the seeds'
    means over the tasks, which covers what training adds. With one seed it covers prompts only.
    """
    means = [fmean(accuracies) for accuracies, _ in per_seed]
    return _over_seeds(means, *_prompt_distances(per_seed, shared), lowest=0.0)


VerdictsByPrompt = Mapping[Hashable, Sequence[tuple[bool, bool]]]
"""Pairs of verdicts by prompt: of the first and of the second of two models."""


def paired_seeds_interval(per_seed: Sequence[Sequence[VerdictsByPrompt]]) -> tuple[float, float, float]:
    """Mean and 95 % interval of the second's accuracies minus the first's (fractions), over tasks and seeds.

    ``per_seed`` has a seed's pairs by task. Pairs of one prompt, of a seed or of several, are a cluster of
    :func:`clustered_interval`; the tasks are combined by :func:`mean_of_differences`, and what training adds
    is covered as in :func:`seeds_interval`.
    """
    means = [fmean(_mean_gain(list(pairs.values())) for pairs in tasks) for tasks in per_seed]
    of_tasks = []
    for of_seeds in zip(*per_seed, strict=True):
        merged: dict[Hashable, list[tuple[bool, bool]]] = {}
        for pairs_by_prompt in of_seeds:
            for prompt, pairs in pairs_by_prompt.items():
                merged.setdefault(prompt, []).extend(pairs)
        groups = list(merged.values())
        of_tasks.append((_mean_gain(groups), *clustered_interval(groups)))
    middle, low, high = mean_of_differences(of_tasks)
    return _over_seeds(means, middle - low, high - middle, lowest=-1.0)


def _over_seeds(
    means: Sequence[float], below: float, above: float, *, lowest: float
) -> tuple[float, float, float]:
    """Mean of the seeds' ``means`` and its interval, from ``lowest`` to 1 at most: on each side the larger of
    the distance over prompts and the half-width of the t interval."""
    centre, spread = fmean(means), t_half_width(means)
    return centre, max(lowest, centre - max(below, spread)), min(1.0, centre + max(above, spread))


def t_half_width(values: Sequence[float]) -> float:
    """Half the width of the 95 % interval of the mean of some seeds' values; 0 for a single one."""
    if len(values) == 1:
        return 0.0
    quantile = T_QUANTILES[min(len(values) - 1, len(T_QUANTILES)) - 1]
    return quantile * stdev(values) / math.sqrt(len(values))


def pooled_interval(counts: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """Sum of the parts by the sum of the wholes, of independent units (part, whole), and its interval.

    A ratio estimate with its linearised variance (Cochran, 1977, Sampling Techniques, eq. 6.4). Where all
    units have the same share the interval is empty; 0 where nothing is counted.
    """
    value, deviations = _pooled(counts)
    half = t_half_width(deviations)
    return value, value - half, value + half


def pooled_difference_interval(
    firsts: Sequence[tuple[float, float]], seconds: Sequence[tuple[float, float]]
) -> tuple[float, float, float]:
    """The pooled ratio of the first less that of the second, and its interval; units are paired."""
    (value, deviations), (other, of_other) = _pooled(firsts), _pooled(seconds)
    half = t_half_width([one - two for one, two in zip(deviations, of_other, strict=True)])
    return value - other, value - other - half, value - other + half


def pooled_ratio_interval(
    firsts: Sequence[tuple[float, float]], seconds: Sequence[tuple[float, float]]
) -> tuple[float, float, float]:
    """The pooled ratio of the first by that of the second, and its interval; units are paired.

    Linearised as :func:`pooled_interval`, so that the low end may be below 0: it is put to 0. Raises
    ZeroDivisionError where the second's is 0.
    """
    (value, deviations), (other, of_other) = _pooled(firsts), _pooled(seconds)
    times = value / other
    moved = [(one - times * two) / other for one, two in zip(deviations, of_other, strict=True)]
    half = t_half_width(moved)
    return times, max(0.0, times - half), times + half


def _pooled(counts: Sequence[tuple[float, float]]) -> tuple[float, list[float]]:
    """The ratio of the sums, and how far each unit moves it, times the number of units."""
    part, whole = (math.fsum(numbers) for numbers in zip(*counts, strict=True))
    if not whole:
        return 0.0, [0.0] * len(counts)
    return part / whole, [len(counts) / whole * (one - part / whole * all_) for one, all_ in counts]


def _prompt_distances(per_seed: Sequence[SeedAccuracies], shared: Sequence[float]) -> tuple[float, float]:
    """From the mean to both ends of its interval over prompts.

    Distances to the ends of Wilson's intervals are added in squares over the tasks (Zou and Donner, 2008).
    Over the seeds of a task too, but as if the answers to a prompt they share were the same for every seed.
    """
    below, above = [], []
    for task, share in enumerate(shared):
        found = [(accuracies[task], counts[task]) for accuracies, counts in per_seed]
        ends = [wilson_interval(value * count, count) for value, count in found]
        low = [value - end for (value, _), (end, _) in zip(found, ends, strict=True)]
        high = [end - value for (value, _), (_, end) in zip(found, ends, strict=True)]
        below.append(_of_mean(low, share))
        above.append(_of_mean(high, share))
    return math.hypot(*below) / len(below), math.hypot(*above) / len(above)


def _of_mean(distances: Sequence[float], correlation: float) -> float:
    """The distance of a mean of numbers with this correlation: of 0 their root of squares by their number,
    of 1 their mean."""
    independent, equal = math.hypot(*distances), sum(distances)
    return math.sqrt((1 - correlation) * independent**2 + correlation * equal**2) / len(distances)


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


def _mean_gain(pairs_by_prompt: Sequence[Sequence[tuple[bool, bool]]]) -> float:
    return sum(map(gain, pairs_by_prompt)) / sum(map(len, pairs_by_prompt))


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

    Distances to the ends are added in squares, as in :func:`mean_interval`.
    """
    mean = math.fsum(point for point, _, _ in differences) / len(differences)
    below, above = _distances(differences)
    return mean, mean - below, mean + above


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for the number of tests (Holm, 1979): all below 0.05 hold together at 95 %."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
