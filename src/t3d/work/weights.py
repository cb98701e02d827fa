"""Weights of a model that may be sharded: this process's part, and whether all are numbers."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

if torch.distributed.is_available():
    from torch.distributed.tensor import DTensor


def is_sharded(tensor: Tensor) -> bool:
    """Whether processes hold a part of it each."""
    return torch.distributed.is_available() and isinstance(tensor, DTensor)


def local_part(tensor: Any) -> Tensor:
    """This process's shard, or the tensor if it is not sharded."""
    return tensor.to_local() if is_sharded(tensor) else tensor


@torch.no_grad()
def first_not_finite(weights: Iterable[tuple[str, Tensor]]) -> str | None:
    """Name of the first weight with a NaN or an infinity in this process's part; None without any.

    Reads each weight once and allocates nothing of its size: the largest absolute value of a tensor
    with a NaN is NaN.
    """
    for name, weight in weights:
        part = local_part(weight)
        if (
            part.is_floating_point()
            and part.numel()
            and not torch.linalg.vector_norm(part, ord=float("inf")).isfinite()
        ):
            return name
    return None
