"""Attention of packed ``[clean | noisy]`` documents by plain matrix products, a few documents per call.

What the mask forbids for whole regions is not computed: other documents, and the noisy copy beyond a
query's own block. On a CPU this is faster forwards and backwards than SDPA under the dense mask
(docs/LOG.md). Clean keys and values may be constants of a forward before (two_passes.py). D documents of a
group, H query heads, G key-value heads, g = H / G, C clean tokens, N noisy tokens, Q queries (C + N, or one
of them), K noisy blocks, S block size, d head dimension, T tokens of the forward.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from t3d.attention.document_plan import DocumentGroup, DocumentPlan

CleanKeys = tuple[Float[Tensor, "_ G _ d"], Float[Tensor, "_ G _ d"]]
"""The clean copy's keys and values of a group of documents, D G C d; groups differ in D and C."""
_Pair = tuple[Tensor, Tensor]


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
    return clean.add_(group.hides_clean), own.add_(group.hides_own)


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
