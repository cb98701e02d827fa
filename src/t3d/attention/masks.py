"""Which token may attend to which, as boolean masks (True = may attend).

Shape letters: R rows, Q query positions, N key positions, T tokens of a packed row.
Blocks lie on the absolute grid: the block of position p is ``p // block_size``, counted from the
first prompt token, in decoding and in training alike.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor


class BlockOrder(NamedTuple):
    """Who sees whom inside a block of the noisy copy, where it is not everybody.

    A noisy token sees the tokens of its own block whose place is its own, or at most as far as it reads.
    So tokens of one place are a group that sees itself, places count from left to right, and who reads
    up to none (-1) sees its own group only.
    """

    place_RT: Int[Tensor, "R T"]
    reads_RT: Int[Tensor, "R T"]

    def shows(self, row: Tensor, query: Tensor, key: Tensor) -> Tensor:
        """Whether these queries see these keys of their own blocks."""
        place = self.place_RT[row, key]
        return (place == self.place_RT[row, query]) | (place <= self.reads_RT[row, query])


def block_causal_mask(
    query_position_RQ: Int[Tensor, "R Q"],
    key_position_RN: Int[Tensor, "R N"],
    key_is_real_RN: Bool[Tensor, "R N"],
    block_size: int,
) -> Bool[Tensor, "R Q N"]:
    """Decoding mask: bidirectional inside a block, causal over blocks.

    A query sees every real key whose block is its own or an earlier one.
    """
    query_block = query_position_RQ[:, :, None] // block_size
    key_block = key_position_RN[:, None, :] // block_size
    return (key_block <= query_block) & key_is_real_RN[:, None, :]


def training_mask(
    document_RT: Int[Tensor, "R T"],
    block_RT: Int[Tensor, "R T"],
    is_noisy_RT: Bool[Tensor, "R T"],
    order: BlockOrder | None = None,
) -> Bool[Tensor, "R T T"]:
    """Mask of packed ``[clean | noisy]`` documents: the rule that every other arrangement must equal.

    Inside a document:

    - clean query: clean keys of its own and earlier blocks;
    - noisy query: clean keys of earlier blocks and the noisy keys of its own block; with an ``order``
      those of them that it shows.

    Padding, whose document is negative, sees only itself, so that no softmax row is empty.
    ``block_RT`` holds each token's block; a noisy token has the block of the token it copies.
    """
    query_block, key_block = block_RT[:, :, None], block_RT[:, None, :]
    query_noisy, key_noisy = is_noisy_RT[:, :, None], is_noisy_RT[:, None, :]
    clean_to_clean = ~query_noisy & ~key_noisy & (key_block <= query_block)
    noisy_to_clean = query_noisy & ~key_noisy & (key_block < query_block)
    noisy_to_noisy = query_noisy & key_noisy & (key_block == query_block)
    if order is not None:
        rows, length = block_RT.shape
        every = [torch.arange(size, device=block_RT.device) for size in (rows, length, length)]
        noisy_to_noisy &= order.shows(every[0][:, None, None], every[1][:, None], every[2])
    same_document = document_RT[:, :, None] == document_RT[:, None, :]
    is_padding_RT1 = document_RT[:, :, None] < 0
    itself = torch.eye(block_RT.shape[1], dtype=torch.bool, device=block_RT.device)
    allowed = (clean_to_clean | noisy_to_clean | noisy_to_noisy) & same_document & ~is_padding_RT1
    return allowed | (itself & is_padding_RT1)
