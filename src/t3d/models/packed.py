"""Weights once more, in the layout in which a CPU multiplies few rows with them fastest.

In float32 a product of 2 to 9 rows with a matrix as PyTorch keeps it takes 1.7 to 2.3 times that of one row,
though both read the same weights; in oneDNN's own layout, a second copy, 1.1 to 1.8. In bfloat16 PyTorch
brings the weights into that layout in every product, from which it takes 1.3 to 2.9 times as long (both:
docs/LOG.md). That is the shape of every forward that denoises a block or checks a draft. There a row's
result is also the same bits whatever rows are beside it, in bfloat16 up to 32
(tests/unit/models/test_packed.py).

Copies are used in a forward within :meth:`Packs.in_use` alone, so training and scoring never see them, and a
weight that has changed since (an optimizer's step, another tensor in its place) is multiplied as it is. Of a
change through ``.data`` or by a fused optimizer PyTorch tells nobody: :meth:`Packs.refresh`, before every
run, finds it by one product of each weight, about the time of one forward of one token.
"""

import platform
import weakref
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from t3d.models.placement import cpu_has_bfloat16

MIN_ELEMENTS = 2**18
"""Of a float32 matrix: calling oneDNN takes about 20 microseconds more than PyTorch's own product. In
bfloat16 that product is oneDNN's, too."""
MAX_BYTES = 4 * 2**30
"""Of all copies, where nobody asked for them."""
NUM_ROWS = 64
"""The layout is made for so many; from 1 to 64 rows those for 8 and 64 were equally fast."""
MAX_BYTES_ROUNDED = 2**25
"""Of all copies, up to which numbers of rows are rounded: of more, some rows take longer than a program."""


@cache
def can_pack(dtype: torch.dtype = torch.float32) -> bool:
    """Whether this PyTorch has the products, an x86 build with oneDNN; bfloat16 where the CPU has it, too."""
    if dtype not in (torch.float32, torch.bfloat16) or (dtype == torch.bfloat16 and not cpu_has_bfloat16()):
        return False
    if platform.machine().lower() not in {"x86_64", "amd64"} or not torch.backends.mkldnn.is_available():
        return False
    return hasattr(torch.ops.mkldnn, "_reorder_linear_weight") and hasattr(
        torch.ops.mkldnn, "_linear_pointwise"
    )


@dataclass(frozen=True, slots=True)
class _Pack:
    """A copy of a weight, and what tells whether the weight is still the one that was copied."""

    parameter: "weakref.ref[Tensor]"
    """Another one on the same memory counts its changes by itself."""
    weight: Tensor
    """As it was, so that no other tensor comes to lie where it lay."""
    version: int
    products: Tensor
    copy: Tensor

    def is_of(self, weight: Tensor) -> bool:
        was = self.weight
        return (
            weight is self.parameter()
            and weight.data_ptr() == was.data_ptr()
            and weight._version == self.version
            and weight.shape == was.shape
            and weight.stride() == was.stride()
        )

    def still_holds(self, weight: Tensor) -> bool:
        return self.is_of(weight) and torch.equal(_products(weight), self.products)


class Packs:
    """The copies of one model's weights."""

    def __init__(self) -> None:
        self._packs: weakref.WeakKeyDictionary[nn.Linear, _Pack] = weakref.WeakKeyDictionary()

    def refresh(self, model: nn.Module, max_bytes: int | None = MAX_BYTES) -> None:
        """Copy what changed since the last time; nothing if all copies would take more than ``max_bytes``."""
        layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear) and _is_packable(layer)]
        if max_bytes is not None and sum(layer.weight.nbytes for layer in layers) > max_bytes:
            self._packs.clear()
            return
        for layer in set(self._packs) - set(layers):
            del self._packs[layer]
        for layer in layers:
            pack = self._packs.get(layer)
            if pack is None or not pack.still_holds(layer.weight):
                self._packs[layer] = _packed(layer)

    @property
    def num_bytes(self) -> int:
        """What the copies take."""
        return sum(layer.weight.nbytes for layer in self._packs)

    def num_rows(self, wanted: int) -> int:
        """The rows that products with the copies should have, of which ``wanted`` count.

        For bfloat16 oneDNN makes a program for every number of rows that it has not seen of late, which takes
        longer than a few rows of a small model (docs/LOG.md). So above 64 there are eight numbers up to each
        power of two, at most an eighth more than wanted.
        """
        is_small = 0 < self.num_bytes <= MAX_BYTES_ROUNDED
        if wanted <= NUM_ROWS or not is_small or any(layer.weight.itemsize > 2 for layer in self._packs):
            return wanted
        multiple = 1 << ((wanted - 1).bit_length() - 4)
        return -(-wanted // multiple) * multiple

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
        copy = None if torch.compiler.is_compiling() else _copy_for(self, input)
        if copy is None:
            return linear(input, self.weight, self.bias)
        return torch.ops.mkldnn._linear_pointwise.default(input, copy, self.bias, "none", [], "")


_in_use: ContextVar[Packs | None] = ContextVar("packs", default=None)
_ALL: "weakref.WeakKeyDictionary[nn.Module, Packs]" = weakref.WeakKeyDictionary()


def packs_of(model: nn.Module) -> Packs:
    """The copies of a model in memory: engines of it share them, and they go when it goes."""
    return _ALL.setdefault(model, Packs())


def forget_packs_of(model: nn.Module) -> None:
    """Let the copies go, of a model that has been moved or cast since: it can use them no more."""
    _ALL.pop(model, None)


def _copy_for(layer: nn.Linear, input: Tensor) -> Tensor | None:
    """None, too, where autocast multiplies in another dtype."""
    packs = _in_use.get()
    if packs is None or input.dtype != layer.weight.dtype or torch.is_autocast_enabled("cpu"):
        return None
    return packs.copy_of(layer)


def _is_packable(layer: nn.Linear) -> bool:
    if not isinstance(layer, PackableLinear) and type(layer) is not nn.Linear:
        return False
    weight = layer.weight
    is_plain = type(weight.data) is Tensor and weight.device.type == "cpu" and not weight.is_inference()
    is_large = weight.numel() >= MIN_ELEMENTS or weight.dtype == torch.bfloat16
    return is_plain and is_large and can_pack(weight.dtype)


def _packed(layer: nn.Linear) -> _Pack:
    if type(layer) is nn.Linear:
        layer.__class__ = PackableLinear  # same weights, another forward
    weight = layer.weight.detach()
    copy = torch.ops.mkldnn._reorder_linear_weight(weight, NUM_ROWS)
    return _Pack(weakref.ref(layer.weight), weight, weight._version, _products(weight), copy)


@torch.no_grad()
def _products(weight: Tensor) -> Tensor:
    """Of every row with the same drawn numbers, none of them small: an element that changes changes one.

    In float32: rounded to bfloat16 a product would hide most changes.
    """
    drawn = torch.rand(weight.shape[1], generator=torch.Generator().manual_seed(0))
    return weight.float() @ (drawn - 0.5 + (drawn - 0.5).sign())
