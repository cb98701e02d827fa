"""A forward over packed ``[clean | noisy]`` documents, with the attention that suits the device."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from t3d.attention.document_plan import plan_documents
from t3d.attention.documents import document_attention
from t3d.attention.flex import packed_block_mask
from t3d.attention.forward import NO_MASK
from t3d.attention.masks import BlockOrder, training_mask

PackedAttention = Literal["auto", "dense", "documents", "flex"]
"""``dense``: SDPA under the whole boolean mask. ``documents``: matrix products per document (CPU).
``flex``: FlexAttention under a block mask (CUDA). ``auto``: the last two, by device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrangement:
    """How a batch's attention runs: made once, used by all forwards over the batch."""

    arguments: Mapping[str, Any]
    """Of the model's forward: the function that is its ``attention``, and what that function needs.

    The layers keep them, so that a backward that runs layers again (gradient checkpointing) has them too.
    """


def resolve_attention(attention: PackedAttention, device: torch.device) -> PackedAttention:
    """What ``auto`` means on a device."""
    if attention != "auto":
        return attention
    return "flex" if device.type == "cuda" else "documents"


def arrange(batch: Mapping[str, Any], attention: PackedAttention = "auto") -> Arrangement:
    """Prepare the attention of a batch of :func:`t3d.training.packing.pack_copies`."""
    document_RT, block_RT, is_noisy_RT = batch["document_ids"], batch["block_ids"], batch["is_noisy"]
    order = BlockOrder(batch["place"], batch["reads"]) if "place" in batch else None
    attention = resolve_attention(attention, document_RT.device)
    arguments: dict[str, Any]
    if attention == "documents":
        plan = plan_documents(batch["documents"], document_RT, block_RT, batch["block_size"], order)
        arguments = {
            "attention": document_attention,
            "attention_mask": NO_MASK,
            "document_plan": plan,
        }
    elif attention == "flex":
        mask = packed_block_mask(document_RT, block_RT, is_noisy_RT, order)
        arguments = {"attention": flex_attention_forward, "attention_mask": mask}
    else:
        mask = training_mask(document_RT, block_RT, is_noisy_RT, order)[:, None]
        arguments = {"attention": sdpa_attention_forward, "attention_mask": mask}
    return Arrangement(arguments=arguments)


def packed_forward(model: nn.Module, batch: Mapping[str, Any], arrangement: Arrangement, **head: Any) -> Any:
    """Run a model over a packed batch; ``head`` are arguments of the model's own head.

    With ``loss_positions`` it returns :class:`~t3d.models.head.HeadScores`, else the model's usual output.
    """
    return model(
        input_ids=batch["input_ids"],
        position_ids=batch["position_ids"],
        use_cache=False,
        **arrangement.arguments,
        **head,
    )
