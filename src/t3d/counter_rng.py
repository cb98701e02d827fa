"""Counter-based random numbers: a uniform is a pure function of integers.

Noise drawn this way does not depend on batch size, batch order, worker count, world size or on
where a run was cut, because nothing is consumed from a shared stream.
"""

import hashlib
import math

import torch
from jaxtyping import Float64, Int64
from torch import Tensor


def _signed(constant: int) -> int:
    """The 64-bit constant as the signed integer that torch stores."""
    return constant - (1 << 64) if constant >= 1 << 63 else constant


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MULTIPLIER_1 = _signed(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = _signed(0x94D049BB133111EB)


def _shift_right(value: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64 (torch's own shift keeps the sign)."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _mix(value: Tensor) -> Tensor:
    """Finaliser of the splitmix64 generator (Steele, Lea, Flood, 2014); int64 wraps around."""
    value = (value ^ _shift_right(value, 30)) * _MULTIPLIER_1
    value = (value ^ _shift_right(value, 27)) * _MULTIPLIER_2
    return value ^ _shift_right(value, 31)


def counter_hash(*counters: int | Tensor) -> Int64[Tensor, "..."]:
    """Hash broadcastable int64 counters, in order, to one int64 each."""
    device = next((c.device for c in counters if isinstance(c, Tensor)), torch.device("cpu"))
    state = torch.zeros((), dtype=torch.int64, device=device)
    for counter in counters:
        value = torch.as_tensor(counter, dtype=torch.int64, device=device)
        state = _mix((state ^ _mix(value + _GOLDEN)) + _GOLDEN)
    return state


def counter_uniform(*counters: int | Tensor) -> Float64[Tensor, "..."]:
    """One uniform in (0, 1), float64, for each combination of broadcastable int64 counters."""
    return (_shift_right(counter_hash(*counters), 12).double() + 0.5) * math.ldexp(1.0, -52)


def stable_key(text: str) -> int:
    """A signed 64-bit integer for a text, equal on every machine and in every process."""
    digest = hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)
