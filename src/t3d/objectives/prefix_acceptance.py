"""Losses of a drafter: what counts is how long a prefix of its draft the base accepts.

A draft proposes several tokens at once; the base accepts those before its first disagreement and no other
(self-speculative decoding). After "Teaching Diffusion to Speculate Left-to-Right" (arXiv 2606.11552), whose
abstract names weights by position and a focal term on the first error; the formulas are ours
(docs/deviations.md#prefix-acceptance).

M drafted positions, those of one draft next to each other from left to right; N drafts; W positions of the
longest.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from t3d.objectives.logprobs import ObjectiveOutput, sum_by_sample


def survival(accepts_M: Float[Tensor, "M"], draft_M: Int[Tensor, "M"], num_drafts: int) -> Float[Tensor, "M"]:
    """Probability that all earlier positions of the draft are accepted: the product of their ``accepts_M``.

    1 at a draft's first position. ``draft_M`` says which draft a position belongs to.
    """
    if not len(accepts_M):
        return accepts_M.clone()
    count_N = torch.bincount(draft_M, minlength=num_drafts)
    first_N = count_N.cumsum(0) - count_N
    offset_M = torch.arange(len(draft_M), device=draft_M.device) - first_N[draft_M]
    before_NW = accepts_M.new_ones(num_drafts, int(count_N.max()) + 1)
    before_NW[draft_M, offset_M + 1] = accepts_M
    return before_NW.cumprod(1)[draft_M, offset_M]


def accepted_per_draft(
    matches_M: Bool[Tensor, "M"], draft_M: Int[Tensor, "M"], num_drafts: int
) -> Float[Tensor, "N"]:
    """Length of each draft's longest prefix of matching positions."""
    matches = matches_M.double()
    return sum_by_sample(survival(matches, draft_M, num_drafts) * matches, draft_M, num_drafts)


def prefix_acceptance_loss(
    *,
    student_real_M: Float[Tensor, "M"],
    draft_M: Int[Tensor, "M"],
    num_drafts: int,
    num_tokens: float | Tensor,
    first_error_weight: float = 0.0,
    divergence_M: Float[Tensor, "M"] | None = None,
    is_counted_M: Bool[Tensor, "M"] | None = None,
    is_given_M: Bool[Tensor, "M"] | None = None,
) -> ObjectiveOutput:
    """sum_j S_j (1 + c (1 - p_j)) D_j over all drafts, divided by a global number of drafted tokens.

    p_j is the student's probability of the base's token at the draft's j-th position
    (``student_real_M`` is its log); S_j = prod_{i < j} p_i the probability that a draft sampled from the
    student gets so far, since it is accepted where it is the base's token; S_j (1 - p_j) the probability
    that its first error is here, which the coefficient c, ``first_error_weight``, weighs once more. D_j is
    the cross-entropy -log p_j, or ``divergence_M``: one from the base's distribution, for soft targets.
    Neither S nor 1 - p has a gradient: a position is not taught to fail so that later ones weigh less.

    Where everything is surely accepted this is the plain mean of D; where a draft's first position is
    surely wrong only that one counts, (1 + c) D_1. ``is_counted_M`` leaves positions out: they weigh
    nothing, and must be a suffix of their draft. Of ``is_given_M`` the tokens come from elsewhere, p_j = 1:
    they weigh nothing, and those behind them as if they were accepted.
    """
    accepts_M = student_real_M.detach().exp()
    if is_given_M is not None:
        accepts_M = accepts_M.masked_fill(is_given_M, 1.0)
    weight_M = survival(accepts_M, draft_M, num_drafts)
    if is_counted_M is not None:
        weight_M = weight_M * is_counted_M
    if is_given_M is not None:
        weight_M = weight_M * ~is_given_M
    distance_M = -student_real_M if divergence_M is None else divergence_M
    prefix = (weight_M * distance_M).sum() / num_tokens
    first_error = first_error_weight * (weight_M * (1 - accepts_M) * distance_M).sum() / num_tokens
    metrics = {"loss/prefix": prefix.detach(), "loss/first_error": first_error.detach()}
    return ObjectiveOutput(loss=prefix + first_error, metrics=metrics)
