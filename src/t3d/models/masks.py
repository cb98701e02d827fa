"""Which token may attend to which, as boolean masks (True = may attend).

Shape letters: R rows, Q query positions, N key positions, T clean plus noisy length.
Blocks lie on the absolute grid: the block of position p is ``p // block_size``, counted from the
first prompt token, in decoding and in training alike.
"""

import torch
from jaxtyping import Bool, Int
from torch import Tensor


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
    block_RT: Int[Tensor, "R T"],
    is_noisy_RT: Bool[Tensor, "R T"],
    is_real_RT: Bool[Tensor, "R T"],
) -> Bool[Tensor, "R T T"]:
    """Mask of the ``[clean | noisy]`` training sequence.

    - clean query: real clean keys of its own and earlier blocks;
    - noisy query: real clean keys of earlier blocks and the real noisy keys of its own block;
    - padding sees only itself, so that no softmax row is empty.

    ``block_RT`` holds each token's block; a noisy token has the block of the token it copies.
    """
    query_block, key_block = block_RT[:, :, None], block_RT[:, None, :]
    query_noisy, key_noisy = is_noisy_RT[:, :, None], is_noisy_RT[:, None, :]
    clean_to_clean = ~query_noisy & ~key_noisy & (key_block <= query_block)
    noisy_to_clean = query_noisy & ~key_noisy & (key_block < query_block)
    noisy_to_noisy = query_noisy & key_noisy & (key_block == query_block)
    allowed = clean_to_clean | noisy_to_clean | noisy_to_noisy
    allowed = allowed & is_real_RT[:, :, None] & is_real_RT[:, None, :]
    itself = torch.eye(block_RT.shape[1], dtype=torch.bool, device=block_RT.device)
    return allowed | (itself & ~is_real_RT[:, :, None])
