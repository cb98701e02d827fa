"""The noisy tokens of a packed batch alone, behind clean keys and values that are constants.

For weights that act at noisy tokens only: a clean token never sees a noisy one, so a forward of the base
without gradients gives its keys and values, and the forward with gradients runs half of the tokens. Shape
letters as in :mod:`t3d.attention.documents`.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from t3d.attention.clean_keys import CleanKeys
from t3d.attention.document_plan import DocumentGroup, DocumentPlan
from t3d.attention.documents import by_document
from t3d.attention.packed_forward import Arrangement

_POSITIONS = ("loss_positions", "gated_positions")
"""Keys of a batch: indices into its flattened tokens, all of them noisy."""


@torch.no_grad()
def noisy_alone(
    base: PreTrainedModel, batch: Mapping[str, Any], arrangement: Arrangement
) -> tuple[Mapping[str, Any], Arrangement]:
    """What :func:`~t3d.attention.packed_forward.packed_forward` needs to run a batch's noisy tokens only.

    The batch has the tokens, their positions, and which of them take loss and are gated. The base runs the
    clean ones here. Other attention than ``documents``, and a batch without a clean token, stay as they are.
    """
    plan: DocumentPlan | None = arrangement.arguments.get("document_plan")
    is_noisy_T = batch["is_noisy"].flatten()
    is_clean_T = ~is_noisy_T & (batch["document_ids"].flatten() >= 0)
    if plan is None or not is_clean_T.any():
        return batch, arrangement
    clean_plan, clean_t = _part(plan, is_clean_T, noisy=False)
    noisy_plan, noisy_t = _part(plan, is_noisy_T, noisy=True)
    clean_keys: dict[int, tuple[CleanKeys, ...]] = {}
    arguments = {**arrangement.arguments, "clean_keys": clean_keys}
    clean = arguments | {"attention": _keep, "document_plan": clean_plan}
    base.base_model(**_tokens(batch, clean_t), use_cache=False, **clean)
    place_T = torch.full_like(is_noisy_T, -1, dtype=torch.int64)
    place_T[noisy_t] = torch.arange(len(noisy_t), device=noisy_t.device)
    positions = {name: place_T[batch[name]] for name in _POSITIONS}
    noisy = Arrangement(arguments=arguments | {"document_plan": noisy_plan})
    return _tokens(batch, noisy_t) | positions, noisy


def _tokens(batch: Mapping[str, Any], token_t: Int[Tensor, "t"]) -> dict[str, Tensor]:
    """One row of these tokens."""
    return {name: batch[name].flatten()[token_t][None] for name in ("input_ids", "position_ids")}


def _part(
    plan: DocumentPlan, is_part_T: Bool[Tensor, "T"], *, noisy: bool
) -> tuple[DocumentPlan, Int[Tensor, "t"]]:
    """The plan of a forward over the clean tokens, or over the noisy ones, and which tokens it runs.

    They lie as the groups' queries do, so that a group without padding is read in place.
    """
    every_T = torch.arange(len(is_part_T), device=is_part_T.device)
    place_T = every_T if plan.place_T is None else plan.place_T
    token_t = is_part_T.nonzero()[:, 0]
    token_t = token_t[place_T[token_t].argsort()]
    within_T = torch.zeros_like(every_T)
    within_T[token_t] = every_T[: len(token_t)]
    groups, is_query = [], []
    for group in plan.groups:
        token_DQ = every_T[group.tokens] if isinstance(group.tokens, slice) else group.tokens
        token_DQ = token_DQ.view(group.num_documents, -1)
        columns = slice(group.num_clean, None) if noisy else slice(group.num_clean)
        is_query.append(torch.zeros_like(token_DQ, dtype=torch.bool))
        is_query[-1][:, columns] = True
        part = {"tokens": _in_place(within_T[token_DQ[:, columns]].flatten())}
        part["hides_clean"] = group.hides_clean[..., columns, :]
        if noisy:
            part["first_noisy"] = 0
        else:
            part |= {"num_noisy": 0, "hides_own": group.hides_own[:, :, :0]}
        groups.append(replace(group, **part))
    rank = torch.cat([chosen.flatten() for chosen in is_query]).cumsum(0) - 1
    has_padding = rank[-1] + 1 > len(token_t)
    return DocumentPlan(
        groups=tuple(groups), place_T=rank[place_T[token_t]] if has_padding else None
    ), token_t


def _in_place(tokens: Int[Tensor, "N"]) -> slice | Int[Tensor, "N"]:
    """As a slice if they are consecutive."""
    first = int(tokens[0]) if len(tokens) else 0
    consecutive = torch.arange(first, first + len(tokens), device=tokens.device)
    return slice(first, first + len(tokens)) if torch.equal(tokens, consecutive) else tokens


def _keep(
    module: torch.nn.Module,
    query_RHTd: Float[Tensor, "R H T d"],
    key_RGTd: Float[Tensor, "R G T d"],
    value_RGTd: Float[Tensor, "R G T d"],
    attention_mask: Tensor,
    scaling: float,
    document_plan: DocumentPlan,
    clean_keys: dict[int, tuple[CleanKeys, ...]],
    **unused: object,
) -> tuple[Float[Tensor, "R T H d"], None]:
    """Attention of clean tokens, of which each layer's keys and values are kept as products read them."""
    del attention_mask, unused
    layer: Any = module
    parts = (query_RHTd * scaling, key_RGTd, value_RGTd)
    flat = [part.to(value_RGTd.dtype).transpose(1, 2).flatten(0, 1) for part in parts]
    mixed, kept = [], []
    for group in document_plan.groups:
        query, key, value = (by_document(part, group).transpose(1, 2).contiguous() for part in flat)
        mixed.append(_attend(query, key, value, group))
        kept.append((key, value))
    clean_keys[layer.layer_idx] = tuple(kept)
    mixed_THd = torch.cat(mixed)
    if document_plan.place_T is not None:
        mixed_THd = mixed_THd.index_select(0, document_plan.place_T)
    return mixed_THd[None], None


def _attend(
    query: Float[Tensor, "D H C d"],
    key: Float[Tensor, "D G C d"],
    value: Float[Tensor, "D G C d"],
    group: DocumentGroup,
) -> Float[Tensor, "DC H d"]:
    """Attention of a group's clean tokens; of padding, which sees nothing and which nobody reads, NaN."""
    grouped = query.unflatten(1, (key.shape[1], -1)).flatten(2, 3)
    scores = (grouped @ key.transpose(-1, -2)).unflatten(2, (query.shape[1] // key.shape[1], -1))
    scores = scores if scores.dtype == torch.float64 else scores.float()
    weights = scores.add_(group.hides_clean).softmax(-1).to(value.dtype)
    mixed = weights.flatten(2, 3) @ value
    return mixed.view(query.shape).transpose(1, 2).flatten(0, 1)
