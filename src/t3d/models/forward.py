"""The one way to run a block-diffusion model: under an explicit boolean mask."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers.cache_utils import Cache


def block_forward(
    model: torch.nn.Module,
    input_ids_RQ: Int[Tensor, "R Q"],
    position_ids_RQ: Int[Tensor, "R Q"],
    attention_mask_RQN: Bool[Tensor, "R Q N"],
    *,
    logit_positions: Int[Tensor, "M"] | None = None,
    cache: Cache | None = None,
) -> Tensor:
    """Run a model under an explicit boolean mask.

    Returns logits ``[R, Q, V]``, or ``[M, V]`` at ``logit_positions``. With ``cache`` the keys are
    those the cache returns, in its order. The model needs SDPA attention (set by ``load_model``),
    which takes the boolean mask as it is.
    """
    return model(
        input_ids=input_ids_RQ,
        position_ids=position_ids_RQ,
        attention_mask={"full_attention": attention_mask_RQN[:, None]},
        past_key_values=cache,
        use_cache=cache is not None,
        **({} if logit_positions is None else {"logit_positions": logit_positions}),
    ).logits
