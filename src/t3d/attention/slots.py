"""Keys and values in slots, and what a forward over several sequences has to know about them.

A *slot* is the contiguous memory of one sequence, reserved for its whole length. T tokens of a
forward, R rows of an attention group, Q queries per row, N keys, G key-value heads, D head
dimension, g query heads per key-value head.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


class SlotCache:
    """Keys and values by column: ``[slots, columns, kv_heads, head_dim]`` per layer.

    The column of a token is its position, but for tokens that only one forward reads (:class:`ScratchSpan`).
    Layers allocate at their first write, with the heads and dtype that they bring (under tensor
    parallelism a process holds its own share of the heads). Rewriting a position replaces it, so the
    block being denoised costs no extra memory and needs no roll-back. What lies beyond a row's own
    active block is stale and must be masked.
    """

    def __init__(self, num_slots: int, num_positions: int) -> None:
        self.num_slots, self.num_positions = num_slots, num_positions
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    def layer(self, layer_index: int, like_TGD: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer, each ``[slots, positions, G, D]``."""
        if layer_index not in self._layers:
            # Zeros: a softmax weight of zero times uninitialised memory could be NaN.
            shape = (self.num_slots, self.num_positions, *like_TGD.shape[1:])
            self._layers[layer_index] = (like_TGD.new_zeros(shape), like_TGD.new_zeros(shape))
        return self._layers[layer_index]

    def move(self, source: int, target: int, num_positions: int) -> None:
        """Copy the first positions of one slot to another."""
        for slots in self._layers.values():
            for values in slots:
                values[target, :num_positions] = values[source, :num_positions]

    def clear(self, slot: int, first: int = 0) -> None:
        """Forget what a slot holds, from its column ``first`` on."""
        for slots in self._layers.values():
            for values in slots:
                values[slot, first:].zero_()

    @property
    def num_bytes(self) -> int:
        """Memory of all layers; 0 before the first forward."""
        return sum(values.nbytes for slots in self._layers.values() for values in slots)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionGroup:
    """Rows whose attention runs as one call: as many queries each, padded, over as many keys."""

    slots: slice | Int[Tensor, "R"]
    """Their slots: a slice reads in place, an index copies."""
    num_rows: int
    num_keys: int
    token_RQ: Int[Tensor, "R Q"] | None
    """Which token of the forward each query is; None if the group is all tokens in order."""
    padded_T: Int[Tensor, "T"] | None
    """Where the group's tokens lie among its R x Q queries; None without padding."""
    tokens: slice | Int[Tensor, "T"]
    """The group's tokens among those of the forward, row by row."""
    bias_RQN: Float[Tensor, "R 1 gQ N"] | None
    """0 where a query may look and minus infinity elsewhere, repeated for query heads that share keys;
    None if every query may look at every key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtendPlan:
    """What one forward's attention needs to know: where keys go and who looks at what."""

    cache: SlotCache
    place_T: Int[Tensor, "T"]
    """``slot * positions + position`` of every token."""
    groups: tuple[AttentionGroup, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScratchSpan:
    """Q tokens of one row, in columns behind all that stays, whatever their positions.

    They see that, and some of the N columns behind it: each other, and what earlier forwards put there."""

    position_Q: np.ndarray
    column_Q: np.ndarray
    sees_QN: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Spans:
    """Consecutive columns ``start .. end - 1`` of one slot per row, before a forward (host side).

    These are positions, block-causal; a row's scratch comes after them. Rows are sorted by slot.
    """

    slot_R: np.ndarray
    start_R: np.ndarray
    end_R: np.ndarray
    block_size_R: np.ndarray
    scratch: Mapping[int, ScratchSpan] = field(default_factory=dict)
    """By row (its place here): its tokens behind ``end``."""

    @cached_property
    def length_R(self) -> np.ndarray:
        """Tokens of each row."""
        length_R = self.end_R - self.start_R
        for row, span in self.scratch.items():
            length_R[row] += len(span.column_Q)
        return length_R

    @cached_property
    def first_R(self) -> np.ndarray:
        """Where each row begins among the tokens of the forward."""
        return np.cumsum(self.length_R) - self.length_R

    @cached_property
    def slot_T(self) -> np.ndarray:
        """Slot of every token, row by row."""
        return np.repeat(self.slot_R, self.length_R)

    @cached_property
    def column_T(self) -> np.ndarray:
        """Column of every token in its slot."""
        shift_T = np.repeat(self.first_R - self.start_R, self.length_R)
        column_T = np.arange(len(shift_T)) - shift_T
        for row, span in self.scratch.items():
            column_T[self.scratch_tokens(row)] = span.column_Q
        return column_T

    @cached_property
    def position_T(self) -> np.ndarray:
        """Position of every token."""
        if not self.scratch:
            return self.column_T
        position_T = self.column_T.copy()
        for row, span in self.scratch.items():
            position_T[self.scratch_tokens(row)] = span.position_Q
        return position_T

    def scratch_tokens(self, row: int) -> slice:
        """Where a row's scratch lies among the tokens of the forward."""
        end = int(self.first_R[row] + self.length_R[row])
        return slice(end - (len(self.scratch[row].column_Q) if row in self.scratch else 0), end)


def to_device(values: np.ndarray, device: torch.device) -> Tensor:
    """A tensor of these values, on its way to the device."""
    tensor = torch.from_numpy(values)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor
