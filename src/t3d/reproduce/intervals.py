"""95 % intervals of accuracies over prompts and seeds."""

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from t3d.evaluation.metrics import wilson_interval

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
    centre, spread = fmean(means), t_half_width(means)
    below, above = _prompt_distances(per_seed, shared)
    return centre, max(0.0, centre - max(below, spread)), min(1.0, centre + max(above, spread))


def t_half_width(values: Sequence[float]) -> float:
    """Half the width of the 95 % interval of the mean of some seeds' values; 0 for a single one."""
    if len(values) == 1:
        return 0.0
    quantile = T_QUANTILES[min(len(values) - 1, len(T_QUANTILES)) - 1]
    return quantile * stdev(values) / math.sqrt(len(values))


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
