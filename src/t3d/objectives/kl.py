"""Soft targets: the divergence of a student from another distribution over the same tokens.

M positions, V entries of a distribution (the vocabulary, or some tokens and the rest as one bucket).
Every distribution is of log-probabilities; one of minus infinity is an entry that cannot occur.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from t3d.objectives.cross_entropy import cross_entropy_loss
from t3d.objectives.logprobs import ObjectiveOutput

Direction = Literal["forward", "reverse"]
"""``forward``: KL(target || student), which covers all that the target may say; ``reverse``: KL(student ||
target), which seeks one mode of it."""


def kl_divergence(
    target_MV: Float[Tensor, "M V"], student_MV: Float[Tensor, "M V"], direction: Direction = "forward"
) -> Float[Tensor, "M"]:
    """sum_v p(v) (log p(v) - log q(v)) in nats, differentiable through both arguments.

    Forward: p is the target, q the student; reverse: the other way round. An entry with p(v) = 0 adds
    nothing, whatever q(v) is.
    """
    of, against = (target_MV, student_MV) if direction == "forward" else (student_MV, target_MV)
    occurs_MV = of > -torch.inf
    # Both are replaced where p(v) = 0: inf - inf there would be NaN, and backwards too.
    of, against = of.masked_fill(~occurs_MV, 0.0), against.masked_fill(~occurs_MV, 0.0)
    return (of.exp() * (of - against)).masked_fill(~occurs_MV, 0.0).sum(-1)


def keep_top_k(
    target_MV: Float[Tensor, "M V"], student_MV: Float[Tensor, "M V"], top_k: int
) -> tuple[Float[Tensor, "M n"], Float[Tensor, "M n"]]:
    """Both distributions over the target's ``top_k`` likeliest tokens, and the rest as one bucket.

    The divergence of the buckets is at most that of the whole (data processing), and equal to it where
    student and target agree on how the rest is shared out.
    """
    ids_Mk = target_MV.topk(top_k, dim=-1).indices
    return with_rest(target_MV.gather(-1, ids_Mk)), with_rest(student_MV.gather(-1, ids_Mk))


def with_rest(log_prob_Mk: Float[Tensor, "M k"]) -> Float[Tensor, "M k+1"]:
    """Log-probabilities of some tokens, and at the end of all others: log(1 - sum).

    For targets of which only some tokens are kept. Where the sum reaches one the rest counts as the
    smallest number above zero, without a gradient.
    """
    left_M = -torch.expm1(log_prob_Mk.logsumexp(-1))  # 1 - sum, exact where the sum is small
    rest_M = left_M.clamp(min=torch.finfo(left_M.dtype).tiny).log()
    return torch.cat([log_prob_Mk, rest_M[..., None]], -1)


def kl_loss(
    *,
    target_MV: Float[Tensor, "M V"],
    student_MV: Float[Tensor, "M V"],
    num_tokens: float | Tensor,
    direction: Direction = "forward",
    top_k: int | None = None,
    weight_M: Float[Tensor, "M"] | None = None,
) -> ObjectiveOutput:
    """Sum over positions of w KL, divided by a global number of tokens; without weights w = 1.

    The target has no gradient. ``top_k``: over the target's likeliest tokens and one bucket for the rest.
    Forward, it is the cross-entropy under the target less the target's entropy, which is a constant.
    """
    target_MV = target_MV.detach()
    if top_k is not None:
        target_MV, student_MV = keep_top_k(target_MV, student_MV, top_k)
    divergence_M = kl_divergence(target_MV, student_MV, direction)
    loss = (divergence_M if weight_M is None else weight_M * divergence_M).sum() / num_tokens
    return ObjectiveOutput(loss=loss, metrics={"loss/kl": loss.detach()})


def soft_cross_entropy_loss(
    *,
    student_real_M: Float[Tensor, "M"],
    divergence_M: Float[Tensor, "M"],
    is_soft_M: Bool[Tensor, "M"],
    soft_target_weight: float,
    num_tokens: float | Tensor,
    weight_M: Float[Tensor, "M"] | None = None,
) -> ObjectiveOutput:
    """The cross-entropy, of which the divergence takes a share where there is a soft target.

    sum_i w_i ((1 - s_i) (- log p(x0_i | x_t)) + s_i KL_i), divided by a global number of tokens, where s_i is
    ``soft_target_weight`` at soft positions and 0 elsewhere; without weights w = 1. ``loss/cross_entropy`` is
    that of all positions, as without soft targets; ``loss/soft_targets`` is w KL of the soft ones.
    """
    is_soft_M = is_soft_M.to(student_real_M.dtype)
    weight_M = torch.ones_like(student_real_M) if weight_M is None else weight_M
    share_M = soft_target_weight * is_soft_M
    loss_M = (share_M - 1) * student_real_M + share_M * divergence_M
    soft = (weight_M * is_soft_M * divergence_M).sum() / num_tokens
    hard = cross_entropy_loss(student_real_M=student_real_M, num_tokens=num_tokens, weight_M=weight_M)
    metrics = {**hard.metrics, "loss/soft_targets": soft.detach()}
    return ObjectiveOutput(loss=(weight_M * loss_M).sum() / num_tokens, metrics=metrics)
