"""Weights once more, in the layout in which a CPU multiplies few rows with them fastest.

In float32 a product of 2 to 10 rows with a matrix as PyTorch keeps it takes two to three times that of one
row, though both read the same weights; in oneDNN's own layout, a second copy, it takes little more.
That is the shape of every forward that denoises a block or checks a draft. There a row's result is also the
same bits whatever rows are beside it (tests/unit/models/test_packed.py).

Copies are used in a forward within :meth:`Packs.in_use` alone, so training and scoring never see them, and a
weight that has changed since (an optimizer's step, another tensor in its place) is multiplied as it is. What
is changed through ``.data``, of which PyTorch tells nobody, :meth:`Packs.refresh` finds by a sample.
"""

import platform
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

MIN_ELEMENTS = 2**18
"""Of a matrix: calling oneDNN takes about 20 microseconds more than PyTorch's own product."""
MAX_BYTES = 4 * 2**30
"""Of all copies, where nobody asked for them."""
NUM_ROWS = 64
"""The layout is made for so many; from 1 to 64 rows those for 8 and 64 were equally fast."""
SAMPLE = 256
"""Elements of a matrix that are compared before a run."""


@cache
def can_pack() -> bool:
    """Whether this PyTorch has the products: an x86 build with oneDNN."""
    if platform.machine().lower() not in {"x86_64", "amd64"} or not torch.backends.mkldnn.is_available():
        return False
    return hasattr(torch.ops.mkldnn, "_reorder_linear_weight") and hasattr(
        torch.ops.mkldnn, "_linear_pointwise"
    )


@dataclass(frozen=True, slots=True)
class _Pack:
    """A copy of a weight, and what tells whether the weight is still the one that was copied."""

    weight: Tensor
    """As it was, so that no other tensor comes to lie where it lay."""
    version: int
    sample: Tensor
    copy: Tensor

    def is_of(self, weight: Tensor) -> bool:
        return weight._version == self.version and weight.data_ptr() == self.weight.data_ptr()

    def still_holds(self, weight: Tensor) -> bool:
        return self.is_of(weight) and torch.equal(_sample(weight), self.sample)


class Packs:
    """The copies of one model's weights."""

    def __init__(self) -> None:
        self._packs: dict[nn.Linear, _Pack] = {}

    def refresh(self, model: nn.Module, max_bytes: int | None = MAX_BYTES) -> None:
        """Copy what changed since the last time; nothing if all copies would take more than ``max_bytes``."""
        layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear) and _is_packable(layer)]
        if max_bytes is not None and sum(layer.weight.nbytes for layer in layers) > max_bytes:
            self._packs.clear()
            return
        for layer in self._packs.keys() - set(layers):
            del self._packs[layer]
        for layer in layers:
            pack = self._packs.get(layer)
            if pack is None or not pack.still_holds(layer.weight):
                self._packs[layer] = _packed(layer)

    @property
    def num_bytes(self) -> int:
        """What the copies take."""
        return sum(layer.weight.nbytes for layer in self._packs)

    @contextmanager
    def in_use(self) -> Generator[None]:
        """Forwards of this thread multiply with the copies."""
        token = _in_use.set(self)
        try:
            yield
        finally:
            _in_use.reset(token)

    def copy_of(self, layer: nn.Linear) -> Tensor | None:
        """Of a layer's weight as it is now; None where there is none."""
        pack = self._packs.get(layer)
        return pack.copy if pack is not None and pack.is_of(layer.weight) else None


class PackableLinear(nn.Linear):
    """A linear layer that multiplies with the copy in use, if there is one; packing a layer makes it one."""

    def forward(self, input: Tensor) -> Tensor:
        """``input @ weight.T + bias``."""
        packs = _in_use.get()
        copy = packs.copy_of(self) if packs is not None and input.dtype == torch.float32 else None
        if copy is None:
            return linear(input, self.weight, self.bias)
        return torch.ops.mkldnn._linear_pointwise.default(input, copy, self.bias, "none", [], "")


_in_use: ContextVar[Packs | None] = ContextVar("packs", default=None)
_ALL: "WeakKeyDictionary[nn.Module, Packs]" = WeakKeyDictionary()


def packs_of(model: nn.Module) -> Packs:
    """The copies of a model in memory: engines of it share them, and they go when it goes."""
    return _ALL.setdefault(model, Packs())


def _is_packable(layer: nn.Linear) -> bool:
    if not isinstance(layer, PackableLinear) and type(layer) is not nn.Linear:
        return False
    weight = layer.weight
    is_plain = type(weight.data) is Tensor and weight.device.type == "cpu" and not weight.is_inference()
    return is_plain and weight.dtype == torch.float32 and weight.numel() >= MIN_ELEMENTS


def _packed(layer: nn.Linear) -> _Pack:
    if type(layer) is nn.Linear:
        layer.__class__ = PackableLinear  # same weights, another forward
    weight = layer.weight.detach()
    copy = torch.ops.mkldnn._reorder_linear_weight(weight, NUM_ROWS)
    return _Pack(weight, weight._version, _sample(weight), copy)


def _sample(weight: Tensor) -> Tensor:
    return weight.detach().flatten()[:: weight.numel() // SAMPLE].clone()
