"""Attention of packed ``[clean | noisy]`` documents by plain matrix products, a few documents per call.

What the mask forbids for whole regions is not computed: other documents, and the noisy copy beyond a
query's own block. On a CPU this is faster forwards and backwards than SDPA under the dense mask
(docs/LOG.md). Clean keys and values may be constants of a forward before (two_passes.py). D documents of a
group, H query heads, G key-value heads, g = H / G, C clean tokens, N noisy tokens, Q queries (C + N, or one
of them), K noisy blocks, S block size, d head dimension, T tokens of the forward.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from t3d.attention.masks import BlockOrder

_PADDING_SHARE = 0.15
"""Documents share a call while padding them to the longest adds at most this share of tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentGroup:
    """Documents whose attention runs as one call, padded to the longest copies among them."""

    num_documents: int
    num_clean: int
    num_noisy: int
    block_size: int
    first_noisy: int
    """Queries that are clean: all of the clean copy, or 0 where an earlier forward ran it."""
    tokens: slice | Int[Tensor, "DQ"]
    """The queries among the forward's tokens, document by document; padding repeats some token."""
    hidden_clean: Bool[Tensor, "D 1 1 Q C"]
    """Which clean keys a query may not see."""
    hidden_own: Bool[Tensor, "D 1 K 1 s S"]
    """Which keys of a noisy block its queries may not see: padding (s = 1, the same for all queries), and
    what the block's order hides (s = S)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentPlan:
    """What the attention of one packed batch needs to know."""

    groups: tuple[DocumentGroup, ...]
    place_T: Int[Tensor, "T"] | None
    """Where each token of the forward lies among all groups' queries; None if in the same order."""


CleanKeys = tuple[Float[Tensor, "D G C d"], Float[Tensor, "D G C d"]]
"""The clean copy's keys and values of a group of documents."""
_Pair = tuple[Tensor, Tensor]


def plan_documents(
    documents_D3: Int[Tensor, "D 3"],
    document_ids_RT: Int[Tensor, "R T"],
    block_ids_RT: Int[Tensor, "R T"],
    block_size: int,
    order: BlockOrder | None = None,
) -> DocumentPlan:
    """Arrange the documents of a packed batch (see :func:`t3d.training.packing.pack_copies`) into groups.

    ``block_size``: noisy tokens of a block.
    """
    start_D, clean_D, noisy_D = documents_D3.unbind(1)
    device, num_tokens = documents_D3.device, document_ids_RT.numel()
    groups = []
    place_T = torch.zeros(num_tokens, dtype=torch.int64, device=device)
    offset = 0
    for members in _similar(clean_D.tolist(), noisy_D.tolist()):
        index = torch.tensor(members, device=device)
        start, clean, noisy = start_D[index, None], clean_D[index, None], noisy_D[index, None]
        num_clean, num_noisy = int(clean.max()), int(noisy.max())
        column_Q = torch.arange(num_clean + num_noisy, device=device)
        is_noisy_Q = column_Q >= num_clean
        within_DQ = torch.where(is_noisy_Q, column_Q - num_clean + clean, column_Q)
        is_there_DQ = torch.where(is_noisy_Q, column_Q - num_clean < noisy, column_Q < clean)
        token_DQ = torch.where(is_there_DQ, start + within_DQ, start)
        place_T[token_DQ[is_there_DQ]] = offset + is_there_DQ.flatten().nonzero()[:, 0]
        offset += token_DQ.numel()
        first = int(start[0])
        is_real_DQ = is_there_DQ & (document_ids_RT.flatten()[token_DQ] >= 0)
        block_DQ = block_ids_RT.flatten()[token_DQ]
        groups.append(
            DocumentGroup(
                num_documents=len(members),
                num_clean=num_clean,
                num_noisy=num_noisy,
                block_size=block_size,
                first_noisy=num_clean,
                tokens=slice(first, first + len(column_Q)) if len(members) == 1 else token_DQ.flatten(),
                hidden_clean=_hidden_clean(block_DQ, is_real_DQ, num_clean),
                hidden_own=_hidden_own(token_DQ[:, num_clean:], is_real_DQ[:, num_clean:], block_size, order),
            )
        )
    in_order = offset == num_tokens and torch.equal(place_T, torch.arange(num_tokens, device=device))
    return DocumentPlan(groups=tuple(groups), place_T=None if in_order else place_T)


def _similar(clean: Sequence[int], noisy: Sequence[int]) -> list[list[int]]:
    """Documents of similar lengths, the longest first."""
    order = sorted(range(len(clean)), key=lambda i: (-noisy[i], -clean[i]))
    groups: list[list[int]] = []
    longest, total = [0, 0], 0
    for index in order:
        if groups:
            widened = max(longest[0], clean[index]), max(longest[1], noisy[index])
            size = len(groups[-1]) + 1
            needed = total + clean[index] + noisy[index]
            if sum(widened) * size <= (1 + _PADDING_SHARE) * needed:
                groups[-1].append(index)
                longest, total = list(widened), needed
                continue
        groups.append([index])
        longest, total = [clean[index], noisy[index]], clean[index] + noisy[index]
    return groups


