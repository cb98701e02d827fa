"""From log-probabilities of student and reference to the loss of one micro-batch and what to log of it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from t3d.models.head import HeadScores
from t3d.models.token_pick import TokenPick
from t3d.objectives.certainty_forcing import certainty_forcing_loss
from t3d.objectives.cross_entropy import cross_entropy_loss
from t3d.objectives.ddo import ddo_loss
from t3d.objectives.kl import soft_cross_entropy_loss
from t3d.objectives.logprobs import ObjectiveOutput, reduce_by_sample
from t3d.objectives.path_consistency import path_loss
from t3d.objectives.prefix_acceptance import accepted_per_draft, prefix_acceptance_loss, survival
from t3d.objectives.t3d import t3d_loss
from t3d.training.config import T3DConfig
from t3d.training.soft_targets import SoftTargets


class BatchCounts(NamedTuple):
    """What losses are divided by: counts over the whole accumulated batch and all processes."""

    num_trajectories: Tensor
    num_tokens: Tensor
    """Masked tokens that take loss."""
    num_response_tokens: Tensor
    """Tokens that take loss where they are masked."""
    num_states: Tensor
    """Blocks with a masked token that takes loss."""


def count_batch(batch: Mapping[str, Any]) -> list[int]:
    """The counts of one micro-batch, in the order of :class:`BatchCounts`."""
    num_masked = int(batch["is_masked"].sum())
    return [len(batch["sample_key"]), num_masked, batch["num_response_tokens"], batch["num_states"]]


def head_options(args: T3DConfig, mask_token_id: int) -> dict[str, Any]:
    """What the student's head has to say besides the labels' log-probabilities, without a reference."""
    if args.objective != "certainty_forcing":
        return {}
    pick = TokenPick(excluded_token_id=mask_token_id)
    return {"entropy_temperature": args.entropy_temperature, "pick": pick}


def student_objective(
    student: HeadScores,
    batch: Mapping[str, Any],
    counts: BatchCounts,
    args: T3DConfig,
    soft: SoftTargets | None = None,
) -> ObjectiveOutput:
    """An objective without a reference, and the path term if it has a weight.

    ``student`` has scored the labels, with :func:`head_options`, and against ``soft`` targets if there are.
    """
    if args.objective == "certainty_forcing":
        output = _certainty_forcing(student, batch, counts, args)
    else:
        output = _cross_entropy(student, batch, counts, args, soft)
    if args.path_weight == 0:
        return output
    return t3d_loss(output, _path(student, batch, counts, args), path_weight=args.path_weight)


def _cross_entropy(
    student: HeadScores,
    batch: Mapping[str, Any],
    counts: BatchCounts,
    args: T3DConfig,
    soft: SoftTargets | None,
) -> ObjectiveOutput:
    """Eq. 3, 5 or 16 on the masked tokens, softened where there are soft targets."""
    assert student.log_probs is not None
    is_masked = batch["is_masked"]
    weighs = args.loss_weighting == "inverse_mask_prob"
    per_masked = args.loss_normaliser == "masked_tokens"
    common = {
        "student_real_M": student.log_probs[0][is_masked],
        "weight_M": 1 / batch["mask_prob"][is_masked] if weighs else None,
        "num_tokens": counts.num_tokens if per_masked else counts.num_response_tokens,
    }
    if soft is None:
        return cross_entropy_loss(**common)
    return soft_cross_entropy_loss(
        **common,
        divergence_M=soft.divergence(student, args)[is_masked],
        is_soft_M=soft.is_soft_M[is_masked],
        soft_target_weight=args.soft_target_weight,
    )


def left_to_right_objective(
    output: ObjectiveOutput,
    checked: HeadScores,
    batch: Mapping[str, Any],
    counts: BatchCounts,
    args: T3DConfig,
) -> ObjectiveOutput:
    """An objective plus the cross-entropy per response token as ``left_to_right`` decoding draws it.

    ``checked`` has scored the labels of ``batch["checks"]``, which are the response tokens that take loss,
    once each; the counts have them once per noisy copy.
    """
    assert checked.log_probs is not None
    num_tokens = counts.num_response_tokens * (len(batch["sample_key"]) / batch["num_copies"])
    loss = cross_entropy_loss(student_real_M=checked.log_probs[0], num_tokens=num_tokens).loss
    metrics = {**output.metrics, "loss/left_to_right": loss.detach()}
    return ObjectiveOutput(loss=output.loss + args.left_to_right_weight * loss, metrics=metrics)


def _certainty_forcing(
    student: HeadScores, batch: Mapping[str, Any], counts: BatchCounts, args: T3DConfig
) -> ObjectiveOutput:
    """dParallel on the masked tokens; right is a token that decoding would commit."""
    assert student.log_probs is not None and student.entropy is not None and student.picked is not None
    is_masked = batch["is_masked"]
    is_correct_M = (student.picked == batch["labels"])[is_masked]
    output = certainty_forcing_loss(
        student_real_M=student.log_probs[0][is_masked],
        entropy_M=student.entropy[is_masked],
        is_correct_M=is_correct_M,
        copy_M=batch["loss_copy"][is_masked],
        num_copies=batch["num_copies"],
        entropy_weight=args.entropy_weight,
        num_samples=counts.num_trajectories,
    )
    correct = {"student/correct": is_correct_M.sum() / counts.num_tokens}
    return ObjectiveOutput(loss=output.loss, metrics=output.metrics | correct)


def _path(
    student: HeadScores, batch: Mapping[str, Any], counts: BatchCounts, args: T3DConfig
) -> ObjectiveOutput:
    """Eq. 8 on all loss positions."""
    assert student.log_probs is not None
    return path_loss(
        student_real_M=student.log_probs[0],
        weight_M=batch["token_weight"],
        normaliser=counts.num_tokens if args.path_reduction == "mean" else counts.num_trajectories,
    )


def t3d_objective(
    student: HeadScores, reference: HeadScores, batch: Mapping[str, Any], counts: BatchCounts, args: T3DConfig
) -> ObjectiveOutput:
    """Eq. 10. ``student`` has scored the labels, ``reference`` too.

    The fake tokens are those that ``reference`` picked, scored by both; with the expectation in their place
    ``student`` has its divergence from the reference.
    """
    assert student.log_probs is not None and reference.log_probs is not None
    assert reference.picked is not None and reference.picked_log_probs is not None
    is_masked, per_state = batch["is_masked"], args.log_ratio == "state_sum"
    owner_M = batch["loss_state" if per_state else "loss_example"][is_masked]
    num_owners = batch["num_states"] if per_state else len(batch["sample_key"])

    def sequence(log_prob_M: Tensor) -> Tensor:
        reduction = "mean" if args.log_ratio == "mean" else "sum"
        return reduce_by_sample(log_prob_M[is_masked], owner_M, num_owners, reduction)

    if args.fake_source == "expectation":
        assert student.minus_kl is not None
        # E_{x0 ~ p_ref}[log p_theta(x0 | x_t) - log p_ref(x0 | x_t)] = -KL, of independent tokens the sum
        student_fake_N = sequence(student.minus_kl)
        reference_fake_N = torch.zeros_like(student_fake_N)
    else:
        student_fake_N = sequence(student.log_probs[1])
        reference_fake_N = sequence(reference.picked_log_probs)
    ddo = ddo_loss(
        student_real_N=sequence(student.log_probs[0]),
        reference_real_N=sequence(reference.log_probs[0]),
        student_fake_N=student_fake_N,
        reference_fake_N=reference_fake_N,
        beta=args.ddo_beta,
        alpha=args.ddo_alpha,
        num_samples=counts.num_states if per_state else counts.num_trajectories,
    )
    output = t3d_loss(ddo, _path(student, batch, counts, args), path_weight=args.path_weight)
    agrees = ((reference.picked == batch["labels"]) & is_masked).sum() / counts.num_tokens
    return ObjectiveOutput(loss=output.loss, metrics={**output.metrics, "reference/agreement": agrees})


def draft_objective(
    student: HeadScores, checked: HeadScores, batch: Mapping[str, Any], counts: BatchCounts, args: T3DConfig
) -> ObjectiveOutput:
    """The accepted prefix of drafts. ``student`` has scored the tokens that the base picked at its checks.

    The metrics are of the drafter's likeliest tokens: how many the base accepts, of how many that could be,
    and how many drafts whole.
    """
    assert student.log_probs is not None
    drafts = drafts_of(checked, batch)
    soft = {} if student.minus_kl is None else {"divergence_M": -student.minus_kl}
    output = prefix_acceptance_loss(
        student_real_M=student.log_probs[0],
        draft_M=batch["loss_state"],
        num_drafts=batch["num_states"],
        num_tokens=counts.num_tokens,
        first_error_weight=args.first_error_weight,
        is_counted_M=drafts.is_counted_M,
        is_given_M=drafts.is_given_M,
        **soft,
    )
    accepted_N, acceptable_N = accepted_of_acceptable(student, checked, drafts, batch)
    metrics = {
        "draft/accepted": accepted_N.sum() / counts.num_states,
        "draft/acceptable": acceptable_N.sum() / counts.num_states,
        "draft/whole": (accepted_N == acceptable_N).sum() / counts.num_states,
    }
    return ObjectiveOutput(loss=output.loss, metrics=output.metrics | metrics)


class Drafts(NamedTuple):
    """Which masked positions are part of a draft that the base could accept."""

    is_counted_M: Tensor
    """All tokens of the block's masks before it are the base's own: what the base says behind a token that
    is not is no part of a text that it would write."""
    is_given_M: Tensor
    """The first mask of a draft that rides with the check of the one before, whose draw is this token."""


def drafts_of(checked: HeadScores, batch: Mapping[str, Any]) -> Drafts:
    """From what the base picked at its checks."""
    assert checked.picked is not None
    draft_M, num_drafts = batch["loss_state"], batch["num_states"]
    is_own_M = (checked.picked == batch["labels"]).double()
    is_first_M = torch.ones_like(draft_M, dtype=torch.bool)
    is_first_M[1:] = draft_M[1:] != draft_M[:-1]
    return Drafts(
        is_counted_M=survival(is_own_M, draft_M, num_drafts) > 0,
        is_given_M=is_first_M if batch["rides"] else torch.zeros_like(is_first_M),
    )


def accepted_of_acceptable(
    student: HeadScores, checked: HeadScores, drafts: Drafts, batch: Mapping[str, Any]
) -> tuple[Tensor, Tensor]:
    """Of each draft of the drafter's likeliest tokens how many the base accepts, and the most it could."""
    assert student.picked is not None
    draft_M, num_drafts = batch["loss_state"], batch["num_states"]
    matches_M = ((student.picked == checked.picked) | drafts.is_given_M) & drafts.is_counted_M
    given_N = torch.bincount(draft_M[drafts.is_given_M], minlength=num_drafts)
    acceptable_N = torch.bincount(draft_M[drafts.is_counted_M], minlength=num_drafts)
    return accepted_per_draft(matches_M, draft_M, num_drafts) - given_N, acceptable_N - given_N


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
