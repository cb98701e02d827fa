"""What the next forward of the engine reads: each row's clean tokens that are not written yet and its active
block or, left to right, its scratch.

R rows, S block size, M places of the forward where logits are asked for.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from t3d.attention.slots import Spans
from t3d.decoding.decide import MaskedPositions
from t3d.decoding.draft_costs import token_value
from t3d.decoding.drafting import Drafting
from t3d.decoding.forward import Forward
from t3d.decoding.sequences import RowTable


def schedule(rows: RowTable, max_prefill_tokens: int, *, fuse_commits: bool, forward_cost: int) -> Forward:
    """The next forward of these rows; ``forward_cost`` as the engine's."""
    active = slice(0, rows.num_active)
    committed_R = rows.committed_R[active]
    written_R, denoises_R = _share_out(rows, max_prefill_tokens, fuse_commits)
    drafting = {row: own for row, own in rows.drafting() if denoises_R[row]}
    if drafting:
        value = token_value(int(denoises_R.sum()), forward_cost)
        for own in drafting.values():
            own.arrange(value)
    has_block_R = denoises_R.copy()
    has_block_R[list(drafting)] = False
    end_R = committed_R + written_R + np.where(has_block_R, rows.block_size_R[active], 0)
    used = np.flatnonzero((end_R > committed_R) | denoises_R)
    spans_of = {row: own.span() for row, own in drafting.items()}
    spans = Spans(
        slot_R=used,
        start_R=committed_R[used],
        end_R=end_R[used],
        block_size_R=rows.read_size_R[used],
        scratch={
            int(np.searchsorted(used, row)): span
            for row, span in spans_of.items()
            if len(span.column_Q)  # an autoregressive model without a draft reads no more than what is closed
        },
    )
    noise_mask_RS = rows.active_masks() & has_block_R[:, None]
    row_M, column_M = np.nonzero(noise_mask_RS)
    position_M = rows.block_start_R[row_M] + column_M
    origin_R = np.zeros(rows.num_active, dtype=np.int64)  # where position 0 would lie on the token axis
    origin_R[used] = spans.first_R - spans.start_R
    has_begun_R = rows.denoising_steps_R[active] > 0
    forward = Forward(
        spans=spans,
        ids_T=rows.ids_RL[spans.slot_T, spans.column_T],
        row_M=row_M,
        position_M=position_M,
        place_M=origin_R[row_M] + position_M,
        masked=_by_group(rows, noise_mask_RS, row_M, position_M),
        written_R=written_R,
        denoises_R=denoises_R,
        is_commit_R=~denoises_R & (written_R > 0) & has_begun_R,
        writes_prompt=bool(((written_R > 0) & ~has_begun_R).any()),
    )
    return _with_scratch(forward, rows, drafting) if drafting else forward


def _share_out(rows: RowTable, max_prefill_tokens: int, fuse_commits: bool) -> tuple[np.ndarray, np.ndarray]:
    """Clean tokens that each row writes (``written_R``), and whether its active block rides along."""
    active = slice(0, rows.num_active)
    unwritten_R, size_R = rows.block_start_R[active] - rows.committed_R[active], rows.block_size_R[active]
    written_R = unwritten_R.copy()
    # An autoregressive model draws from the logits of the last closed token, so that one always rides along.
    is_next_R = rows.is_next_R[active]
    denoises_R = np.full(len(written_R), True) if fuse_commits else (unwritten_R == 0) | (is_next_R > 0)
    budget = max_prefill_tokens
    for row in np.flatnonzero(unwritten_R > size_R):
        granted = min(int(unwritten_R[row]), budget // size_R[row] * size_R[row])
        if granted == 0 and budget == max_prefill_tokens:
            granted = size_R[row]  # a budget below one block still writes one
        budget = max(0, budget - granted)
        written_R[row] = granted
        denoises_R[row] &= granted == unwritten_R[row]
    return written_R, denoises_R


def _by_group(
    rows: RowTable, noise_mask_RS: np.ndarray, row_M: np.ndarray, position_M: np.ndarray
) -> list[MaskedPositions]:
    """The masked positions of active blocks, by group of rows that are decided in one call."""
    found, group_M = [], rows.group_R[row_M]
    for group in np.unique(group_M):
        index_M = np.flatnonzero(group_M == group)
        row = row_M[index_M]
        members, step_M = np.unique(row), rows.denoising_steps_R[row] + 1
        masked = MaskedPositions(
            params=rows.job_R[members[0]].params,
            index_M=index_M,
            noise_mask_RS=noise_mask_RS[members],
            num_planned_R=rows.schedule_RS[members, rows.step_in_block_R[members]],
            counter_M=(rows.seed_R[row], rows.key_R[row], position_M[index_M], step_M),
        )
        found.append(masked)
    return found


def _with_scratch(forward: Forward, rows: RowTable, drafting: Mapping[int, Drafting]) -> Forward:
    """The forward, which has the columns of these rows' scratch, with its tokens and its draws."""
    place_of = {row: place for place, row in enumerate(forward.spans.slot_R.tolist())}
    row_M, position_M, place_M = [forward.row_M], [forward.position_M], [forward.place_M]
    checked: dict[int, slice] = {}
    drafting_G: list[np.ndarray] = []
    count = len(forward.row_M)
    for row, own in drafting.items():
        tokens, places = forward.spans.scratch_tokens(place_of[row]), own.reading.place_M
        forward.ids_T[tokens] = own.ids(rows.mask_token_id)
        row_M.append(np.full(len(places), row))
        position_M.append(own.block_start + own.scratch.drawn_offset_M)
        place_M.append(tokens.start + places)
        first = tokens.stop - (len(own.scratch) - own.scratch.first_drafting)
        drafting_G.append(np.arange(first, tokens.stop))
        checked[row] = slice(count, count + len(places))
        count = checked[row].stop
    row_M, position_M, place_M = (np.concatenate(parts) for parts in (row_M, position_M, place_M))
    return replace(
        forward,
        row_M=row_M,
        position_M=position_M,
        place_M=place_M,
        masked=[*forward.masked, *_draws_by_group(rows, row_M, position_M, len(forward.row_M))],
        checked=checked,
        drafting_G=np.concatenate(drafting_G),
    )


def _draws_by_group(
    rows: RowTable, row_M: np.ndarray, position_M: np.ndarray, first: int
) -> list[MaskedPositions]:
    """The places from ``first`` on, each on its own: a token is drawn there, whatever becomes of it."""
    found, group_M = [], rows.group_R[row_M[first:]]
    for group in np.unique(group_M):
        index_M = first + np.flatnonzero(group_M == group)
        row = row_M[index_M]
        step_M = np.zeros_like(row)  # a draft and its check draw the same: no step in their noise
        masked = MaskedPositions(
            params=rows.job_R[row[0]].params,
            index_M=index_M,
            noise_mask_RS=np.ones((len(index_M), 1), dtype=bool),
            num_planned_R=np.ones_like(row),
            counter_M=(rows.seed_R[row], rows.key_R[row], position_M[index_M], step_M),
        )
        found.append(masked)
    return found