def _hidden_clean(block_DQ: Tensor, is_real_DQ: Tensor, num_clean: int) -> Bool[Tensor, "D 1 1 Q C"]:
    """The rule of :func:`t3d.attention.masks.training_mask` for clean keys."""
    is_noisy_Q1 = torch.arange(block_DQ.shape[1], device=block_DQ.device)[:, None] >= num_clean
    earlier = block_DQ[:, None, :num_clean] < block_DQ[:, :, None]
    same = block_DQ[:, None, :num_clean] == block_DQ[:, :, None]
    sees = (earlier | (same & ~is_noisy_Q1)) & is_real_DQ[:, None, :num_clean] & is_real_DQ[:, :, None]
    return ~sees[:, None, None]


def _hidden_own(
    token_DN: Tensor, is_real_DN: Tensor, block_size: int, order: BlockOrder | None
) -> Bool[Tensor, "D 1 K 1 s S"]:
    """The rule of :func:`t3d.attention.masks.training_mask` for the keys of a noisy block."""
    hidden = ~is_real_DN[:, None].unflatten(2, (-1, 1, 1, block_size))
    if order is None:
        return hidden
    token = token_DN[:, None].unflatten(2, (-1, 1, 1, block_size))
    query = token.transpose(-1, -2)
    row, length = token // order.place_RT.shape[1], order.place_RT.shape[1]
    return hidden | ~order.shows(row, query % length, token % length)


def document_attention(
    module: torch.nn.Module,
    query_RHTd: Float[Tensor, "R H T d"],
    key_RGTd: Float[Tensor, "R G T d"],
    value_RGTd: Float[Tensor, "R G T d"],
    attention_mask: Tensor,
    scaling: float,
    document_plan: DocumentPlan,
    clean_keys: Mapping[int, Sequence[CleanKeys]] | None = None,
    **unused: object,
) -> tuple[Float[Tensor, "R T H d"], None]:
    """Attention of packed rows, one call per group of documents.

    ``clean_keys``: each group's, by layer, where the rows hold noisy copies alone; they get no gradient.
    """
    del attention_mask, unused
    groups = document_plan.groups
    layer: Any = module
    kept = [None] * len(groups) if clean_keys is None else clean_keys[layer.layer_idx]
    rows, num_heads, row_length, head_dim = query_RHTd.shape
    # Under autocast the norms return float32, while values come in the narrower type.
    parts = (query_RHTd * scaling, key_RGTd, value_RGTd)
    flat = [part.to(value_RGTd.dtype).transpose(1, 2).flatten(0, 1) for part in parts]
    mixed = torch.cat([_attend(*flat, group, clean) for group, clean in zip(groups, kept, strict=True)])
    if document_plan.place_T is not None:
        mixed = mixed.index_select(0, document_plan.place_T)
    return mixed.view(rows, row_length, num_heads, head_dim), None


def by_document(values_THd: Float[Tensor, "T H d"], group: DocumentGroup) -> Float[Tensor, "D Q H d"]:
    """Numbers of a group's tokens, document by document."""
    tokens = group.tokens
    picked = values_THd[tokens] if isinstance(tokens, slice) else values_THd.index_select(0, tokens)
    return picked.unflatten(0, (group.num_documents, -1))


def _attend(
    query_THd: Tensor, key_TGd: Tensor, value_TGd: Tensor, group: DocumentGroup, clean: CleanKeys | None
) -> Float[Tensor, "DQ H d"]:
    """Attention of one group's queries."""
    query = by_document(query_THd, group).unflatten(2, (key_TGd.shape[1], -1)).permute(0, 2, 3, 1, 4)
    key, value = (by_document(values, group).transpose(1, 2) for values in (key_TGd, value_TGd))
    mixed = _GroupAttention.apply(query, key, value, group, clean)
    return mixed.permute(0, 3, 1, 2, 4).flatten(2, 3).flatten(0, 1)


