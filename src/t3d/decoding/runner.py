"""Forwards of a model over the slots of a run: as they are, or padded to a few shapes.

A GPU replays the fixed shapes from recorded CUDA graphs. There every row has Q queries, padded where its
span is shorter; padding writes into a scratch slot and its results are never read. Rows, queries and keys
are rounded up, so that a run needs few shapes. R rows, T tokens, Q queries, S block size, N keys, M masked
positions, V vocabulary.
"""

from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from t3d.attention.extend_plan import plan_extend
from t3d.attention.forward import extend_forward
from t3d.attention.slots import AttentionGroup, ExtendPlan, SlotCache, Spans, to_device
from t3d.decoding.forward import Forward
from t3d.decoding.turns import turns_of
from t3d.models.packed import Packs

KEY_BUCKET = 128
"""Keys are rounded up to it, twice it, four times it, ..., and a slot's positions to a multiple of it."""


class ModelRunner:
    """Runs every forward in the shape that it has; where it ``is_gated``, the model's adapter drafts."""

    def __init__(
        self, model: PreTrainedModel, cache: SlotCache, *, is_gated: bool = False, packs: Packs | None = None
    ) -> None:
        self.model, self.cache, self.is_gated, self.packs = model, cache, is_gated, packs
        self.device = next(model.parameters()).device

    def run(self, forward: Forward) -> Float[Tensor, "M V"]:
        """Write its tokens into their slots; logits at its masked positions."""
        with nullcontext() if self.packs is None else self.packs.in_use():
            logits_MV = self._logits(forward)
        if self.device.type == "cuda" and len(forward.row_M) == 0:
            torch.cuda.synchronize(self.device)  # nothing is read: its time would count for the next forward
        return logits_MV

    def _logits(self, forward: Forward) -> Float[Tensor, "M V"]:
        spans, model = forward.spans, self.model
        plan = plan_extend(self.cache, spans, model.config, dtype=model.dtype, device=self.device)
        logits_MV = extend_forward(
            model,
            to_device(self._padded(forward.ids_T), self.device),
            to_device(self._padded(spans.position_T), self.device),
            plan,
            logit_positions=to_device(self._padded(forward.place_M), self.device),
            gated_positions=to_device(forward.drafting_G, self.device) if self.is_gated else None,
        )
        return logits_MV[: len(forward.place_M)]

    def _padded(self, values: np.ndarray) -> np.ndarray:
        """With zeros up to a number of rows that products with copied weights have had before."""
        num_more = 0 if self.packs is None else self.packs.num_rows(len(values)) - len(values)
        return np.pad(values, (0, num_more)) if num_more else values


@dataclass(frozen=True, slots=True)
class _Shape:
    num_rows: int
    num_queries: int
    block_size: int
    num_keys: int


@dataclass(slots=True)
class _Recorded:
    """A shape's input on the device and, once recorded, its graph."""

    numbers: Int[Tensor, "numbers"]
    graph: "torch.cuda.CUDAGraph | None" = None


