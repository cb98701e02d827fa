"""Tensor parallelism: the processes that ``torchrun`` started share one model and decode together."""

import os

import torch
from transformers import PreTrainedConfig
from transformers.distributed import DistributedConfig

from t3d.errors import InputError

_LAUNCHER_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE")


def tensor_parallelism(
    tp_plan: str, device: str, config: PreTrainedConfig
) -> tuple[torch.device, DistributedConfig | None]:
    """This process's own device, and how transformers shares out the model; None for a single process.

    Raises InputError for an unknown plan or device, outside of ``torchrun``, for processes that do not
    divide the key-value heads, and for more processes on a machine than it has accelerators.
    """
    if tp_plan != "auto":
        raise InputError("tp_plan", tp_plan, "not known", "use auto, or None for a whole model per process")
    missing = [name for name in _LAUNCHER_VARIABLES if name not in os.environ]
    if missing:
        problem = f"this process was not started by torchrun ({', '.join(missing)} not set)"
        fix = "start the script with torchrun --nproc-per-node N, or leave tp_plan out"
        raise InputError("tp_plan", tp_plan, problem, fix)
    size, num_heads = int(os.environ["WORLD_SIZE"]), config.num_key_value_heads
    if num_heads % size:
        problem = f"{size} processes cannot share {num_heads} key-value heads evenly"
        raise InputError("tp_plan", tp_plan, problem, f"start a number of processes that divides {num_heads}")
    own = _own_device(tp_plan)
    if device not in ("auto", own.type):
        problem = f"processes that share a model use {own.type} with this PyTorch"
        raise InputError("device", device, problem, f"use auto or {own.type}")
    return own, DistributedConfig(tp_size=size, tp_plan=tp_plan) if size > 1 else None


def _own_device(tp_plan: str) -> torch.device:
    """The device that transformers gives to this process; it goes by what PyTorch was built for."""
    accelerator = torch.accelerator.current_accelerator()
    if accelerator is None:
        return torch.device("cpu")
    index, count = int(os.environ["LOCAL_RANK"]), torch.accelerator.device_count()
    if index >= count:
        problem = f"process {index} of this machine has no {accelerator.type} device: there are {count}"
        fix = "start one process per device; on a CPU alone, use a PyTorch built for it"
        raise InputError("tp_plan", tp_plan, problem, fix)
    return torch.device(accelerator.type, index)
