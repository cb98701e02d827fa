"""Attention of packed ``[clean | noisy]`` documents, a few documents per call.

What the mask forbids for whole regions is not computed: other documents, and the noisy copy beyond a
query's own block, whose keys plain products add to those of the clean copy (clean_keys.py). On a CPU this
is faster forwards and backwards than SDPA under the dense mask (docs/LOG.md). Clean keys and values may be
constants of a forward before (two_passes.py). D documents of a group, H query heads, G key-value heads, g =
H / G, C clean tokens, N noisy tokens, Q queries (C + N, or one of them), K noisy blocks, S block size, d
head dimension, T tokens of the forward.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from t3d.attention.clean_keys import CleanKeys, attend_clean, attend_clean_backward
from t3d.attention.document_plan import DocumentGroup, DocumentPlan

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

    Shapes: query D G g Q d; key and value D G Q d; scores of own blocks D G K g S S.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, group: DocumentGroup, kept: CleanKeys | None
    ) -> Float[Tensor, "D G g Q d"]:
        """The mixed values; padding, which sees nothing, gives zero."""
        query = query.contiguous()
        clean, (key_own, value_own) = _parts(key, value, group, kept)
        mixed, clean_total = attend_clean(query, clean, group.hides_clean)
        own = _own_scores(query, key_own, group)
        total = clean_total.clone()
        noisy = total[..., group.first_noisy :]
        noisy.copy_(torch.logaddexp(noisy, _in_order(own.logsumexp(-1))))
        total.masked_fill_(total == -torch.inf, 0.0)
        mixed.mul_((clean_total - total).exp_()[..., None])
        own = _own_weights(own, total, group).to(value.dtype)
        mixed[:, :, :, group.first_noisy :] += _rows_in_order(own.flatten(3, 4) @ value_own, group)
        ctx.save_for_backward(query, key, value, mixed, total)
        ctx.group, ctx.kept = group, kept
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        """Gradients of query, key and value."""
        query, key, value, mixed, total = ctx.saved_tensors
        group: DocumentGroup = ctx.group
        first, grad = group.first_noisy, grad.contiguous()
        clean, (key_own, value_own) = _parts(key, value, group, ctx.kept)
        of_clean = attend_clean_backward(grad, query, clean, group.hides_clean, mixed, total)
        grad_query, grad_key, grad_value = of_clean[0], torch.empty_like(key), torch.empty_like(value)
        if ctx.kept is None:
            grad_key[:, :, :first], grad_value[:, :, :first] = of_clean[1:]

        own = _own_weights(_own_scores(query, key_own, group), total, group)
        grad_own, query_own = _by_block(grad, group), _by_block(query, group)
        narrow = own.to(value.dtype).flatten(3, 4)
        grad_value[:, :, first:] = (narrow.transpose(-1, -2) @ grad_own).flatten(2, 3)
        delta = (grad[:, :, :, first:] * mixed[:, :, :, first:]).to(total.dtype).sum(-1)
        to_own = (grad_own @ value_own.transpose(-1, -2)).view_as(own)
        own.mul_(to_own - _out_of_order(delta, group)[..., None])
        narrow = own.to(key.dtype).flatten(3, 4)
        grad_query[:, :, :, first:] += _rows_in_order(narrow @ key_own, group)
        grad_key[:, :, first:] = (narrow.transpose(-1, -2) @ query_own).flatten(2, 3)
        return grad_query, grad_key, grad_value, None, None


def _parts(
    key: Tensor, value: Tensor, group: DocumentGroup, kept: CleanKeys | None
) -> tuple[CleanKeys, _Pair]:
    """Keys and values of the clean copy, D G C d, and those of the noisy copy by block, D G K S d."""
    first = group.first_noisy
    clean = (key[:, :, :first], value[:, :, :first]) if kept is None else kept
    by_block = [values[:, :, first:].unflatten(2, (-1, group.block_size)) for values in (key, value)]
    return clean, (by_block[0], by_block[1])


def _own_scores(query: Tensor, key_own: Tensor, group: DocumentGroup) -> Float[Tensor, "D G K g S S"]:
    """Scores of own blocks in float32 (float64); minus infinity where hidden."""
    own = (_by_block(query, group) @ key_own.transpose(-1, -2)).unflatten(3, (-1, group.block_size))
    return own.to(torch.promote_types(own.dtype, torch.float32)).add_(group.hides_own)


def _own_weights(own: Tensor, total: Tensor, group: DocumentGroup) -> Float[Tensor, "D G K g S S"]:
    """Softmax weights from scores, in place; ``total`` is the log of each query's sum."""
    return own.sub_(_out_of_order(total[..., group.first_noisy :], group)[..., None]).exp_()


def _by_block(values: Tensor, group: DocumentGroup) -> Float[Tensor, "D G K gS d"]:
    """The noisy copy's queries by block, the heads that share keys side by side."""
    blocks = values[:, :, :, group.first_noisy :].unflatten(3, (-1, group.block_size))
    return blocks.transpose(2, 3).flatten(3, 4)


def _rows_in_order(values: Float[Tensor, "D G K gS d"], group: DocumentGroup) -> Float[Tensor, "D G g N d"]:
    """The inverse of :func:`_by_block`."""
    return _in_order(values.unflatten(3, (-1, group.block_size)))


def _in_order(values: Float[Tensor, "D G K g S *d"]) -> Float[Tensor, "D G g N *d"]:
    """Numbers of noisy queries by block, as they lie in a row."""
    return values.transpose(2, 3).flatten(3, 4)


def _out_of_order(values: Float[Tensor, "D G g N"], group: DocumentGroup) -> Float[Tensor, "D G K g S"]:
    """The inverse of :func:`_in_order`."""
    return values.unflatten(3, (-1, group.block_size)).transpose(2, 3)
