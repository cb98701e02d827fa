"""Total correlation and modes of the true posterior, where a task lists its solutions.

The posterior over a problem's solutions given what a recorded state shows is exact, so the total correlation
of the tokens that a step commits together is too: what the best factorised model of the data loses there. N
solutions, L response length.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import numpy as np

from t3d.evaluation.intervals import t_half_width
from t3d.trajectory import Trajectory


@dataclass(frozen=True, kw_only=True, slots=True)
class StepScore:
    """One step of a trajectory under the posterior."""

    trajectory: int
    masks_left: int
    """In the block, where the step begins."""
    num_tokens: int
    """Visible tokens that it commits."""
    correlation: float | None
    """Total correlation of these, nats; None if no solution agrees with the state."""
    num_modes: int
    """Ways in which the block may still go on."""


def score_steps(
    solutions_NL: np.ndarray, trajectory: Trajectory, number: int, *, tokens_per_step: int, block_size: int
) -> list[StepScore]:
    """Every step in the recorded order, in blocks that begin before the visible end."""
    scores, done = [], 0
    response = np.array(trajectory.response_ids)
    blocks = trajectory.blocks(trajectory.step_map, block_size)
    left_NL = solutions_NL
    for steps in blocks:
        if done >= trajectory.visible_length:
            break
        columns = [done + i for i in sorted(range(len(steps)), key=lambda i, steps=steps: (steps[i], i))]
        for start in range(0, len(columns), tokens_per_step):
            group = columns[start : start + tokens_per_step]
            visible = [column for column in group if column < trajectory.visible_length]
            scores.append(
                StepScore(
                    trajectory=number,
                    masks_left=len(columns) - start,
                    num_tokens=len(visible),
                    correlation=correlation_of(left_NL[:, visible]) if len(left_NL) else None,
                    num_modes=len(np.unique(left_NL[:, columns[start:]], axis=0)),
                )
            )
            left_NL = left_NL[(left_NL[:, group] == response[group]).all(1)]
        done += len(steps)
    return scores


def correlation_of(rows_NS: np.ndarray) -> float:
    """The sum of the columns' entropies less the rows' entropy, each row equally likely; nats."""
    columns = sum(_entropy(rows_NS[:, [column]]) for column in range(rows_NS.shape[1]))
    return max(0.0, columns - _entropy(rows_NS))


def _entropy(rows_NS: np.ndarray) -> float:
    _, counts = np.unique(rows_NS, axis=0, return_counts=True)
    share = counts / counts.sum()
    return float(-(share * np.log(share)).sum())


def summary_of_steps(scores: Sequence[StepScore]) -> dict[str, Any]:
    """Means over trajectories, as :func:`t3d.theory.measured.summary` has them, where solutions agree."""
    known = [score for score in scores if score.correlation is not None and score.num_tokens]
    by_masks = defaultdict(list)
    for score in known:
        by_masks[score.masks_left].append(score)
    return {
        "num_steps": len(scores),
        "num_unlisted": sum(score.correlation is None for score in scores),
        "all": _means(known),
        "by_masks_left": {str(masks): _means(by_masks[masks]) for masks in sorted(by_masks)},
    }


def _means(scores: Sequence[StepScore]) -> dict[str, float] | None:
    """Of the correlation per token, with half its 95 % interval, and of the modes; None of nothing."""
    if not scores:
        return None
    by_trajectory = defaultdict(list)
    for score in scores:
        by_trajectory[score.trajectory].append(score)
    means = [
        sum(score.correlation or 0.0 for score in one) / sum(score.num_tokens for score in one)
        for one in by_trajectory.values()
    ]
    return {
        "mean": mean(means),
        "half_width": t_half_width(means),
        "num_trajectories": len(means),
        "modes": mean(mean(score.num_modes for score in one) for one in by_trajectory.values()),
    }
