"""FlexAttention's block mask of packed ``[clean | noisy]`` documents, by arithmetic on tiles.

R rows, T tokens per row (a multiple of the tile), n = T / tile.
"""

from typing import no_type_check

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from t3d.attention.masks import BlockOrder

TILE = 128
"""Tokens per side of a tile: FlexAttention's default."""


def packed_block_mask(
    document_RT: Int[Tensor, "R T"],
    block_RT: Int[Tensor, "R T"],
    is_noisy_RT: Bool[Tensor, "R T"],
    order: BlockOrder | None = None,
) -> BlockMask:
    """The rule of :func:`t3d.attention.masks.training_mask` without any T x T tensor.

    A tile pair is skipped, taken whole, or left to the rule token by token, by what the smallest and
    largest document and block of its two tiles tell. Raises ValueError if T is no multiple of the tile.
    """
    if document_RT.shape[1] % TILE:
        raise ValueError(f"rows of {document_RT.shape[1]} tokens; pad them to a multiple of {TILE}")
    has_any, is_full = _tiles(document_RT, block_RT, is_noisy_RT)
    if order is not None:  # then whole tiles may still be seen, but not of noisy keys
        holds_noisy = (is_noisy_RT & (document_RT >= 0)).unflatten(1, (-1, TILE)).any(-1)
        is_full &= ~holds_noisy[:, None, :]

    @no_type_check  # FlexAttention counts the parameters of the function itself
    def visible(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        del head
        query_block, key_block = block_RT[row, query], block_RT[row, key]
        query_noisy, key_noisy = is_noisy_RT[row, query], is_noisy_RT[row, key]
        to_clean = ~key_noisy & ((key_block < query_block) | ((key_block == query_block) & ~query_noisy))
        to_noisy = key_noisy & query_noisy & (key_block == query_block)
        if order is not None:
            to_noisy = to_noisy & order.shows(row, query, key)
        document = document_RT[row, query]
        inside = (document == document_RT[row, key]) & (document >= 0)
        return (inside & (to_clean | to_noisy)) | ((document < 0) & (query == key))

    partial = _ordered(has_any & ~is_full)
    full = _ordered(is_full)
    num_tokens = document_RT.shape[1]
    return BlockMask.from_kv_blocks(
        *partial, *full, BLOCK_SIZE=TILE, mask_mod=visible, seq_lengths=(num_tokens, num_tokens)
    )


def _ordered(wanted_Rnn: Bool[Tensor, "R n n"]) -> tuple[Int[Tensor, "R 1 n"], Int[Tensor, "R 1 n n"]]:
    """How many key tiles each query tile has, and which, first those wanted."""
    count = wanted_Rnn.sum(-1, dtype=torch.int32)
    index = wanted_Rnn.to(torch.int8).argsort(dim=-1, descending=True, stable=True).to(torch.int32)
    return count[:, None], index[:, None]


def _tiles(
    document_RT: Tensor, block_RT: Tensor, is_noisy_RT: Tensor
) -> tuple[Bool[Tensor, "R n n"], Bool[Tensor, "R n n"]]:
    """Tile pairs (query, key) that may hold a visible pair, and those in which every pair is visible.

    Along a row documents only rise, and so do the blocks of a document's clean and of its noisy copy: what
    one tile has of a copy is an interval of (document, block).
    """
    num_blocks = int(block_RT.max()) + 1
    is_real_RT = document_RT >= 0
    order_RT = document_RT * num_blocks + block_RT

    def ends(chosen_RT: Tensor) -> tuple[Tensor, Tensor]:
        """First and last (document, block) in each tile; first > last if nothing of it is chosen."""
        far = torch.iinfo(order_RT.dtype).max // 2
        first = order_RT.masked_fill(~chosen_RT, far).unflatten(1, (-1, TILE)).amin(-1)
        last = order_RT.masked_fill(~chosen_RT, -num_blocks).unflatten(1, (-1, TILE)).amax(-1)
        return first, last

    first_clean, last_clean = ends(is_real_RT & ~is_noisy_RT)
    first_noisy, last_noisy = ends(is_real_RT & is_noisy_RT)

    def reaches(query_first: Tensor, query_last: Tensor, *, own_block: bool) -> Tensor:
        """Whether some clean key is of a query's document, and not beyond what it may see."""
        limit = query_last if own_block else query_last - 1
        same_document = last_clean[:, None, :] // num_blocks >= query_first[:, :, None] // num_blocks
        return (first_clean[:, None, :] <= limit[:, :, None]) & same_document

    noisy_meets = (first_noisy[:, None, :] <= last_noisy[:, :, None]) & (
        first_noisy[:, :, None] <= last_noisy[:, None, :]
    )
    is_same_tile = torch.eye(first_clean.shape[1], dtype=torch.bool, device=document_RT.device)
    holds_padding = ~is_real_RT.unflatten(1, (-1, TILE)).all(-1)
    has_any = (
        reaches(first_clean, last_clean, own_block=True)
        | reaches(first_noisy, last_noisy, own_block=False)
        | noisy_meets
        | (is_same_tile & holds_padding[:, :, None])
    )
    first, last = torch.minimum(first_clean, first_noisy), torch.maximum(last_clean, last_noisy)
    one_document = first[:, :, None] // num_blocks == last[:, None, :] // num_blocks
    one_document &= first[:, None, :] // num_blocks == last[:, :, None] // num_blocks
    one_document &= ~holds_padding[:, :, None] & ~holds_padding[:, None, :]
    keys_are_clean = (first_noisy > last_noisy)[:, None, :]
    behind = (last_clean[:, None, :] <= first_clean[:, :, None]) & (
        last_clean[:, None, :] < first_noisy[:, :, None]
    )
    one_block = (first == last) & (first_clean > last_clean)  # of the noisy copy
    in_one_block = one_block[:, :, None] & one_block[:, None, :] & (first[:, :, None] == first[:, None, :])
    return has_any, one_document & ((keys_are_clean & behind) | in_one_block)
