"""The two ways to run a block-diffusion model: under an explicit mask, or extending slots."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from t3d.attention.slot_attention import slot_attention
from t3d.attention.slots import ExtendPlan

NO_MASK = torch.empty(0, 0, 0, 0)
"""For attention that needs none: transformers leaves a mask of four axes as it is, and makes none itself."""


def block_forward(
    model: torch.nn.Module,
    input_ids_RQ: Int[Tensor, "R Q"],
    position_ids_RQ: Int[Tensor, "R Q"],
    attention_mask_RQN: Bool[Tensor, "R Q N"],
    *,
    logit_positions: Int[Tensor, "M"] | None = None,
    gated_positions: Int[Tensor, "G"] | None = None,
) -> Tensor:
    """Run a model under an explicit boolean mask.

    Returns logits ``[R, Q, V]``, or ``[M, V]`` at ``logit_positions``. What is attached to the model acts on
    the tokens at ``gated_positions`` of the flattened ids.
    """
    further = {"logit_positions": logit_positions, "gated_positions": gated_positions}
    return model(
        input_ids=input_ids_RQ,
        position_ids=position_ids_RQ,
        attention_mask=attention_mask_RQN[:, None],  # transformers leaves a mask of four axes as it is
        attention=sdpa_attention_forward,
        use_cache=False,
        **{name: positions for name, positions in further.items() if positions is not None},
    ).logits


def extend_forward(
    model: PreTrainedModel,
    input_ids_T: Int[Tensor, "T"],
    position_ids_T: Int[Tensor, "T"],
    plan: ExtendPlan,
    *,
    logit_positions: Int[Tensor, "M"],
    gated_positions: Int[Tensor, "G"] | None = None,
) -> Float[Tensor, "M V"]:
    """Write the tokens of several sequences, side by side on one axis, into their slots.

    Tokens behind those of the plan are padding, which is not written. Returns logits at ``logit_positions``
    of that axis; what is attached acts at ``gated_positions`` of it.
    Each token attends as ``plan`` says. Nothing of the model is set: forwards of several threads do not meet.
    """
    return model(
        input_ids=input_ids_T[None],
        position_ids=position_ids_T[None],
        attention_mask=NO_MASK,
        attention=slot_attention,
        extend_plan=plan,
        use_cache=False,
        logit_positions=logit_positions,
        **({} if gated_positions is None else {"gated_positions": gated_positions}),
    ).logits
