"""On which device and in which dtype a model runs."""

from typing import Any

import torch
from transformers import PreTrainedConfig

from t3d.errors import InputError
from t3d.model_choice import DTYPE_NAMES, check_dtype

_TORCH_HALF = (torch.bfloat16, torch.float16)
DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in DTYPE_NAMES}


def resolve_device(device: str) -> torch.device:
    """``auto`` is CUDA where there is one, otherwise the CPU. Raises InputError for one that is not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        problem = f"not usable here ({str(error).splitlines()[0]})"
        fix = f"use {' or '.join(usable_devices())}"
        raise InputError("device", device, problem, fix) from error


def usable_devices() -> list[str]:
    """What ``device`` may be on this machine."""
    found = torch.accelerator.current_accelerator(check_available=True)
    numbers = range(0 if found is None else torch.accelerator.device_count())
    return ["auto", "cpu", *(f"{found}:{number}" for number in numbers)]


def resolve_dtype(dtype: str | torch.dtype, config: PreTrainedConfig, device: torch.device) -> torch.dtype:
    """The dtype of a name, or itself; ``auto`` is the checkpoint's own, in which 16 bits are bfloat16.

    On a CPU without bfloat16 arithmetic ``auto`` is float32. Raises InputError for any other.
    """
    named = DTYPES | {str(known): known for known in DTYPES.values()}
    if str(dtype) in named:
        return named[str(dtype)]
    check_dtype(str(dtype), "auto")
    own: Any = config.dtype
    if own in _TORCH_HALF:
        return torch.bfloat16 if device.type != "cpu" or cpu_has_bfloat16() else torch.float32
    return own if own in DTYPES.values() else torch.float32


def export_precision(checkpoint: torch.dtype, trained: torch.dtype) -> torch.dtype:
    """Of a student's files: bfloat16 if the files of its base have 16 bits, else as it was trained."""
    return torch.bfloat16 if checkpoint in _TORCH_HALF else trained


def fast_dtype(device: torch.device) -> str:
    """The name of the dtype in which a device multiplies fastest: bfloat16 or float32."""
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if device.type == "cpu" and cpu_has_bfloat16() else "float32"


def cpu_has_bfloat16() -> bool:
    """Whether bfloat16 is faster than float32 on this CPU, and not many times slower."""
    checks = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile"))
    return any(check is not None and check() for check in checks)