class FixedShapeRunner(ModelRunner):
    """Pads forwards in which no row has more than two blocks; the last slot takes what padding writes.

    Longer spans and forwards that draw left to right run as they are: the latter's shapes differ each time.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        cache: SlotCache,
        *,
        use_graphs: bool,
        is_gated: bool = False,
        packs: Packs | None = None,
    ) -> None:
        super().__init__(model, cache, is_gated=is_gated, packs=packs)
        self.use_graphs = use_graphs
        self._recorded: dict[_Shape, _Recorded] = {}
        self._outputs: dict[int, Tensor] = {}
        """Where graphs leave their logits, one place for all shapes with as many."""
        self._pool = None

    def has_room(self, num_rows: int, num_positions: int) -> bool:
        """Whether its slots suffice."""
        return self.cache.num_slots > num_rows and self.cache.num_positions >= num_positions

    def _logits(self, forward: Forward) -> Float[Tensor, "M V"]:
        spans = forward.spans
        if forward.checked or (spans.length_R > 2 * spans.block_size_R).any():
            return super()._logits(forward)
        shape = self._shape(spans)
        numbers = self._numbers(spans, forward.ids_T, shape)
        if shape not in self._recorded:
            self._recorded[shape] = _Recorded(
                torch.empty(len(numbers), dtype=torch.int64, device=self.device)
            )
        recorded = self._recorded[shape]
        recorded.numbers.copy_(to_device(numbers, self.device), non_blocking=True)
        logits_RSV = self._replay(recorded, shape) if self.use_graphs else self._run(recorded.numbers, shape)
        block_start_R = np.zeros(shape.num_rows, dtype=np.int64)
        block_start_R[spans.slot_R] = spans.end_R - spans.block_size_R
        picked_M = forward.row_M * shape.block_size + forward.position_M - block_start_R[forward.row_M]
        return logits_RSV[to_device(picked_M, self.device)]

    def _shape(self, spans: Spans) -> _Shape:
        num_rows = min(1 << int(spans.slot_R[-1]).bit_length(), self.cache.num_slots - 1)
        num_rows = max(num_rows, int(spans.slot_R[-1]) + 1)
        block_size = int(spans.block_size_R.max())
        num_queries = block_size if spans.length_R.max() <= block_size else 2 * block_size
        num_keys = KEY_BUCKET << (-(-int(spans.end_R.max()) // KEY_BUCKET) - 1).bit_length()
        return _Shape(num_rows, num_queries, block_size, min(num_keys, self.cache.num_positions))

    def _numbers(self, spans: Spans, ids_T: np.ndarray, shape: _Shape) -> np.ndarray:
        """Token ids, positions, places and limits ``[R, Q]``, and queries with logits ``[R, S]``, as one."""
        grid = np.zeros((4, shape.num_rows, shape.num_queries), dtype=np.int64)
        ids_RQ, position_RQ, place_RQ, limit_RQ = grid
        place_RQ[:] = (self.cache.num_slots - 1) * self.cache.num_positions
        limit_RQ[:] = 1  # padding looks at position 0, so that no softmax is empty
        slot_T, position_T = spans.slot_T, spans.position_T
        column_T = position_T - np.repeat(spans.start_R, spans.length_R)
        size_T = np.repeat(spans.block_size_R, spans.length_R)
        ids_RQ[slot_T, column_T] = ids_T
        position_RQ[slot_T, column_T] = position_T
        place_RQ[slot_T, column_T] = slot_T * self.cache.num_positions + position_T
        limit_RQ[slot_T, column_T] = (position_T // size_T + 1) * size_T
        first_R = np.zeros(shape.num_rows, dtype=np.int64)
        first_R[spans.slot_R] = np.maximum(0, spans.length_R - spans.block_size_R)
        column_RS = np.minimum(first_R[:, None] + np.arange(shape.block_size), shape.num_queries - 1)
        query_RS = np.arange(shape.num_rows)[:, None] * shape.num_queries + column_RS
        return np.concatenate([grid.ravel(), query_RS.ravel()])

    def _run(self, numbers: Tensor, shape: _Shape) -> Float[Tensor, "RS V"]:
        """The forward, a function of ``numbers`` and the slots alone."""
        num_tokens = shape.num_rows * shape.num_queries
        ids_T, position_T, place_T, limit_T, query_N = numbers.split(
            [num_tokens] * 4 + [shape.num_rows * shape.block_size]
        )
        config = self.model.config
        sees_TN = torch.arange(shape.num_keys, device=self.device) < limit_T[:, None]
        bias_RQN = torch.zeros(sees_TN.shape, dtype=self.model.dtype, device=self.device)
        bias_RQN = bias_RQN.masked_fill_(~sees_TN, -torch.inf).view(shape.num_rows, shape.num_queries, -1)
        group = AttentionGroup(
            slots=slice(0, shape.num_rows),
            num_rows=shape.num_rows,
            num_keys=shape.num_keys,
            token_RQ=None,
            padded_T=None,
            tokens=slice(None),
            bias_RQN=bias_RQN.repeat(1, config.num_attention_heads // config.num_key_value_heads, 1)[:, None],
        )
        plan = ExtendPlan(cache=self.cache, place_T=place_T, groups=(group,))
        return extend_forward(self.model, ids_T, position_T, plan, logit_positions=query_N)

    def _replay(self, recorded: _Recorded, shape: _Shape) -> Float[Tensor, "RS V"]:
        """Replay a shape's graph, recorded at its first use; the next replay overwrites the result."""
        with torch.cuda.device(self.device):
            if recorded.graph is None:
                recorded.graph = self._record(recorded.numbers, shape)
            recorded.graph.replay()
        return self._outputs[shape.num_rows * shape.block_size]

    def _record(self, numbers: Tensor, shape: _Shape) -> "torch.cuda.CUDAGraph":
        """Run the shape on a side stream, as CUDA asks for, then record it."""
        side = torch.cuda.Stream(self.device)
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            logits = self._run(numbers, shape)
            self._outputs.setdefault(len(logits), torch.empty_like(logits))
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        with torch.cuda.graph(graph, pool=self._pool, stream=side):
            self._outputs[len(logits)].copy_(self._run(numbers, shape))
        return graph


