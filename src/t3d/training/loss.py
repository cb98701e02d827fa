"""From log-probabilities of student and reference to the loss of one micro-batch and what to log of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from t3d.models.head import HeadScores
from t3d.objectives.cross_entropy import cross_entropy_loss
from t3d.objectives.ddo import ddo_loss
from t3d.objectives.logprobs import ObjectiveOutput, reduce_by_sample
from t3d.objectives.path_consistency import path_loss
from t3d.objectives.t3d import t3d_loss
from t3d.training.config import T3DConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchCounts:
    """What losses are divided by: counts over the whole accumulated batch and all processes."""

    num_trajectories: Tensor
    num_tokens: Tensor
    """Masked tokens that take loss."""


def cross_entropy_objective(
    student: HeadScores, batch: Mapping[str, Any], counts: BatchCounts
) -> ObjectiveOutput:
    """Eq. 5 on the masked tokens; ``student`` has scored the labels."""
    assert student.log_probs is not None
    real_M = student.log_probs[0][batch["is_masked"]]
    return cross_entropy_loss(student_real_M=real_M, num_tokens=counts.num_tokens)


def t3d_objective(
    student: HeadScores, reference: HeadScores, batch: Mapping[str, Any], counts: BatchCounts, args: T3DConfig
) -> ObjectiveOutput:
    """Eq. 10. ``student`` has scored the labels and the fake tokens, ``reference`` the labels.

    The fake tokens are those that ``reference`` picked.
    """
    assert student.log_probs is not None and reference.log_probs is not None
    assert reference.picked is not None and reference.picked_log_probs is not None
    is_masked, num_trajectories = batch["is_masked"], len(batch["sample_key"])
    trajectory_M = batch["loss_example"][is_masked]

    def sequence(log_prob_M: Tensor) -> Tensor:
        return reduce_by_sample(log_prob_M[is_masked], trajectory_M, num_trajectories, args.log_ratio)

    student_real_M, student_fake_M = student.log_probs
    ddo = ddo_loss(
        student_real_N=sequence(student_real_M),
        reference_real_N=sequence(reference.log_probs[0]),
        student_fake_N=sequence(student_fake_M),
        reference_fake_N=sequence(reference.picked_log_probs),
        beta=args.ddo_beta,
        alpha=args.ddo_alpha,
        num_samples=counts.num_trajectories,
    )
    path = path_loss(
        student_real_M=student_real_M,
        weight_M=batch["token_weight"],
        normaliser=counts.num_tokens if args.path_reduction == "mean" else counts.num_trajectories,
    )
    output = t3d_loss(ddo, path, path_weight=args.path_weight)
    agrees = ((reference.picked == batch["labels"]) & is_masked).sum() / counts.num_tokens
    return ObjectiveOutput(loss=output.loss, metrics={**output.metrics, "reference/agreement": agrees})


def nll_by_mask_ratio(
    student: HeadScores, batch: Mapping[str, Any], mask_ratios: tuple[float, ...]
) -> Tensor:
    """Sum of -log p(label) over masked tokens, and their number, by mask ratio of their block: [n, 2]."""
    assert student.log_probs is not None
    is_masked = batch["is_masked"]
    nll_M, ratio_M = -student.log_probs[0].detach()[is_masked], batch["mask_ratio"][is_masked]
    totals = nll_M.new_zeros(len(mask_ratios), 2)
    index_M = (ratio_M[:, None] == ratio_M.new_tensor(mask_ratios)).int().argmax(-1)
    return totals.index_add(0, index_M, torch.stack([nll_M, torch.ones_like(nll_M)], 1))
