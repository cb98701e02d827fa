"""The decoding engine's attention: writes into slots and reads them in place (``ExtendPlan``).

R rows, H query heads, G key-value heads, Q queries, N keys, D head dimension.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from t3d.attention.slots import AttentionGroup, ExtendPlan


def slot_attention(
    module: torch.nn.Module,
    query_1HTD: Float[Tensor, "1 H T D"],
    key_1GTD: Float[Tensor, "1 G T D"],
    value_1GTD: Float[Tensor, "1 G T D"],
    attention_mask: Tensor,
    scaling: float,
    extend_plan: ExtendPlan,
    **unused: object,
) -> tuple[Float[Tensor, "1 T H D"], None]:
    """Write the keys and values of the plan's tokens into their slots, then attend by its groups.

    Tokens behind these are padding: they are not written, and what they attend to is zero. Heads that share
    keys are packed into the query axis, so keys are neither repeated nor joined.
    """
    del attention_mask, unused
    num_tokens = len(extend_plan.place_T)
    padded_THD = query_1HTD[0].transpose(0, 1)
    query_THD, key_TGD, value_TGD = (
        part[0, :, :num_tokens].transpose(0, 1) for part in (query_1HTD, key_1GTD, value_1GTD)
    )
    layer_index: Any = module.layer_idx
    keys, values = extend_plan.cache.layer(layer_index, key_TGD)
    keys.flatten(0, 1).index_copy_(0, extend_plan.place_T, key_TGD)
    values.flatten(0, 1).index_copy_(0, extend_plan.place_T, value_TGD)
    if len(extend_plan.groups) == 1 and num_tokens == len(padded_THD):
        return _attend(query_THD, keys, values, extend_plan.groups[0], scaling)[None], None
    mixed_THD = torch.empty_like(padded_THD)
    mixed_THD[num_tokens:] = 0
    for group in extend_plan.groups:
        mixed_THD[:num_tokens][group.tokens] = _attend(query_THD, keys, values, group, scaling)
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
