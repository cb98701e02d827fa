"""Documents side by side: the training batch without a padded token that could be avoided.

A *document* is ``[clean | noisy]`` of one response, or of a piece of it. Shape letters: E examples, K
blocks of the noisy copy, S tokens per block, D documents, R rows, T tokens per row, M loss positions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from t3d.training.block_grid import BlockGrid


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A document: consecutive blocks of an example's noisy copy, and all the clean tokens they may see."""

    example: int
    first_block: int
    num_blocks: int
    num_clean: int
    num_noisy: int
    """Whole blocks."""

    @property
    def length(self) -> int:
        """Tokens of both copies."""
        return self.num_clean + self.num_noisy


def cut_response(
    example: int,
    num_clean: int,
    num_blocks: int,
    block_size: int,
    max_length: int | None,
    noisy_size: int | None = None,
) -> list[Piece]:
    """The documents of one response: one, or as few as ``max_length`` tokens per document allow.

    ``num_clean`` counts the tokens before the response's last block. Only the noisy copy is cut: a piece
    has all the clean tokens before its last block, so its logits are those of the whole. ``noisy_size``:
    noisy tokens of a block, by default as many as it has. An empty list if one block with its clean tokens
    is too long.
    """
    noisy_size = block_size if noisy_size is None else noisy_size
    before_first = num_clean - (num_blocks - 1) * block_size
    pieces, first = [], 0
    while first < num_blocks:
        count = num_blocks - first
        if max_length is not None:
            # before_first + (first + count - 1) S + count n <= max_length, n = noisy_size
            room = max_length - before_first - (first - 1) * block_size
            count = min(count, room // (block_size + noisy_size))
        if count < 1:
            return []
        clean = before_first + (first + count - 1) * block_size
        noisy = count * noisy_size
        piece = Piece(example=example, first_block=first, num_blocks=count, num_clean=clean, num_noisy=noisy)
        pieces.append(piece)
        first += count
    return pieces


def assign_rows(lengths: Sequence[int], max_length: int | None) -> list[list[int]]:
    """First fit, the longest first: which of these lengths share a row of at most ``max_length``."""
    if max_length is None:
        return [list(range(len(lengths)))]
    rows: list[list[int]] = []
    free: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        row = next((row for row, room in enumerate(free) if room >= lengths[index]), len(rows))
        if row == len(rows):
            rows.append([])
            free.append(max_length)
        rows[row].append(index)
        free[row] -= lengths[index]
    return rows


def pack_copies(
    grid: BlockGrid,
    noisy_ids_EKS: Int[Tensor, "E K S"],
    loss_mask_EKS: Bool[Tensor, "E K S"],
    *,
    max_length: int | None = None,
    row_multiple: int = 1,
    clean_block_size: int | None = None,
    further_EKS: Mapping[str, Tensor] | None = None,
) -> dict[str, Any]:
    """The training batch: both copies of every example, packed into rows of at most ``max_length``.

    Keys: ``input_ids``, ``position_ids``, ``block_ids``, ``is_noisy``, ``document_ids`` (negative:
    padding) [R, T]; ``documents`` [D, 3], where each begins in the flattened R x T, its clean and its
    noisy tokens; ``block_size``; ``loss_positions`` [M], indices into the flattened R x T; ``labels``,
    ``loss_example`` (which of the examples) and ``token_weight`` [M]; those of ``further_EKS``, numbers of
    noisy tokens, spread as ``is_noisy`` is, 0 at clean ones. ``clean_block_size``: of the clean copy, where
    the blocks of the noisy one hold further tokens.

    Padding is the end of a last block that the response does not fill, and the ends of rows, which are
    as long as the longest, rounded up to ``row_multiple``; with both arguments given all rows of all
    batches have the same length. Raises ValueError for a response that ``max_length`` cannot hold.
    """
    num_blocks_E, noisy_size = grid.valid_RKS.any(-1).sum(1), grid.ids_RKS.shape[2]
    block_size = noisy_size if clean_block_size is None else clean_block_size
    pieces: list[Piece] = []
    for example, (clean, blocks) in enumerate(
        zip(grid.num_clean_R.tolist(), num_blocks_E.tolist(), strict=True)
    ):
        cut = cut_response(example, clean, blocks, block_size, max_length, noisy_size)
        if not cut:
            raise ValueError(f"example {example}: {clean} clean tokens and a block exceed {max_length=}")
        pieces += cut
    rows = assign_rows([piece.length for piece in pieces], max_length)
    longest = max(sum(pieces[index].length for index in row) for row in rows)
    if max_length is not None and row_multiple > 1:
        longest = max_length
    row_length = -(-longest // row_multiple) * row_multiple
    ordered, starts = [], []
    for number, row in enumerate(rows):
        start = number * row_length
        for index in row:
            ordered.append(pieces[index])
            starts.append(start)
            start += pieces[index].length
    shape = len(rows), row_length
    return _fill(grid, noisy_ids_EKS, loss_mask_EKS, ordered, torch.tensor(starts), shape, further_EKS or {})


def _fill(
    grid: BlockGrid,
    noisy_ids_EKS: Tensor,
    loss_mask_EKS: Tensor,
    pieces: list[Piece],
    start_D: Tensor,
    shape: tuple[int, int],
    further_EKS: Mapping[str, Tensor],
) -> dict[str, Any]:
    """Write the tokens of all documents, in one go for all of them."""
    block_size = grid.ids_RKS.shape[2]
    example_D, first_D, clean_D, noisy_D = torch.tensor(
        [(piece.example, piece.first_block, piece.num_clean, piece.num_noisy) for piece in pieces]
    ).unbind(1)
    document_t = torch.arange(len(pieces)).repeat_interleave(clean_D + noisy_D)
    length_D = clean_D + noisy_D
    within_t = torch.arange(len(document_t)) - (length_D.cumsum(0) - length_D)[document_t]
    place_t = start_D[document_t] + within_t
    is_noisy_t = within_t >= clean_D[document_t]
    example_t = example_D[document_t]
    clean = example_t[~is_noisy_t], within_t[~is_noisy_t]
    column_t = within_t - clean_D[document_t] + first_D[document_t] * block_size
    noisy = example_t[is_noisy_t], column_t[is_noisy_t]

    def spread(clean_EC: Tensor, noisy_EKS: Tensor, empty: int | bool) -> Tensor:
        flat = torch.full((shape[0] * shape[1],), empty, dtype=clean_EC.dtype)
        flat[place_t[~is_noisy_t]] = clean_EC[clean]
        flat[place_t[is_noisy_t]] = noisy_EKS.flatten(1)[noisy]
        return flat.view(shape)

    clean_position_EC = torch.arange(grid.clean_ids_RC.shape[1]).expand_as(grid.clean_ids_RC)
    document_ids = torch.full((shape[0] * shape[1],), -1)
    is_real_t = torch.ones_like(is_noisy_t)
    is_real_t[is_noisy_t] = grid.is_real_RKS.flatten(1)[noisy]
    document_ids[place_t[is_real_t]] = document_t[is_real_t]
    place_EKS = torch.zeros(grid.ids_RKS.shape, dtype=torch.int64)
    place_EKS.flatten(1)[noisy] = place_t[is_noisy_t]
    no_clean_EC = torch.zeros_like(grid.clean_ids_RC)
    return {
        **{name: spread(no_clean_EC.to(value.dtype), value, 0) for name, value in further_EKS.items()},
        "input_ids": spread(grid.clean_ids_RC, noisy_ids_EKS, 0),
        "position_ids": spread(clean_position_EC, grid.position_RKS, 0),
        "block_ids": spread(grid.clean_block_RC, grid.block_RKS, 0),
        "is_noisy": spread(no_clean_EC.bool(), torch.ones_like(grid.is_real_RKS), False),
        "document_ids": document_ids.view(shape),
        "documents": torch.stack([start_D, clean_D, noisy_D], 1),
        "block_size": block_size,
        "loss_positions": place_EKS[loss_mask_EKS],
        "labels": grid.label_RKS[loss_mask_EKS],
        "loss_example": loss_mask_EKS.flatten(1).nonzero()[:, 0],
        "token_weight": grid.weight_RKS[loss_mask_EKS],
    }
