"""Attention to the clean keys of a group of documents, with the sums that join it with other keys'.

On a CPU it is PyTorch's fused kernel, which never holds all scores at once; elsewhere plain products. Both
ways take part of a softmax: what a caller adds for other keys enters backwards by its ``total``. Shape
letters as in :mod:`t3d.attention.documents`.
"""

import torch
from jaxtyping import Float
from torch import Tensor

CleanKeys = tuple[Float[Tensor, "_ G _ d"], Float[Tensor, "_ G _ d"]]
"""The clean copy's keys and values of a group of documents, D G C d; groups differ in D and C."""
Gradients = tuple[Float[Tensor, "D G g Q d"], Float[Tensor, "D G C d"], Float[Tensor, "D G C d"]]
"""Of queries, keys and values."""

_WIDE_UP_TO = 256
"""Clean keys up to which the fused kernel's backward is faster in float32 than in bfloat16, whose small
products it makes one by one (with AMX: 12 times for 38 keys, 3 to 5 for 76, 1.3 for 256; docs/LOG.md)."""


def attend_clean(
    query: Float[Tensor, "D G g Q d"], clean: CleanKeys, hides: Float[Tensor, "D 1 1 Q C"]
) -> tuple[Float[Tensor, "D G g Q d"], Float[Tensor, "D G g Q"]]:
    """The values mixed by a softmax over the clean keys, and the log of each query's sum of exponentials.

    A query to which ``hides`` (minus infinity, else 0; queries are scaled already) leaves nothing has zeros
    and minus infinity. The sums are of float32, or float64 where the keys are.
    """
    key, value = clean
    if not key.shape[2]:
        sums = torch.full(query.shape[:-1], -torch.inf, dtype=_wide(query.dtype), device=query.device)
        return torch.zeros_like(query), sums
    if has_fused_kernel(query.device):
        assert key.stride(-1) == value.stride(-1) == 1, "the kernel takes no others, and does not say so"
        mixed, total = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query.flatten(1, 2), key, value, attn_mask=_bias(hides, query), scale=1.0
        )
        # A query that sees nothing has a sum of 1 here.
        total = total.view(query.shape[:-1]) + hides.amax(-1)
        return mixed.view(query.shape), total
    scores = _scores(query, key, hides)
    total = scores.logsumexp(-1)
    weights = scores.sub_(_finite(total)[..., None]).exp_()
    return _heads_apart(weights.to(value.dtype).flatten(2, 3) @ value, query), total


def attend_clean_backward(
    grad: Float[Tensor, "D G g Q d"],
    query: Float[Tensor, "D G g Q d"],
    clean: CleanKeys,
    hides: Float[Tensor, "D 1 1 Q C"],
    mixed: Float[Tensor, "D G g Q d"],
    total: Float[Tensor, "D G g Q"],
) -> Gradients:
    """The gradients by the clean keys' part of a softmax over these and others.

    ``mixed`` and ``total``: of that whole softmax, finite everywhere; ``grad``: of ``mixed``.
    """
    key, value = clean
    if not key.shape[2]:
        return torch.zeros_like(query), torch.zeros_like(key), torch.zeros_like(value)
    if has_fused_kernel(query.device):
        if query.dtype.itemsize < 4 and key.shape[2] <= _WIDE_UP_TO:
            wide = [part.float() for part in (grad, query, key, value, mixed)]
            grads = attend_clean_backward(*wide[:2], (wide[2], wide[3]), hides, wide[4], total)
            return grads[0].to(query.dtype), grads[1].to(key.dtype), grads[2].to(value.dtype)
        flat = [part.flatten(1, 2) for part in (grad, query, mixed, total)]
        grads = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            *flat[:2], key, value, *flat[2:], 0.0, False, attn_mask=_bias(hides, query), scale=1.0
        )
        return grads[0].view(query.shape), grads[1], grads[2]
    weights = _scores(query, key, hides).sub_(total[..., None]).exp_()
    flat_grad, flat_query = grad.flatten(2, 3), query.flatten(2, 3)
    grad_value = weights.to(value.dtype).flatten(2, 3).transpose(-1, -2) @ flat_grad
    delta = (grad * mixed).to(total.dtype).sum(-1, keepdim=True)  # sum of weight x its gradient
    to_weights = _heads_apart(flat_grad @ value.transpose(-1, -2), query)
    narrow = weights.mul_(to_weights - delta).to(key.dtype).flatten(2, 3)
    return _heads_apart(narrow @ key, query), narrow.transpose(-1, -2) @ flat_query, grad_value


def has_fused_kernel(device: torch.device) -> bool:
    """Whether PyTorch has one that returns the sums."""
    return device.type == "cpu"


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _bias(hides: Tensor, query: Tensor) -> Float[Tensor, "D 1 Q C"]:
    """Float64 queries under a float32 mask give wrong numbers in PyTorch's kernel, without an error."""
    return hides[:, 0].to(_wide(query.dtype))


def _finite(total: Tensor) -> Tensor:
    return total.masked_fill(total == -torch.inf, 0.0)


def _heads_apart(values: Float[Tensor, "D G gQ x"], query: Tensor) -> Float[Tensor, "D G g Q x"]:
    return values.unflatten(2, query.shape[2:4])


def _scores(query: Tensor, key: Tensor, hides: Tensor) -> Float[Tensor, "D G g Q C"]:
    scores = _heads_apart(query.flatten(2, 3) @ key.transpose(-1, -2), query)
    return scores.to(_wide(query.dtype)).add_(hides)