class RunnerPool:
    """Runners of a model; one with fixed shapes serves the next run too, with its slots and graphs."""

    def __init__(
        self,
        model: PreTrainedModel,
        max_batch_size: int,
        *,
        fixed_shapes: bool,
        use_graphs: bool,
        is_gated: bool = False,
        packs: Packs | None = None,
        max_packed_bytes: int | None = None,
    ) -> None:
        self.model, self.max_batch_size, self.is_gated = model, max_batch_size, is_gated
        self.packs, self.max_packed_bytes = packs, max_packed_bytes
        self.fixed_shapes, self.use_graphs = fixed_shapes, use_graphs
        self._idle: FixedShapeRunner | None = None
        self._idle_weights: tuple[int, ...] = ()

    @contextmanager
    def lend(self, num_rows: int, num_positions: int) -> Generator[ModelRunner]:
        """A runner with slots for one run. Of two that come back, the one with the larger slots is kept.

        Its end takes no lock: a stream that nobody reads on with ends wherever Python collects it.
        """
        if self.packs is not None:
            with turns_of(self.model):
                self.packs.refresh(self.model, self.max_packed_bytes)
        if not self.fixed_shapes:
            cache = SlotCache(num_rows, num_positions)
            yield ModelRunner(self.model, cache, is_gated=self.is_gated, packs=self.packs)
            return
        with turns_of(self.model):
            runner = self._take(num_rows, num_positions)
        is_sound = True
        try:
            yield runner
        except BaseException as error:
            # A graph may be half recorded; in a stream that nobody read on, drafts' numbers may be none.
            is_sound = isinstance(error, GeneratorExit) and not self.is_gated
            raise
        finally:
            idle = self._idle
            if is_sound and (idle is None or runner.cache.num_bytes >= idle.cache.num_bytes):
                self._idle = runner

    def _take(self, num_rows: int, num_positions: int) -> FixedShapeRunner:
        weights = tuple(weight.data_ptr() for weight in self.model.parameters())  # a graph holds these
        idle, self._idle = self._idle, None  # a run beside this one gets its own
        if idle is not None and weights == self._idle_weights and idle.has_room(num_rows, num_positions):
            return idle
        self._idle_weights = weights
        idle = None  # its memory goes before the new slots come
        num_rows = min(1 << (num_rows - 1).bit_length(), self.max_batch_size) if num_rows else 0
        num_positions = -(-num_positions // KEY_BUCKET) * KEY_BUCKET
        cache = SlotCache(num_rows + 1, num_positions)  # one more for what padding writes
        return FixedShapeRunner(
            self.model, cache, use_graphs=self.use_graphs, is_gated=self.is_gated, packs=self.packs
        )