class _GroupAttention(torch.autograd.Function):
    """Softmax attention over clean keys and own block; keeps no weights, and computes them again backwards.

    Shapes: query D G g Q d; key and value D G Q d; scores of clean keys D G g Q C, of own blocks D G K g S S.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, group: DocumentGroup, kept: CleanKeys | None
    ) -> Float[Tensor, "D G g Q d"]:
        """The mixed values; padding, which sees nothing, gives zero."""
        keys, values = _parts(key, value, group, kept)
        clean, own = _scores(query, keys, group)
        total = clean.logsumexp(-1)
        noisy = total[..., group.first_noisy :]
        noisy.copy_(torch.logaddexp(noisy, _in_order(own.logsumexp(-1))))
        total.masked_fill_(total == -torch.inf, 0.0)
        clean, own = _weights(clean, own, total, group)
        mixed = _mix(clean.to(value.dtype), own.to(value.dtype), values, group)
        ctx.save_for_backward(query, key, value, mixed, total)
        ctx.group, ctx.kept = group, kept
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        """Gradients of query, key and value."""
        query, key, value, mixed, total = ctx.saved_tensors
        group: DocumentGroup = ctx.group
        first = group.first_noisy
        (key_clean, key_own), (value_clean, value_own) = _parts(key, value, group, ctx.kept)
        clean, own = _weights(*_scores(query, (key_clean, key_own), group), total, group)
        delta = (grad * mixed).to(total.dtype).sum(-1)  # sum of weight x its gradient
        grad = grad.contiguous()
        grad_own, query_own = _by_block(grad, group), _by_block(query, group)  # D G K gS d

        grad_value = torch.empty_like(value)
        flat_grad, flat_query = grad.flatten(2, 3), query.flatten(2, 3)
        if ctx.kept is None:
            narrow = clean.to(value.dtype).flatten(2, 3)
            grad_value[:, :, :first] = narrow.transpose(-1, -2) @ flat_grad
        narrow_own = own.to(value.dtype).flatten(3, 4)
        grad_value[:, :, first:] = (narrow_own.transpose(-1, -2) @ grad_own).flatten(2, 3)

        to_clean = (flat_grad @ value_clean.transpose(-1, -2)).view_as(clean)
        clean.mul_(to_clean - delta[..., None])
        to_own = (grad_own @ value_own.transpose(-1, -2)).view_as(own)
        own.mul_(to_own - _out_of_order(delta[..., first:], group)[..., None])

        narrow = clean.to(key.dtype).flatten(2, 3)
        narrow_own = own.to(key.dtype).flatten(3, 4)
        grad_query = (narrow @ key_clean).view(query.shape)
        from_own = (narrow_own @ key_own).unflatten(3, (-1, group.block_size))
        grad_query[:, :, :, first:] += from_own.transpose(2, 3).flatten(3, 4)
        grad_key = torch.empty_like(key)
        if ctx.kept is None:
            grad_key[:, :, :first] = narrow.transpose(-1, -2) @ flat_query
        grad_key[:, :, first:] = (narrow_own.transpose(-1, -2) @ query_own).flatten(2, 3)
        return grad_query, grad_key, grad_value, None, None


def _parts(key: Tensor, value: Tensor, group: DocumentGroup, kept: CleanKeys | None) -> tuple[_Pair, _Pair]:
    """Of keys and of values: the clean copy's, D G C d, and the noisy copy's by block, D G K S d."""
    first = group.first_noisy
    clean = (key[:, :, :first], value[:, :, :first]) if kept is None else kept
    own = [values[:, :, first:].unflatten(2, (-1, group.block_size)) for values in (key, value)]
    return (clean[0], own[0]), (clean[1], own[1])


def _scores(query: Tensor, keys: _Pair, group: DocumentGroup) -> tuple[Tensor, Tensor]:
    """Scores of clean keys and of own blocks in float32 (float64); minus infinity where hidden."""
    clean = query.flatten(2, 3) @ keys[0].transpose(-1, -2)
    own = _by_block(query, group) @ keys[1].transpose(-1, -2)
    clean = clean.unflatten(2, (query.shape[2], -1)) if group.num_clean else clean.view(*query.shape[:4], 0)
    own = own.unflatten(3, (-1, group.block_size))
    if clean.dtype != torch.float64:
        clean, own = clean.float(), own.float()
    clean.masked_fill_(group.hidden_clean, -torch.inf)
    return clean, own.masked_fill_(group.hidden_own, -torch.inf)


def _weights(clean: Tensor, own: Tensor, total: Tensor, group: DocumentGroup) -> tuple[Tensor, Tensor]:
    """Softmax weights from scores, in place; ``total`` is the log of each query's sum."""
    clean.sub_(total[..., None]).exp_()
    own.sub_(_out_of_order(total[..., group.first_noisy :], group)[..., None]).exp_()
    return clean, own


def _mix(clean: Tensor, own: Tensor, values: _Pair, group: DocumentGroup) -> Float[Tensor, "D G g Q d"]:
    mixed = (clean.flatten(2, 3) @ values[0]).view(*clean.shape[:4], values[0].shape[-1])
    from_own = (own.flatten(3, 4) @ values[1]).unflatten(3, (-1, group.block_size))
    mixed[:, :, :, group.first_noisy :] += from_own.transpose(2, 3).flatten(3, 4)
    return mixed


def _by_block(values: Tensor, group: DocumentGroup) -> Float[Tensor, "D G K gS d"]:
    """The noisy copy's queries by block, the heads that share keys side by side."""
    blocks = values[:, :, :, group.first_noisy :].unflatten(3, (-1, group.block_size))
    return blocks.transpose(2, 3).flatten(3, 4)


def _in_order(values: Float[Tensor, "D G K g S"]) -> Float[Tensor, "D G g N"]:
    """Numbers of noisy queries by block, as they lie in a row."""
    return values.transpose(2, 3).flatten(3, 4)


def _out_of_order(values: Float[Tensor, "D G g N"], group: DocumentGroup) -> Float[Tensor, "D G K g S"]:
    """The inverse of :func:`_in_order`."""
    return values.unflatten(3, (-1, group.block_size)).transpose(2, 3)
