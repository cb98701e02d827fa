"""A forward over packed ``[clean | noisy]`` documents, with the attention that suits the device."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn
from transformers import PreTrainedModel

from t3d.attention.documents import DOCUMENTS, plan_documents
from t3d.attention.flex import packed_block_mask
from t3d.attention.masks import training_mask

PackedAttention = Literal["auto", "dense", "documents", "flex"]
"""``dense``: SDPA under the whole boolean mask. ``documents``: matrix products per document (CPU).
``flex``: FlexAttention under a block mask (CUDA). ``auto``: the last two, by device."""
_REGISTERED = {"dense": "sdpa", "documents": DOCUMENTS, "flex": "flex_attention"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrangement:
    """How a batch's attention runs: made once, used by all forwards over the batch."""

    attention: PackedAttention
    arguments: Mapping[str, Any] = field(default_factory=dict)


def resolve_attention(attention: PackedAttention, device: torch.device) -> PackedAttention:
    """What ``auto`` means on a device."""
    if attention != "auto":
        return attention
    return "flex" if device.type == "cuda" else "documents"


def arrange(batch: Mapping[str, Any], attention: PackedAttention = "auto") -> Arrangement:
    """Prepare the attention of a batch of :func:`t3d.training.packing.pack_copies`."""
    document_RT, block_RT, is_noisy_RT = batch["document_ids"], batch["block_ids"], batch["is_noisy"]
    attention = resolve_attention(attention, document_RT.device)
    arguments: dict[str, Any]
    if attention == "documents":
        plan = plan_documents(batch["documents"], document_RT, block_RT, batch["block_size"])
        arguments = {"document_plan": plan}
    elif attention == "flex":
        arguments = {"attention_mask": packed_block_mask(document_RT, block_RT, is_noisy_RT)}
    else:
        arguments = {"attention_mask": training_mask(document_RT, block_RT, is_noisy_RT)[:, None]}
    return Arrangement(attention=attention, arguments=arguments)


@contextmanager
def attention_of(model: nn.Module, attention: PackedAttention) -> Generator[None]:
    """Use this attention inside; the backward of a forward belongs inside too.

    With gradient checkpointing the backward runs layers again.
    """
    config: Any = next(part for part in model.modules() if isinstance(part, PreTrainedModel)).config
    before = config._attn_implementation
    config._attn_implementation = _REGISTERED[attention]
    try:
        yield
    finally:
        config._attn_implementation = before


def packed_forward(model: nn.Module, batch: Mapping[str, Any], arrangement: Arrangement, **head: Any) -> Any:
    """Run a model over a packed batch; ``head`` are arguments of the model's own head.

    With ``loss_positions`` it returns :class:`~t3d.models.head.HeadScores`, else the model's usual output.
    """
    with attention_of(model, arrangement.attention):
        return model(
            input_ids=batch["input_ids"],
            position_ids=batch["position_ids"],
            use_cache=False,
            **arrangement.arguments,
            **head,
        )
