"""Log-probabilities at loss positions and their reductions to samples.

M loss positions of a batch, N samples (trajectories), V vocabulary.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

Reduction = Literal["mean", "sum"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectiveOutput:
    """A scalar loss and the detached numbers worth logging, as 0-d tensors."""

    loss: Tensor
    metrics: dict[str, Tensor]


def token_log_probs(logits_MV: Float[Tensor, "M V"], token_M: Int[Tensor, "M"]) -> Float[Tensor, "M"]:
    """log p(token) at each position, by a log-sum-exp in float32 (float64 if the logits are)."""
    logits_MV = logits_MV if logits_MV.dtype == torch.float64 else logits_MV.float()
    chosen_M = logits_MV.gather(-1, token_M[:, None])[:, 0]
    return chosen_M - logits_MV.logsumexp(-1)


def sum_by_sample(
    value_M: Float[Tensor, "M"], sample_M: Int[Tensor, "M"], num_samples: int
) -> Float[Tensor, "N"]:
    """Sum the values of each sample's positions."""
    return value_M.new_zeros(num_samples).index_add(0, sample_M, value_M)


def reduce_by_sample(
    value_M: Float[Tensor, "M"], sample_M: Int[Tensor, "M"], num_samples: int, reduction: Reduction
) -> Float[Tensor, "N"]:
    """Sum or mean over each sample's positions; a sample without positions gives 0."""
    total_N = sum_by_sample(value_M, sample_M, num_samples)
    if reduction == "sum":
        return total_N
    count_N = torch.bincount(sample_M, minlength=num_samples).clamp(min=1)
    return total_N / count_N
