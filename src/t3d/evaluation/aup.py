"""Accuracy under parallelism, d3LLM's score of a whole accuracy-TPF curve."""

import math
from collections.abc import Sequence
from itertools import pairwise

ALPHA = 3.0
MAX_LOSS = 5.0
"""Points of accuracy that a point may lie below the curve's first and still count."""


def accuracy_under_parallelism(points: Sequence[tuple[float, float]], best_accuracy: float) -> float:
    """AUP of one model on one task from its points (tokens per forward, accuracy in percent).

    The area under the curve, from zero up to the slowest point a rectangle, then trapezoids of accuracies
    weighted by exp(-3 (1 - accuracy / ``best_accuracy``)), at most 1. Points more than 5 below the slowest
    one's accuracy are left out. ``best_accuracy`` is the best of any method on the task.
    """
    if not points or best_accuracy <= 0:
        return 0.0
    ordered = sorted(points)
    first_forward, first_accuracy = ordered[0]
    kept = [(forward, accuracy) for forward, accuracy in ordered if accuracy >= first_accuracy - MAX_LOSS]
    area = first_forward * first_accuracy
    weighted = [
        (forward, accuracy * min(math.exp(-ALPHA * (1 - accuracy / best_accuracy)), 1.0))
        for forward, accuracy in kept
    ]
    for (left, left_height), (right, right_height) in pairwise(weighted):
        area += 0.5 * (right - left) * (left_height + right_height)
    return area
