"""The decoding engine: every forward extends sequences, and no forward is spent on anything else.

A row adds ``[clean tokens that are not written yet] + [its active block]`` to a forward: the prompt
at first, the block just finished later. Prefill, commit and denoising are therefore one forward, and a
block costs as many forwards as it has denoising steps. Rows are independent: each is at its own block
and step, and a finished one hands its slot to the next request.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from t3d.attention.extend_plan import plan_extend
from t3d.attention.forward import extend_forward
from t3d.attention.slots import SlotCache, Spans, to_device
from t3d.decoding.completion import (
    BlockUpdate,
    Completion,
    DecodingError,
    check_request,
    num_positions_needed,
)
from t3d.decoding.decide import MaskedPositions, decide
from t3d.decoding.fixed_shapes import KEY_BUCKET, FixedShapeRunner
from t3d.decoding.sequences import Job, RowTable
from t3d.decoding.stats import EngineStats
from t3d.errors import InputError, require_positive, require_unique_ids


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """How the engine uses the machine; none of it changes what is decoded, near-ties of rounding aside."""

    max_batch_size: int = 256
    """Sequences decoded together: slots."""
    max_model_len: int | None = None
    """Most positions of a request, prompt and response; None: as many as the model has."""
    max_prefill_tokens: int = 2048
    """Prompt tokens in one forward; a longer prompt is written in several, at least a block in each."""
    fuse_commits: bool = True
    """Write a finished block in the next block's first forward; False spends a forward on it."""
    fixed_shapes: bool | None = None
    """Pad denoising forwards to a few shapes; None: where CUDA graphs replay them."""
    enforce_eager: bool = True
    """No CUDA graphs. False records and replays them; that has not run on a GPU yet."""

    def __post_init__(self) -> None:
        require_positive(self, "max_batch_size", "max_model_len", "max_prefill_tokens")


