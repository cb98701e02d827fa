"""Certainty forcing (dParallel, arXiv 2509.26488): cross-entropy, less entropy where the student is right.

M loss positions of a batch, N noisy copies: each state of a response is one.
"""

from jaxtyping import Bool, Float, Int
from torch import Tensor

from t3d.objectives.logprobs import ObjectiveOutput, reduce_by_sample


def certainty_forcing_loss(
    *,
    student_real_M: Float[Tensor, "M"],
    entropy_M: Float[Tensor, "M"],
    is_correct_M: Bool[Tensor, "M"],
    copy_M: Int[Tensor, "M"],
    num_copies: int,
    entropy_weight: float,
    num_samples: float | Tensor,
) -> ObjectiveOutput:
    """Sum over noisy copies of CE + beta H, divided by ``num_samples``.

    CE is the mean of -log p(x0_i | x_t) over the copy's masked positions; H the mean of ``entropy_M`` over
    those of them where the student's likeliest token is the label (0 if there is none); beta is
    ``entropy_weight``. ``copy_M`` says which of the ``num_copies`` a position belongs to. ``num_samples``
    is the global number of responses of the accumulated batch: a response in two complementary states
    adds CE + CE' + beta (H + H').
    """
    ce_N = -reduce_by_sample(student_real_M, copy_M, num_copies, "mean")
    correct_M, correct_copy_M = entropy_M[is_correct_M], copy_M[is_correct_M]
    entropy_N = reduce_by_sample(correct_M, correct_copy_M, num_copies, "mean")
    cross_entropy, entropy = ce_N.sum() / num_samples, entropy_N.sum() / num_samples
    loss = cross_entropy + entropy_weight * entropy
    metrics = {"loss/cross_entropy": cross_entropy.detach(), "loss/entropy": entropy.detach()}
    return ObjectiveOutput(loss=loss, metrics=metrics)
