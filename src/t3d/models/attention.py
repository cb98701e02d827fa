"""Attention functions registered with transformers, by name.

R rows, H query heads, G key-value heads, Q queries, N keys, D head dimension.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import AttentionInterface

GROUPED_MATMUL = "grouped_matmul"
"""Two plain matrix products: on a CPU its backward is faster than SDPA's (docs/LOG.md, 2026-11-24)."""


def grouped_matmul_attention(
    module: torch.nn.Module,
    query_RHQD: Float[Tensor, "R H Q D"],
    key_RGND: Float[Tensor, "R G N D"],
    value_RGND: Float[Tensor, "R G N D"],
    attention_mask: Bool[Tensor, "R 1 Q N"],
    scaling: float,
    **unused: object,
) -> tuple[Tensor, None]:
    """Softmax attention under a boolean mask; heads that share keys go through one product.

    Returns ``[R, Q, H, D]``, as transformers expects, and no attention weights.
    """
    del module, unused
    rows, num_heads, num_queries, head_dim = query_RHQD.shape
    num_groups, num_keys = key_RGND.shape[1:3]
    packed = (query_RHQD * scaling).reshape(rows, num_groups, -1, head_dim)
    score = (packed @ key_RGND.transpose(-1, -2)).view(rows, num_heads, num_queries, num_keys)
    score = score.float() if score.dtype != torch.float64 else score
    weight = score.masked_fill(~attention_mask, -torch.inf).softmax(-1).to(value_RGND.dtype)
    mixed = weight.view(rows, num_groups, -1, num_keys) @ value_RGND
    return mixed.view(rows, num_heads, num_queries, head_dim).transpose(1, 2), None


AttentionInterface.register(GROUPED_MATMUL, grouped_matmul_attention)