class Engine:
    """Decodes requests of one model; ``stats`` adds up over its calls."""

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        mask_token_id: int,
        stop_token_ids: Sequence[int],
        config: EngineConfig | None = None,
    ) -> None:
        self.model, self.config = model, config or EngineConfig()
        self.mask_token_id, self.stop_token_ids = mask_token_id, frozenset(stop_token_ids)
        self.stats = EngineStats.of_model(model, self.config.max_batch_size)
        on_cuda = next(model.parameters()).device.type == "cuda"
        # The experts' loop of transformers reads from the device, which no graph can hold.
        graphs_possible = on_cuda and not hasattr(model.config, "num_experts")
        self.has_graphs = graphs_possible and not self.config.enforce_eager
        wanted = self.config.fixed_shapes
        self.has_fixed_shapes = self.has_graphs if wanted is None else wanted
        self._idle: tuple[SlotCache, FixedShapeRunner] | None = None
        self._idle_weights: tuple[int, ...] = ()
        limit = model.config.max_position_embeddings
        self.max_model_len = min(limit, self.config.max_model_len or limit)
        self.whose_limit = "the model has" if self.max_model_len == limit else "max_model_len is"

    def take_slots(self, num_rows: int, num_positions: int) -> tuple[SlotCache, FixedShapeRunner | None]:
        """Slots for a run: with fixed shapes those of an earlier one if they suffice, and their graphs."""
        if not self.has_fixed_shapes:
            return SlotCache(num_rows, num_positions), None
        weights = tuple(weight.data_ptr() for weight in self.model.parameters())  # a graph holds these
        idle, self._idle = self._idle, None  # a run beside this one gets its own
        if idle is not None and weights == self._idle_weights:
            cache = idle[0]
            if cache.num_slots > num_rows and cache.num_positions >= num_positions:
                return idle
        self._idle_weights = weights
        idle = None  # its memory goes before the new slots come
        num_rows = min(1 << (num_rows - 1).bit_length(), self.config.max_batch_size) if num_rows else 0
        num_positions = -(-num_positions // KEY_BUCKET) * KEY_BUCKET
        cache = SlotCache(num_rows + 1, num_positions)  # one more for what padding writes
        return cache, FixedShapeRunner(self.model, cache, use_graphs=self.has_graphs)

    def give_back(self, cache: SlotCache, runner: FixedShapeRunner) -> None:
        """Keep the slots of a finished run for the next one; of two runs, the larger ones."""
        if self._idle is None or cache.num_bytes >= self._idle[0].num_bytes:
            self._idle = (cache, runner)

    def stream(self, jobs: Sequence[Job], *, provisional: bool = False) -> Iterator[BlockUpdate]:
        """Decode jobs and yield each block as soon as it is finished, the last with its completion.

        With ``provisional`` also what every other denoising step leaves. A request that can never be
        decoded yields a completion with an error at once. Raises InputError for an id used twice and
        DecodingError if a forward fails; it holds what is finished.
        """
        require_unique_ids((job.request.id for job in jobs), "requests")
        return _Run(self, jobs).updates(blocks=True, provisional=provisional)

    def decode(
        self, jobs: Sequence[Job], on_finish: Callable[[Completion], None] | None = None
    ) -> dict[str, Completion]:
        """Completions by request id, refusals included; ``on_finish`` gets each as soon as it is there."""
        require_unique_ids((job.request.id for job in jobs), "requests")
        run = _Run(self, jobs)
        for update in run.updates(blocks=False):
            if on_finish is not None and update.completion is not None:
                on_finish(update.completion)
        return run.finished


class _Run:
    """One call of the engine."""

    def __init__(self, engine: Engine, jobs: Sequence[Job]) -> None:
        self.engine = engine
        self.device = next(engine.model.parameters()).device
        self.finished: dict[str, Completion] = {}
        self.waiting: deque[Job] = deque()
        for job in jobs:
            try:
                check_request(job.request, job.params, engine.max_model_len, engine.whose_limit)
            except InputError as error:
                self.finished[job.request.id] = Completion.of_refusal(
                    job.request, job.params, engine.mask_token_id, error
                )
            else:
                self.waiting.append(job)
        num_rows = min(engine.config.max_batch_size, len(self.waiting))
        needed = [num_positions_needed(job.request, job.params) for job in self.waiting]
        num_positions = max(needed, default=0)
        max_block_size = max((job.params.block_size for job in self.waiting), default=0)
        self.rows = RowTable(num_rows, num_positions, max_block_size, engine.mask_token_id)
        self.cache: SlotCache
        self.fixed: FixedShapeRunner | None
        self.stops = np.array(sorted(engine.stop_token_ids), dtype=np.int64)

    def updates(self, *, blocks: bool, provisional: bool = False) -> Iterator[BlockUpdate]:
        """Run to the end; without ``blocks`` only the updates that bring a completion."""
        for completion in self.finished.values():
            yield BlockUpdate.of_completion(completion)
        self.cache, self.fixed = self.engine.take_slots(self.rows.num_rows, self.rows.ids_RL.shape[1])
        is_sound = True
        try:
            while self._admit():
                yield from self._advance(blocks, provisional)
        except Exception:
            is_sound = False  # a graph may be half recorded
            raise
        finally:
            stats = self.engine.stats
            stats.kv_bytes = max(stats.kv_bytes, self.cache.num_bytes)
            if is_sound and self.fixed is not None:
                self.engine.give_back(self.cache, self.fixed)

    def _advance(self, blocks: bool, provisional: bool) -> list[BlockUpdate]:
        """One forward and all that follows from it. Raises DecodingError, with what is finished."""
        started = time.perf_counter()
        try:
            denoises_R, is_clean_R = self._forward()
            updates = []
            if provisional:
                rows_left = np.flatnonzero(denoises_R & ~is_clean_R)
                updates = [self.rows.update(row, None) for row in rows_left.tolist()]
            updates += self._finish_blocks(np.flatnonzero(is_clean_R), blocks)
        except Exception as error:
            first_line = str(error).partition("\n")[0]
            reason = f"{type(error).__name__}: {first_line}"
            running = [job for job in [*self.rows.jobs, *self.waiting] if job.request.id not in self.finished]
            raise DecodingError.of_results({j.request.id: reason for j in running}, self.finished) from error
        if self.device.type == "cuda" and not denoises_R.any():
            torch.cuda.synchronize(self.device)  # nothing was read: its time would count for the next forward
        self.engine.stats.count_seconds(time.perf_counter() - started)
        return updates

    def _admit(self) -> bool:
        """Fill free rows; whether there is anything to do."""
        rows = self.rows
        while self.waiting and rows.num_active < rows.num_rows:
            rows.admit(rows.num_active, self.waiting.popleft())
        return rows.num_active > 0

    @torch.inference_mode()
    def _forward(self) -> tuple[np.ndarray, np.ndarray]:
        """One forward of all rows and what it commits: which rows denoised, and which of them are clean."""
        engine, rows, active = self.engine, self.rows, slice(0, self.rows.num_active)
        committed_R, block_start_R = rows.committed_R[active], rows.block_start_R[active]
        size_R = rows.block_size_R[active]
        written_R, denoises_R = rows.share_out(engine.config.max_prefill_tokens, engine.config.fuse_commits)
        end_R = np.where(denoises_R, block_start_R + size_R, committed_R + written_R)
        noise_mask_RS = rows.active_masks() & denoises_R[:, None]
        used = np.flatnonzero(end_R > committed_R)
        spans = Spans(slot_R=used, start_R=committed_R[used], end_R=end_R[used], block_size_R=size_R[used])
        row_M, column_M = np.nonzero(noise_mask_RS)
        logits_MV = self._logits(spans, row_M, block_start_R[row_M] + column_M)
        rows.denoising_steps_R[active] += denoises_R
        if len(row_M):
            self._commit(logits_MV, noise_mask_RS)
        is_commit_R = ~denoises_R & (written_R > 0) & (rows.denoising_steps_R[active] > 0)
        rows.commits_R[active] += is_commit_R
        rows.step_in_block_R[active] += denoises_R
        # Clean tokens are written now; the active block counts as unwritten until it rides as a clean one.
        rows.committed_R[active] = committed_R + written_R
        engine.stats.count_forward(
            spans,
            num_logits=len(row_M),
            num_steps=int(denoises_R.sum()),
            num_commits=int(is_commit_R.sum()),
            writes_prompt=bool(((written_R > 0) & (rows.denoising_steps_R[active] <= denoises_R)).any()),
        )
        return denoises_R, denoises_R & ~rows.active_masks().any(1)

    def _logits(self, spans: Spans, row_M: np.ndarray, position_M: np.ndarray) -> Tensor:
        """Run the model over all spans; logits ``[M, V]`` at the masked positions."""
        model = self.engine.model
        if self.fixed is not None and (spans.length_R <= 2 * spans.block_size_R).all():
            return self.fixed.logits(spans, self.rows.ids_RL, row_M, position_M)
        plan = plan_extend(self.cache, spans, model.config, dtype=model.dtype, device=self.device)
        # Where each row's position 0 would lie on the token axis
        origin_R = np.zeros(self.rows.num_active, dtype=np.int64)
        origin_R[spans.slot_R] = spans.first_R - spans.start_R
        return extend_forward(
            model,
            to_device(self.rows.ids_RL[spans.slot_T, spans.position_T], self.device),
            to_device(spans.position_T, self.device),
            plan,
            logit_positions=to_device(origin_R[row_M] + position_M, self.device),
        )

    def _commit(self, logits_MV: Tensor, noise_mask_RS: np.ndarray) -> None:
        """Decide the masked positions, group by group of rows with equal sampling settings."""
        rows = self.rows
        row_M, column_M = np.nonzero(noise_mask_RS)
        position_M = rows.block_start_R[row_M] + column_M
        groups = rows.sampling_groups()
        for params, members in groups:
            picked = slice(None) if len(groups) == 1 else np.flatnonzero(np.isin(row_M, members))
            row, position = row_M[picked], position_M[picked]
            if len(row) == 0:
                continue
            counters = (rows.seed_R[row], rows.key_R[row], position, rows.denoising_steps_R[row])
            masked = MaskedPositions(
                noise_mask_RS=noise_mask_RS[members],
                num_planned_R=rows.schedule_RS[members, rows.step_in_block_R[members]],
                counter_M=counters,
            )
            logits = logits_MV if isinstance(picked, slice) else logits_MV[to_device(picked, self.device)]
            rows.commit(row, position, decide(logits, masked, params, self.engine.mask_token_id))

    @torch.inference_mode()
    def _finish_blocks(self, clean_rows: np.ndarray, blocks: bool) -> list[BlockUpdate]:
        """Next blocks for rows whose block is clean; completions and new requests for finished ones."""
        if len(clean_rows) == 0:
            return []
        rows, updates = self.rows, []
        ends = dict(zip(clean_rows.tolist(), rows.are_finished(clean_rows, self.stops), strict=True))
        stats = self.engine.stats
        stats.blocks += len(ends)
        for row, is_last in ends.items():
            if not is_last:
                if blocks:
                    updates.append(rows.update(row, None))
                continue
            completion = rows.completion(row, self.engine.stop_token_ids)
            self.finished[completion.id] = completion
            stats.count_completion(completion)
            updates.append(rows.update(row, completion))
        rows.next_block(np.array([row for row, is_last in ends.items() if not is_last], dtype=np.int64))
        for row in sorted((row for row, is_last in ends.items() if is_last), reverse=True):
            self._free(row)
        return updates

    def _free(self, row: int) -> None:
        """Give a finished row to the next request, or close the gap with the last row."""
        rows, last = self.rows, self.rows.num_active - 1
        if self.waiting:
            rows.admit(row, self.waiting.popleft())
            return
        if row != last:
            self.cache.move(last, row, int(rows.committed_R[last]))
            rows.move(last, row)
        rows.drop_last()
