"""The decoding engine: every forward extends sequences, and no forward is spent on anything else.

A row adds ``[clean tokens that are not written yet] + [its active block]`` to a forward: the prompt
at first, the block just finished later. Prefill, commit and denoising are therefore one forward, and a
block costs as many forwards as it has denoising steps. Left to right, a row reads open tokens, a draft and
masks in the place of its active block (:mod:`t3d.decoding.drafting`). Rows are independent: each is at its
own block and step, and a finished one hands its slot to the next request.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from t3d.attention.slots import SlotCache
from t3d.decoding.completion import (
    BlockUpdate,
    Completion,
    DecodingError,
    check_request,
    check_token_ids,
)
from t3d.decoding.decide import decide
from t3d.decoding.draft_costs import FORWARD_COST
from t3d.decoding.drafting import num_columns_needed
from t3d.decoding.jobs import Arrivals, Job, Room
from t3d.decoding.params import BATCH_SIZE
from t3d.decoding.runner import ModelRunner, RunnerPool
from t3d.decoding.scheduling import schedule
from t3d.decoding.sequences import RowTable
from t3d.decoding.stats import EngineStats
from t3d.decoding.turns import turns_of
from t3d.errors import InputError, require_positive, require_unique_ids
from t3d.models.gated import Gated, attached
from t3d.models.packed import MAX_BYTES, Packs, can_pack, forget_packs_of, packs_of
from t3d.work.weights import first_not_finite

SCRATCH_COLUMNS = 256
"""Columns behind the positions of a slot that takes any request that fits: for drafts and checks."""


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """How the engine uses the machine; none of it changes what is decoded, near-ties of rounding aside."""

    max_batch_size: int = BATCH_SIZE
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

    pack_weights: bool | None = None
    """Multiply with a second copy of the weights in oneDNN's layout, which is faster for few tokens: on an
    x86 CPU alone, bfloat16 where it has that. None: there, if the copy takes no more than 4 GiB."""
    forward_cost: int = FORWARD_COST
    """What a forward costs besides the positions that it reads, in positions: for ``draft_groups="auto"``."""

    def __post_init__(self) -> None:
        require_positive(self, "max_batch_size", "max_model_len", "max_prefill_tokens", "forward_cost")


class Engine:
    """Decodes requests of one model; ``stats`` adds up over its calls.

    Threads may share an engine, and engines a model: their forwards take turns, and each call decodes what it
    would alone. A ``drafter`` is what is attached to the model for its drafts: it drafts for
    ``self_speculative``, and changes nothing else; a request ends its drafts where a forward with some gives
    numbers that are none (NaN), and reads the same again without.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        mask_token_id: int,
        stop_token_ids: Sequence[int],
        config: EngineConfig | None = None,
        drafter: Gated | None = None,
    ) -> None:
        if drafter is not None and attached(model) is not drafter:
            problem, fix = "not attached to this model", "load it for this model with load_drafter"
            raise InputError("drafter", type(drafter).__name__, problem, fix)
        self.model, self.config = model, config or EngineConfig()
        self.mask_token_id, self.stop_token_ids = mask_token_id, frozenset(stop_token_ids)
        self.stats = EngineStats(max_batch_size=self.config.max_batch_size)
        self._turns = turns_of(model)
        on_cuda = next(model.parameters()).device.type == "cuda"
        # The experts' loop of transformers reads from the device, which no graph can hold.
        graphs_possible = on_cuda and not hasattr(model.config, "num_experts")
        use_graphs = graphs_possible and not self.config.enforce_eager
        fixed_shapes = use_graphs if self.config.fixed_shapes is None else self.config.fixed_shapes
        self._runners = RunnerPool(
            model,
            self.config.max_batch_size,
            fixed_shapes=fixed_shapes,
            use_graphs=use_graphs,
            is_gated=drafter is not None,
            packs=_packs(model, self.config.pack_weights),
            max_packed_bytes=MAX_BYTES if self.config.pack_weights is None else None,
        )
        limit = model.config.max_position_embeddings
        self.max_model_len = min(limit, self.config.max_model_len or limit)
        self.whose_limit = "the model has" if self.max_model_len == limit else "max_model_len is"

    def stream(self, jobs: Sequence[Job] | Arrivals) -> Iterator[BlockUpdate]:
        """Decode jobs and yield each block as soon as it is finished, the last with its completion.

        Of jobs with ``detail`` "steps" also what every other denoising step leaves, with "completions" only
        the last block. A request that can never be decoded yields a completion with an error at once, and one
        whose logits are not numbers as soon as they are not; the others do not change. Raises InputError for
        an id used twice and DecodingError if a forward fails; it holds what is finished.

        Of Arrivals, jobs that come while others are decoded join them at the next forward, and those that
        are cancelled end with an error. Slots have room for any request of up to ``max_model_len`` positions
        and are kept until the end; a DecodingError holds nothing that was told before.
        """
        if isinstance(jobs, Arrivals):
            return self._updates([], jobs, self._open_room)
        require_unique_ids((job.request.id for job in jobs), "requests")
        return self._of_jobs(jobs)

    def check(self, job: Job) -> None:
        """Raise InputError for a request that no call can decode."""
        check_request(job.request, job.params, self.max_model_len, self.whose_limit)
        check_token_ids(job.request, self.model.config.vocab_size)

    def check_arrival(self, job: Job) -> None:
        """Raise InputError for a request that Arrivals cannot bring."""
        self.check(job)
        needed, room = num_columns_needed(job.request, job.params), self._open_room.num_columns
        if needed > room:
            problem = f"its drafts and their checks take {needed} columns of a slot, which has {room}"
            raise InputError("block_size", job.params.block_size, problem, "use smaller blocks or drafts")

    def decode(self, jobs: Sequence[Job]) -> dict[str, Completion]:
        """:meth:`stream` to the end; completions by request id, refusals included."""
        completions = [update.completion for update in self.stream(jobs)]
        return {completion.id: completion for completion in completions if completion is not None}

    @property
    def _open_room(self) -> Room:
        size = self.max_model_len
        return Room(self.config.max_batch_size, size + SCRATCH_COLUMNS, size)

    def _of_jobs(self, jobs: Sequence[Job]) -> Iterator[BlockUpdate]:
        refused = [self._refusal(job, self.check) for job in jobs]
        accepted = [job for job, refusal in zip(jobs, refused, strict=True) if refusal is None]
        nothing_else = Arrivals()
        nothing_else.close()
        finished = {refusal.id: refusal for refusal in refused if refusal is not None}
        for refusal in list(finished.values()):
            yield BlockUpdate.of_end(refusal)
        room = Room.of_jobs(accepted, self.config.max_batch_size)
        try:
            for update in self._updates(accepted, nothing_else, room):
                if update.completion is not None:
                    finished[update.id] = update.completion
                yield update
        except DecodingError as error:
            raise DecodingError.of_results(error.problems, finished) from error.__cause__

    def _updates(self, jobs: Iterable[Job], arrivals: Arrivals, room: Room) -> Iterator[BlockUpdate]:
        """Those of jobs that are checked already, and of all that arrive."""
        rows = RowTable(jobs, room, self.mask_token_id, self.stop_token_ids)
        with self._runners.lend(rows.num_rows, rows.num_columns) as runner:
            try:
                while True:
                    yield from self._let_in(rows, arrivals, runner.cache)
                    if rows.admit():
                        with self._turns:
                            updates = self._step(rows, runner)
                        yield from updates
                    elif arrivals.is_over:
                        return
            except Exception as error:
                first_line = str(error).partition("\n")[0]
                reason = f"{type(error).__name__}: {first_line}"
                raise DecodingError({request.id: reason for request in rows.unfinished}, {}) from error

    def _let_in(self, rows: RowTable, arrivals: Arrivals, cache: SlotCache) -> Iterator[BlockUpdate]:
        """What has come waits for a row, what was cancelled ends; without other work, wait for either."""
        jobs, cancelled = arrivals.take(wait=not (rows.num_active or rows.waiting))
        for job in jobs:
            refusal = self._refusal(job, self.check_arrival)
            if refusal is None:
                rows.waiting.append(job)
            else:
                yield BlockUpdate.of_end(refusal)
        if cancelled:
            with torch.inference_mode():  # the slots' tensors were made in it
                dropped = rows.drop(cancelled, cache)
            yield from map(BlockUpdate.of_end, dropped)

    def _refusal(self, job: Job, check: Callable[[Job], None]) -> Completion | None:
        """The completion of a request that can never be decoded."""
        try:
            check(job)
        except InputError as error:
            return Completion.of_failure(job.request, job.params, self.mask_token_id, str(error))
        return None

    def _why_broken(self) -> str:
        """Why a forward's logits may not be numbers: the first broken weight, if there is one."""
        weight = first_not_finite(self.model.named_parameters())
        if weight is not None:
            cause, fix = f"its weight {weight} is not finite", "give a checkpoint with finite weights"
        else:
            cause, fix = (
                f"its weights are finite, this request overflows in {self.model.dtype}",
                "try float32",
            )
        return f"the model's logits are not numbers (NaN): {cause}. Fix: {fix}."

    @torch.inference_mode()
    def _step(self, rows: RowTable, runner: ModelRunner) -> list[BlockUpdate]:
        """One forward and all that follows from it."""
        started = time.perf_counter()
        config = self.config
        forward = schedule(
            rows,
            config.max_prefill_tokens,
            fuse_commits=config.fuse_commits,
            forward_cost=config.forward_cost,
        )
        logits_MV = runner.run(forward)
        left = rows.commit(forward, decide(logits_MV, forward.masked, self.mask_token_id))
        failures = dict.fromkeys(left.broken.tolist(), self._why_broken()) if len(left.broken) else {}
        for row in left.unread.tolist():
            runner.cache.clear(row, int(rows.committed_R[row]))
        updates = rows.finish(forward, left.clean, failures, runner.cache)
        self.stats.count_forward(
            forward,
            left,
            completions=[update.completion for update in updates if update.completion is not None],
            kv_bytes=runner.cache.num_bytes,
            seconds=time.perf_counter() - started,
        )
        return updates


def _packs(model: PreTrainedModel, is_wanted: bool | None) -> Packs | None:
    """The copies to multiply with; None where there are none, or where they would not help."""
    if is_wanted is False:
        return None
    is_possible = model.device.type == "cpu" and can_pack(model.dtype)
    if is_wanted and not is_possible:
        having = "float32 on an x86 CPU, or bfloat16 on one with instructions for it"
        problem = f"only {having} has such products, not {model.dtype} on {model.device}"
        raise InputError("pack_weights", is_wanted, problem, "leave it out")
    if not is_possible:
        forget_packs_of(model)
        return None
    return packs_of(model)
