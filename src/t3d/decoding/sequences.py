"""The sequences being decoded, one per slot, as arrays on the host.

R rows (= slots), L positions. The tokens of a block are decided on the device; which positions are
still masked, where blocks begin and what is committed is known here, so a forward needs one read.
"""

import time
from dataclasses import dataclass

import numpy as np

from t3d.counter_rng import stable_key
from t3d.decoding.completion import BlockUpdate, Completion, DecodeRequest
from t3d.decoding.decide import Decisions, sampling_key
from t3d.decoding.params import DecodeParams
from t3d.decoding.schedule import num_transfer_tokens
from t3d.trajectory import visible_length


@dataclass(frozen=True, slots=True)
class Job:
    """A request and how to decode it."""

    request: DecodeRequest
    params: DecodeParams


class RowTable:
    """State of all slots; rows ``0 .. num_active - 1`` are being decoded."""

    def __init__(self, num_rows: int, num_positions: int, max_block_size: int, mask_token_id: int) -> None:
        self.mask_token_id = mask_token_id
        self.num_rows, self.num_active = num_rows, 0
        self._groups: list[tuple[DecodeParams, np.ndarray]] | None = None
        self.jobs: list[Job] = []
        self.admitted_at: list[float] = []
        cells = (num_rows, num_positions)
        self.ids_RL = np.full(cells, mask_token_id, dtype=np.int64)
        self.steps_RL = np.zeros(cells, dtype=np.int64)
        self.logprobs_RL = np.zeros(cells)
        self.undecided_RL = np.zeros(cells, dtype=bool)
        # A planned count of 0 after the last step: no block gets there with a mask left.
        self.schedule_RS = np.zeros((num_rows, max_block_size + 1), dtype=np.int64)
        (
            self.key_R,
            self.seed_R,
            self.prompt_length_R,
            self.block_size_R,
            self.max_new_tokens_R,
            self.committed_R,
            self.block_start_R,
            self.step_in_block_R,
            self.denoising_steps_R,
            self.commits_R,
        ) = np.zeros((10, num_rows), dtype=np.int64)

    def admit(self, row: int, job: Job) -> None:
        """Put a request into a free row: the next one, or one whose request has finished."""
        request, params = job.request, job.params
        self._groups = None
        if row == self.num_active:
            self.num_active += 1
            self.jobs.append(job)
            self.admitted_at.append(0.0)
        self.jobs[row], self.admitted_at[row] = job, time.perf_counter()
        length, size = len(request.prompt_ids), params.block_size
        self.ids_RL[row, :length] = request.prompt_ids
        self.ids_RL[row, length:] = self.mask_token_id
        self.undecided_RL[row, :length] = False
        self.undecided_RL[row, length:] = True
        self.schedule_RS[row] = 0
        self.schedule_RS[row, : params.steps_per_block] = num_transfer_tokens(size, params.steps_per_block)
        self.key_R[row] = stable_key(request.id)
        self.seed_R[row] = params.seed
        self.prompt_length_R[row] = length
        self.block_size_R[row] = size
        self.max_new_tokens_R[row] = params.max_new_tokens
        self.committed_R[row] = 0
        self.block_start_R[row] = length // size * size
        self.step_in_block_R[row] = self.denoising_steps_R[row] = self.commits_R[row] = 0

    def move(self, source: int, target: int) -> None:
        """Copy a row over another one."""
        self.jobs[target], self.admitted_at[target] = self.jobs[source], self.admitted_at[source]
        for values in vars(self).values():
            if isinstance(values, np.ndarray):
                values[target] = values[source]

    def drop_last(self) -> None:
        """Give up the last active row."""
        self.num_active -= 1
        self._groups = None
        del self.jobs[self.num_active :], self.admitted_at[self.num_active :]

    def _active_blocks(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Index of the active rows ``[R, 1]``, positions of their blocks and which are inside ``[R, S]``."""
        active = np.arange(self.num_active)
        start_R1, size_R1 = self.block_start_R[active, None], self.block_size_R[active, None]
        column_S = np.arange(int(size_R1.max()))
        position_RS = np.minimum(start_R1 + column_S, self.ids_RL.shape[1] - 1)
        return active[:, None], position_RS, column_S < size_R1

    def active_masks(self) -> np.ndarray:
        """Which positions of each active block are still masked: bool ``[R, S]``."""
        row_R1, position_RS, is_inside_RS = self._active_blocks()
        return self.undecided_RL[row_R1, position_RS] & is_inside_RS

    def share_out(self, max_prefill_tokens: int, fuse_commits: bool) -> tuple[np.ndarray, np.ndarray]:
        """Clean tokens that each row writes in the next forward, and whether its active block rides along."""
        active = slice(0, self.num_active)
        unwritten_R, size_R = self.block_start_R[active] - self.committed_R[active], self.block_size_R[active]
        written_R = unwritten_R.copy()
        denoises_R = np.full(len(written_R), True) if fuse_commits else unwritten_R == 0
        budget = max_prefill_tokens
        for row in np.flatnonzero(unwritten_R > size_R):
            granted = min(int(unwritten_R[row]), budget // size_R[row] * size_R[row])
            if granted == 0 and budget == max_prefill_tokens:
                granted = size_R[row]  # a budget below one block still writes one
            budget = max(0, budget - granted)
            written_R[row] = granted
            denoises_R[row] &= granted == unwritten_R[row]
        return written_R, denoises_R

    def sampling_groups(self) -> list[tuple[DecodeParams, np.ndarray]]:
        """Active rows by what deciding their tokens depends on; kept until the rows change."""
        if self._groups is None:
            by_key: dict[tuple[object, ...], list[int]] = {}
            for row, job in enumerate(self.jobs):
                by_key.setdefault(sampling_key(job.params), []).append(row)
            self._groups = [(self.jobs[rows[0]].params, np.array(rows)) for rows in by_key.values()]
        return self._groups

    def commit(self, row_M: np.ndarray, position_M: np.ndarray, decisions: Decisions) -> None:
        """Write what a step decided for these masked positions."""
        chosen_M = decisions.is_committed_M
        row, position = row_M[chosen_M], position_M[chosen_M]
        self.ids_RL[row, position] = decisions.token_M[chosen_M]
        self.logprobs_RL[row, position] = decisions.logprob_M[chosen_M]
        self.steps_RL[row, position] = self.denoising_steps_R[row]
        self.undecided_RL[row, position] = False

    def next_block(self, rows: np.ndarray) -> None:
        """Move rows whose block is clean to their next block."""
        self.block_start_R[rows] += self.block_size_R[rows]
        self.step_in_block_R[rows] = 0

    def are_finished(self, rows: np.ndarray, stop_token_ids: np.ndarray) -> list[bool]:
        """Which of these rows' active blocks, just finished, end the response."""
        row_R1, position_RS, is_inside_RS = self._active_blocks()
        row_R1, position_RS, is_inside_RS = row_R1[rows], position_RS[rows], is_inside_RS[rows]
        is_response_RS = is_inside_RS & (position_RS >= self.prompt_length_R[row_R1])
        is_stop_RS = (self.ids_RL[row_R1, position_RS, None] == stop_token_ids).any(-1)
        has_stop_R = (is_stop_RS & is_response_RS).any(1)
        length_R = self.block_start_R[rows] + self.block_size_R[rows] - self.prompt_length_R[rows]
        return (has_stop_R | (length_R >= self.max_new_tokens_R[rows])).tolist()

    def update(self, row: int, completion: Completion | None) -> BlockUpdate:
        """The active block of a row as an update."""
        prompt_length, start = int(self.prompt_length_R[row]), int(self.block_start_R[row])
        block = slice(max(start, prompt_length), start + int(self.block_size_R[row]))
        tokens, undecided = self.ids_RL[row, block].tolist(), self.undecided_RL[row, block].tolist()
        return BlockUpdate(
            id=self.jobs[row].request.id,
            response_start=block.start - prompt_length,
            token_ids=tuple(
                None if masked else token for token, masked in zip(tokens, undecided, strict=True)
            ),
            is_committed=not any(undecided),
            completion=completion,
        )

    def completion(self, row: int, stop_token_ids: frozenset[int]) -> Completion:
        """The completion of a row whose response ends with its active block."""
        request, params = self.jobs[row].request, self.jobs[row].params
        response = slice(self.prompt_length_R[row], self.block_start_R[row] + self.block_size_R[row])
        response_ids = tuple(self.ids_RL[row, response].tolist())
        length, reason = visible_length(response_ids, tuple(stop_token_ids), params.max_new_tokens)
        return Completion(
            id=request.id,
            prompt_ids=request.prompt_ids,
            response_ids=response_ids,
            step_map=tuple(self.steps_RL[row, response].tolist()),
            logprobs=tuple(self.logprobs_RL[row, response].tolist()),
            visible_length=length,
            finish_reason=reason,
            num_denoising_steps=int(self.denoising_steps_R[row]),
            num_commit_forwards=int(self.commits_R[row]),
            params=params,
            mask_token_id=self.mask_token_id,
            seconds=time.perf_counter() - self.admitted_at[row],
        )
