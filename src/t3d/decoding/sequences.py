"""The sequences being decoded, one per slot, as arrays on the host, and those that wait for a slot.

R rows (= slots), L columns of a slot, the first of which are positions, S block size, M places of a forward
where logits are asked for. The tokens of a block are decided on the device; which positions are still masked,
where blocks begin and what is committed is known here, so a forward needs one read.
"""

import time
from collections import deque
from collections.abc import Collection, Iterable

import numpy as np

from t3d.attention.slots import SlotCache
from t3d.decoding.committed import Committed
from t3d.decoding.completion import BlockUpdate, Completion, DecodeRequest
from t3d.decoding.decide import Decisions, SamplingGroups
from t3d.decoding.drafting import Drafting
from t3d.decoding.forward import Forward
from t3d.decoding.jobs import Job, Room
from t3d.trajectory import visible_length


class RowTable:
    """State of all slots; rows ``0 .. num_active - 1`` are being decoded."""

    def __init__(
        self, jobs: Iterable[Job], room: Room, mask_token_id: int, stop_token_ids: frozenset[int]
    ) -> None:
        self.mask_token_id, self.stop_token_ids = mask_token_id, stop_token_ids
        self.waiting = deque(jobs)
        self.num_rows, self.num_active, self.num_columns = room.num_rows, 0, room.num_columns
        self._groups = SamplingGroups(max_kept=2 * self.num_rows)
        """Of rows whose tokens are decided in one call."""
        self.job_R = np.empty(self.num_rows, dtype=object)
        self.drafting_R = np.empty(self.num_rows, dtype=object)
        """None for rows that are not decoded left to right."""
        self.admitted_at_R = np.zeros(self.num_rows)
        cells = (self.num_rows, self.num_columns)
        self.ids_RL = np.full(cells, mask_token_id, dtype=np.int64)
        self.steps_RL = np.zeros(cells, dtype=np.int64)
        self.logprobs_RL = np.zeros(cells)
        self.undecided_RL = np.zeros(cells, dtype=bool)
        # A planned count of 0 after the last step: no block gets there with a mask left.
        self.schedule_RS = np.zeros((self.num_rows, room.max_block_size + 1), dtype=np.int64)
        (
            self.key_R,
            self.seed_R,
            self.group_R,
            self.prompt_length_R,
            self.block_size_R,
            self.read_size_R,
            self.max_new_tokens_R,
            self.committed_R,
            self.block_start_R,
            self.step_in_block_R,
            self.denoising_steps_R,
            self.commits_R,
            self.is_next_R,
            self.tells_steps_R,
        ) = np.zeros((14, self.num_rows), dtype=np.int64)

    @property
    def unfinished(self) -> list[DecodeRequest]:
        """Requests in rows, and those that wait."""
        return [job.request for job in [*self.job_R[: self.num_active], *self.waiting]]

    def admit(self) -> bool:
        """Fill free rows with waiting requests; whether there is anything to do."""
        while self.waiting and self.num_active < self.num_rows:
            self.num_active += 1
            self._begin(self.num_active - 1, self.waiting.popleft())
        return self.num_active > 0

    def _begin(self, row: int, job: Job) -> None:
        """Put a request into a row."""
        request, params = job.request, job.params
        self.job_R[row], self.admitted_at_R[row] = job, time.perf_counter()
        length, size = len(request.prompt_ids), params.block_size
        self.ids_RL[row, :length] = request.prompt_ids
        self.ids_RL[row, length:] = self.mask_token_id
        self.undecided_RL[row, :length] = False
        self.undecided_RL[row, length:] = True
        self.schedule_RS[row] = 0
        self.schedule_RS[row, : len(params.schedule)] = params.schedule
        self.key_R[row] = request.noise_key
        self.seed_R[row] = params.seed
        self.group_R[row] = self._groups.number(params, self.group_R[: self.num_active])
        self.prompt_length_R[row] = length
        self.block_size_R[row] = size
        self.read_size_R[row] = 1 if params.is_left_to_right and params.context == "causal" else size
        self.is_next_R[row] = params.predicts == "next"
        self.tells_steps_R[row] = job.detail == "steps"
        self.drafting_R[row] = Drafting.of_request(request, params) if params.is_left_to_right else None
        self.max_new_tokens_R[row] = params.max_new_tokens
        self.committed_R[row] = 0
        self.block_start_R[row] = length // size * size
        self.step_in_block_R[row] = self.denoising_steps_R[row] = self.commits_R[row] = 0

    def drop(self, ids: Collection[str], cache: SlotCache) -> list[Completion]:
        """End these requests, wherever they are: in a row, or still waiting."""
        dropped = [job for job in self.waiting if job.request.id in ids]
        self.waiting = deque(job for job in self.waiting if job.request.id not in ids)
        rows = [row for row, job in enumerate(self.job_R[: self.num_active]) if job.request.id in ids]
        dropped += self.job_R[rows].tolist()
        for row in reversed(rows):  # so that the last row is none of those still to be freed
            self._free(row, cache)
        return [
            Completion.of_failure(job.request, job.params, self.mask_token_id, "cancelled") for job in dropped
        ]

    def drafting(self) -> list[tuple[int, Drafting]]:
        """The active rows that are decoded left to right."""
        return [(row, own) for row, own in enumerate(self.drafting_R[: self.num_active]) if own is not None]

    def commit(self, forward: Forward, decisions: Decisions) -> Committed:
        """Note what was written and decided."""
        active = slice(0, self.num_active)
        broken = np.unique(forward.row_M[~np.isfinite(decisions.logprob_M)])
        may_draft = [row for row, own in self.drafting() if own.may_draft]
        unread = np.intersect1d(broken, np.array(may_draft, dtype=np.int64))
        # Clean tokens are written now; the active block counts as unwritten until it rides as a clean one.
        written_R = forward.written_R.copy()
        written_R[unread] = 0
        self.committed_R[active] += written_R
        self.denoising_steps_R[active] += forward.denoises_R
        self.step_in_block_R[active] += forward.denoises_R
        self.commits_R[active] += forward.is_commit_R
        chosen_M = decisions.is_committed_M & ~np.isin(forward.row_M, broken)
        checks = []
        for row, own_M in forward.checked.items():
            if chosen_M[own_M.start]:
                drawn, logprobs = decisions.token_M[own_M].tolist(), decisions.logprob_M[own_M].tolist()
                progress = self.drafting_R[row].commit(drawn, logprobs, self.stop_token_ids)
                chosen_M[own_M.start + progress.num_new : own_M.stop] = False
                self.committed_R[row] += progress.num_written
                checks.append(progress.checked)
        for row in unread:
            self.drafting_R[row].draft_no_more()
        row, position = forward.row_M[chosen_M], forward.position_M[chosen_M]
        self.ids_RL[row, position] = decisions.token_M[chosen_M]
        self.logprobs_RL[row, position] = decisions.logprob_M[chosen_M]
        self.steps_RL[row, position] = self.denoising_steps_R[row]
        self.undecided_RL[row, position] = False
        clean = np.flatnonzero(~self.active_masks().any(1))  # a row that did not denoise has masks left
        ended = np.array([row for row, own in self.drafting() if own.has_ended], dtype=np.int64)
        clean = np.union1d(clean, ended)
        num_finished = sum(map(self._num_finished_blocks, clean.tolist()))
        return Committed(clean, num_finished, np.setdiff1d(broken, unread), unread, checks)

    def finish(
        self, forward: Forward, clean: np.ndarray, failures: dict[int, str], cache: SlotCache
    ) -> list[BlockUpdate]:
        """Next blocks for rows whose block is clean; new requests for those that end with it or failed."""
        updates: list[BlockUpdate] = []
        told_R = forward.denoises_R & (self.tells_steps_R[: self.num_active] > 0)
        if told_R.any():
            left = np.setdiff1d(np.flatnonzero(told_R), [*clean.tolist(), *failures])
            updates += [self._update(row, None) for row in left.tolist()]
        if len(clean) == 0 and not failures:
            return updates
        is_last = self._end_responses(clean)
        for row, ends in zip(clean.tolist(), is_last.tolist(), strict=True):
            if ends or self.job_R[row].detail != "completions":
                updates.append(self._update(row, self._completion(row) if ends else None))
        going_on = clean[~is_last]
        self.block_start_R[going_on] = [self._block_end(row) for row in going_on.tolist()]
        self.step_in_block_R[going_on] = 0
        for row, reason in failures.items():
            request, params = self.job_R[row].request, self.job_R[row].params
            failed = Completion.of_failure(request, params, self.mask_token_id, reason)
            updates.append(BlockUpdate.of_end(failed))
            cache.clear(row)  # a softmax weight of zero times NaN is NaN, for whoever has the slot next
        ending = [*clean[is_last].tolist(), *failures]
        for row in sorted(ending, reverse=True):  # so that the last row is none of those still to be freed
            self._free(row, cache)
        return updates

    def _free(self, row: int, cache: SlotCache) -> None:
        """Give a finished row to the next request, or close the gap with the last row.

        What drafts left behind its tokens may be no numbers, which -inf does not hide from whoever is next.
        """
        if self.drafting_R[row] is not None:
            cache.clear(row, int(self.committed_R[row]))
        if self.waiting:
            self._begin(row, self.waiting.popleft())
            return
        last = self.num_active - 1
        if row != last:
            own, num_columns = self.drafting_R[last], int(self.committed_R[last])
            if own is not None:
                num_columns = own.block_start + own.num_kept_columns
            cache.move(last, row, num_columns)
            if own is not None:
                cache.clear(last, num_columns)
            for values in vars(self).values():
                if isinstance(values, np.ndarray):
                    values[row] = values[last]
        self.num_active = last

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

    def _end_responses(self, rows: np.ndarray) -> np.ndarray:
        """Which of these rows' active blocks, just finished, end the response: bool, one per row."""
        row_R1, position_RS, is_inside_RS = self._active_blocks()
        row_R1, position_RS, is_inside_RS = row_R1[rows], position_RS[rows], is_inside_RS[rows]
        is_response_RS = is_inside_RS & (position_RS >= self.prompt_length_R[row_R1])
        is_stop_RS = np.isin(self.ids_RL[row_R1, position_RS], list(self.stop_token_ids))
        has_stop_R = (is_stop_RS & is_response_RS).any(1)
        length_R = self.block_start_R[rows] + self.block_size_R[rows] - self.prompt_length_R[rows]
        is_last = has_stop_R | (length_R >= self.max_new_tokens_R[rows])
        for place, (row, own) in enumerate(zip(rows.tolist(), self.drafting_R[rows], strict=True)):
            if own is not None:
                is_last[place] = own.has_ended
            is_last[place] |= self._num_kept(row, None) is not None
        return is_last

    def _num_kept(self, row: int, limit: int | None) -> int | None:
        """How many of a row's first tokens a text that ends its response keeps; None: it goes on."""
        ends, first = self.job_R[row].ends, int(self.prompt_length_R[row])
        return ends and ends.num_kept(self.ids_RL[row, first : self._block_end(row)].tolist()[:limit])

    def _block_end(self, row: int) -> int:
        """Where the active block of a row ends. Left to right, a forward may commit beyond it, and a response
        may end before."""
        end, own = int(self.block_start_R[row] + self.block_size_R[row]), self.drafting_R[row]
        if own is None:
            return end
        return own.num_tokens if own.has_ended else max(end, own.block_start)

    def _num_finished_blocks(self, row: int) -> int:
        """Blocks from the start of a clean row's active one to its end; a response may end in an open one."""
        return -(-(self._block_end(row) - int(self.block_start_R[row])) // int(self.block_size_R[row]))

    def _update(self, row: int, completion: Completion | None) -> BlockUpdate:
        """The active block of a row as an update."""
        prompt_length, start = int(self.prompt_length_R[row]), int(self.block_start_R[row])
        block = slice(max(start, prompt_length), self._block_end(row))
        first, params = block.start - prompt_length, self.job_R[row].params
        tokens, undecided = self.ids_RL[row, block].tolist(), self.undecided_RL[row, block].tolist()
        num_visible, _ = visible_length(tokens, tuple(self.stop_token_ids), params.max_new_tokens - first)
        if completion is not None:
            num_visible = max(0, completion.visible_length - first)
        return BlockUpdate(
            id=self.job_R[row].request.id,
            response_start=first,
            token_ids=tuple(
                None if masked else token for token, masked in zip(tokens, undecided, strict=True)
            ),
            num_visible=num_visible,
            is_committed=not any(undecided),
            completion=completion,
            step_map=tuple(self.steps_RL[row, block].tolist()),
            logprobs=tuple(self.logprobs_RL[row, block].tolist()),
            stop=params.stop,
        )

    def _completion(self, row: int) -> Completion:
        """The completion of a row whose response ends with its active block."""
        request, params = self.job_R[row].request, self.job_R[row].params
        response, own = slice(self.prompt_length_R[row], self._block_end(row)), self.drafting_R[row]
        response_ids = tuple(self.ids_RL[row, response].tolist())
        length, reason = visible_length(response_ids, tuple(self.stop_token_ids), params.max_new_tokens)
        if (num_kept := self._num_kept(row, length)) is not None:
            length, reason = num_kept, "stop"
            if own is not None:  # what a forward commits behind the answer depends on its draft
                response_ids, response = response_ids[:length], slice(response.start, response.start + length)
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
            num_drafted=0 if own is None else own.num_drafted,
            num_accepted=0 if own is None else own.num_accepted,
            params=params,
            mask_token_id=self.mask_token_id,
            seconds=time.perf_counter() - float(self.admitted_at_R[row]),
        )
