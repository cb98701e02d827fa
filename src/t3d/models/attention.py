"""Attention functions registered with transformers, by name.

R rows, H query heads, G key-value heads, Q queries, N keys, D head dimension.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from t3d.models.slots import AttentionGroup, ExtendPlan

SLOTS = "t3d_slots"
"""Attention of the decoding engine: writes into slots and reads them in place (``ExtendPlan``)."""
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


def slot_attention(
    module: torch.nn.Module,
    query_1HTD: Float[Tensor, "1 H T D"],
    key_1GTD: Float[Tensor, "1 G T D"],
    value_1GTD: Float[Tensor, "1 G T D"],
    attention_mask: None,
    scaling: float,
    extend_plan: ExtendPlan,
    **unused: object,
) -> tuple[Float[Tensor, "1 T H D"], None]:
    """Write the keys and values of T tokens into their slots, then attend by the plan's groups.

    Heads that share keys are packed into the query axis, so keys are neither repeated nor joined.
    """
    del attention_mask, unused
    query_THD, key_TGD = query_1HTD[0].transpose(0, 1), key_1GTD[0].transpose(0, 1)
    layer_index: Any = module.layer_idx
    keys, values = extend_plan.cache.layer(layer_index, key_TGD)
    keys.flatten(0, 1).index_copy_(0, extend_plan.place_T, key_TGD)
    values.flatten(0, 1).index_copy_(0, extend_plan.place_T, value_1GTD[0].transpose(0, 1))
    if len(extend_plan.groups) == 1:
        return _attend(query_THD, keys, values, extend_plan.groups[0], scaling)[None], None
    mixed_THD = torch.empty_like(query_THD)
    for group in extend_plan.groups:
        mixed_THD[group.tokens] = _attend(query_THD, keys, values, group, scaling)
    return mixed_THD[None], None


def _attend(
    query_THD: Tensor, keys: Tensor, values: Tensor, group: AttentionGroup, scaling: float
) -> Float[Tensor, "t H D"]:
    """Attention of one group's tokens, row by row."""
    num_heads, head_dim = query_THD.shape[1:]
    num_shared = num_heads // keys.shape[2]
    picked = query_THD if group.token_RQ is None else query_THD[group.token_RQ.flatten()]
    query_RQGgD = picked.reshape(group.num_rows, -1, keys.shape[2], num_shared, head_dim)
    packed_RGPD = query_RQGgD.permute(0, 2, 3, 1, 4).flatten(2, 3)
    key_RGND = keys[group.slots, : group.num_keys].transpose(1, 2)
    value_RGND = values[group.slots, : group.num_keys].transpose(1, 2)
    mixed_RGPD = scaled_dot_product_attention(
        packed_RGPD, key_RGND, value_RGND, attn_mask=group.bias_RQN, scale=scaling
    )
    mixed_RQHD = mixed_RGPD.unflatten(2, (num_shared, -1)).permute(0, 3, 1, 2, 4)
    mixed = mixed_RQHD.reshape(-1, num_heads, head_dim)
    return mixed if group.padded_T is None else mixed[group.padded_T]


AttentionInterface.register(GROUPED_MATMUL, grouped_matmul_attention)
AttentionInterface.register(SLOTS, slot_attention)
