"""Which documents of a packed batch share a call of their attention, and who sees whom there.

Shape letters as in :mod:`t3d.attention.documents`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

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
    hides_clean: Float[Tensor, "D 1 1 Q C"]
    """Minus infinity at clean keys that a query may not see, else 0."""
    hides_own: Float[Tensor, "D 1 K 1 s S"]
    """The same of a noisy block's keys for its queries: padding (s = 1, the same for all queries), and what
    the block's order hides (s = S)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentPlan:
    """What the attention of one packed batch needs to know."""

    groups: tuple[DocumentGroup, ...]
    place_T: Int[Tensor, "T"] | None
    """Where each token of the forward lies among all groups' queries; None if in the same order."""


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
                hides_clean=_bias(_hidden_clean(block_DQ, is_real_DQ, num_clean)),
                hides_own=_bias(
                    _hidden_own(token_DQ[:, num_clean:], is_real_DQ[:, num_clean:], block_size, order)
                ),
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


def _bias(hidden: Bool[Tensor, "..."]) -> Float[Tensor, "..."]:
    """For scores: on a CPU an addition takes a tenth of the time of masked_fill."""
    return torch.zeros(hidden.shape, device=hidden.device).masked_fill_(hidden, -torch.inf)


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
