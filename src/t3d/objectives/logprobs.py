"""Reductions of log-probabilities at loss positions to samples.

M loss positions of a batch, N samples (trajectories).
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
