"""How the attention of one forward over several sequences is arranged.

T tokens, R rows of a group, Q queries per row, N keys, g query heads per key-value head.
"""

from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedConfig

from t3d.attention.slots import AttentionGroup, ExtendPlan, ScratchSpan, SlotCache, Spans, to_device

_SPLIT_SHARE = 0.6
"""Up to this share of rows with two blocks, the clean blocks get a call of their own (docs/LOG.md)."""


@dataclass(frozen=True, slots=True)
class _Pieces:
    """Parts of spans that one group attends from, one per row, sorted by slot."""

    slot_R: np.ndarray
    first_R: np.ndarray
    """Their first tokens on the forward's axis."""
    length_R: np.ndarray
    start_R: np.ndarray
    """Columns before it all their tokens may see."""
    end_R: np.ndarray
    """Columns from it on none may see."""
    block_size_R: np.ndarray
    scratch: tuple[ScratchSpan | None, ...] = ()
    """Of a group of scratch tokens, each row's; else the rows are block-causal."""

    def with_gaps_filled(self) -> "_Pieces":
        """Empty rows for the slots in between, if those are few.

        Neighbouring slots are read in place; an index copies all their keys and values.
        """
        lowest, num_slots = int(self.slot_R[0]), int(self.slot_R[-1] - self.slot_R[0]) + 1
        if num_slots == len(self.slot_R) or num_slots > 1.5 * len(self.slot_R):
            return self
        place_R = self.slot_R - lowest
        columns = np.zeros((5, num_slots), dtype=np.int64)
        columns[4] = 1  # a block size to divide by
        columns[:, place_R] = self.first_R, self.length_R, self.start_R, self.end_R, self.block_size_R
        by_place = dict(zip(place_R.tolist(), self.scratch, strict=False))
        scratch = tuple(by_place.get(place) for place in range(num_slots)) if self.scratch else ()
        return _Pieces(np.arange(lowest, lowest + num_slots), *columns, scratch)

    def sees(self, num_queries: int, num_keys: int) -> np.ndarray | None:
        """Which columns each query sees, bool ``[R, Q, N]``; None where all see all.

        Padding looks at the first column, so that no softmax is empty.
        """
        column_Q = np.arange(num_queries)
        if not self.scratch:
            # A query sees every position up to the end of its own block: block-causal on the absolute grid.
            size_R1 = self.block_size_R[:, None]
            limit_RQ = ((self.start_R[:, None] + column_Q) // size_R1 + 1) * size_R1
            limit_RQ[column_Q >= self.length_R[:, None]] = 1
            return np.arange(num_keys) < limit_RQ[:, :, None] if (limit_RQ < num_keys).any() else None
        sees_RQN = np.zeros((len(self.slot_R), num_queries, num_keys), dtype=bool)
        sees_RQN[:, :, 0] = column_Q >= self.length_R[:, None]
        for row, span in enumerate(self.scratch):
            if span is not None:
                start, end, length = self.start_R[row], self.end_R[row], self.length_R[row]
                sees_RQN[row, :length, :start] = True
                sees_RQN[row, :length, start:end] = span.sees_QN
        return sees_RQN


def plan_extend(
    cache: SlotCache,
    spans: Spans,
    config: PreTrainedConfig,
    *,
    dtype: torch.dtype,
    device: torch.device,
) -> ExtendPlan:
    """The plan of a forward over the tokens of all spans, row by row on one axis.

    Rows of at most two blocks (those being denoised), longer ones (prompts) and scratch tokens attend in
    calls of their own, so that a long prompt pads only its own kind.
    """
    pieces = _cut(spans)
    num_shared_heads = config.num_attention_heads // config.num_key_value_heads
    groups = [
        _plan_group(piece.with_gaps_filled(), len(pieces) == 1, num_shared_heads, dtype, device)
        for piece in pieces
    ]
    place_T = spans.slot_T * cache.num_positions + spans.column_T
    return ExtendPlan(cache=cache, place_T=to_device(place_T, device), groups=tuple(groups))


def _cut(spans: Spans) -> list[_Pieces]:
    """The groups of a forward; every token is in one of them."""
    size_R, start_R, end_R = spans.block_size_R, spans.start_R, spans.end_R
    length_R = end_R - start_R  # where a row has its scratch alone, 0
    is_short_R = (length_R > 0) & (length_R <= 2 * size_R)
    is_double_R = length_R == 2 * size_R
    is_long_R = length_R > 2 * size_R
    groups = []
    if 0 < is_double_R.sum() <= _SPLIT_SHARE * is_short_R.sum():
        groups.append((is_double_R, start_R, start_R + size_R))
        groups.append((is_short_R, end_R - size_R, end_R))
    elif is_short_R.any():
        groups.append((is_short_R, start_R, end_R))
    if is_long_R.any():
        groups.append((is_long_R, start_R, end_R))
    first_R = spans.first_R
    pieces = [
        _Pieces(
            *(
                values[rows]
                for values in (spans.slot_R, first_R + first - start_R, last - first, first, last)
            ),
            block_size_R=size_R[rows],
        )
        for rows, first, last in groups
    ]
    return [*pieces, _scratch_pieces(spans)] if spans.scratch else pieces


def _scratch_pieces(spans: Spans) -> _Pieces:
    rows = np.array(sorted(spans.scratch))
    scratch = tuple(spans.scratch[row] for row in rows.tolist())
    num_queries_R, num_columns_R = np.array([span.sees_QN.shape for span in scratch]).T
    first_R, end_R = spans.first_R + spans.end_R - spans.start_R, spans.end_R[rows]
    return _Pieces(
        slot_R=spans.slot_R[rows],
        first_R=first_R[rows],
        length_R=num_queries_R,
        start_R=end_R,
        end_R=end_R + num_columns_R,
        block_size_R=spans.block_size_R[rows],
        scratch=scratch,
    )


def _plan_group(
    pieces: _Pieces, is_whole: bool, num_shared_heads: int, dtype: torch.dtype, device: torch.device
) -> AttentionGroup:
    slot_R, length_R = pieces.slot_R, pieces.length_R
    num_queries, num_keys = int(length_R.max()), int(pieces.end_R.max())
    column_Q = np.arange(num_queries)
    is_real_RQ = column_Q < length_R[:, None]
    is_ragged = not is_real_RQ.all()
    bias_RQN, sees_RQN = None, pieces.sees(num_queries, num_keys)
    if sees_RQN is not None:
        hidden_RQN = torch.from_numpy(~sees_RQN)
        bias_RQN = torch.zeros(hidden_RQN.shape, dtype=dtype).masked_fill_(hidden_RQN, -torch.inf)
        bias_RQN = bias_RQN.repeat(1, num_shared_heads, 1)[:, None].to(device, non_blocking=True)
    token_RQ = pieces.first_R[:, None] + (np.where(is_real_RQ, column_Q, 0) if is_ragged else column_Q)
    in_order = int(slot_R[-1] - slot_R[0]) + 1 == len(slot_R)
    return AttentionGroup(
        slots=slice(int(slot_R[0]), int(slot_R[-1]) + 1) if in_order else to_device(slot_R, device),
        num_rows=len(slot_R),
        num_keys=num_keys,
        token_RQ=to_device(token_RQ, device) if is_ragged or not is_whole else None,
        padded_T=to_device(np.flatnonzero(is_real_RQ.ravel()), device) if is_ragged else None,
        tokens=slice(None) if is_whole else to_device(token_RQ[is_real_RQ], device),
        bias_RQN=bias_RQN,
    )
