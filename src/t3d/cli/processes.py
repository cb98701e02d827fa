"""Processes that torchrun started, and shards, each of which a process makes."""

import os

from t3d.errors import InputError
from t3d.work.shards import Shard, parse_shard

_OF_SEVERAL = (("train",), ("rollout",), ("eval",), ("env",))
"""Commands that torchrun may start."""


def num_processes() -> int:
    """How many there are; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Whether it is the one of several that speaks for all."""
    return os.environ.get("RANK", "0") == "0"


def check_count(wanted: int | None, device: str) -> None:
    """Raise InputError unless so many processes can be started here, or are the ones that are running."""
    if wanted is None or wanted == 1 == num_processes():
        return
    if num_processes() > 1 and wanted != num_processes():
        problem = f"{num_processes()} processes were started already"
        raise InputError("num_processes", wanted, problem, "leave it out, or start one process")
    import torch

    from t3d.models.placement import resolve_device

    if resolve_device(device).type == "cuda" and wanted > torch.cuda.device_count():
        problem = f"this machine has {torch.cuda.device_count()} GPUs"
        raise InputError("num_processes", wanted, problem, "use at most as many, or device=cpu")


def check_one_process(name: tuple[str, ...]) -> None:
    """Raise InputError where several processes would each do all the work, and write the same files."""
    count = num_processes()
    if count > 1 and name not in _OF_SEVERAL:
        problem = f"t3d {' '.join(name)} is one process, and {count} would do the same work over each other"
        fix = "start it without torchrun; a script may share a model by load_model(..., tp_plan='auto')"
        raise InputError("WORLD_SIZE", count, problem, fix)


def own_shard(given: str | None) -> Shard | None:
    """The shard of this process: by the flag, or by its rank among several; None: it makes everything.

    Raises InputError for a text that is no shard, and for one that is given to several processes.
    """
    count = num_processes()
    if count == 1:
        return None if given is None else parse_shard(given)
    if given is not None:
        problem = f"given to {count} processes of torchrun, which take a shard each"
        raise InputError("shard", given, problem, "leave it out, or start one process")
    rank = os.environ.get("RANK")
    if rank is None:
        fix = "start the processes by torchrun, or unset WORLD_SIZE and give each its shard"
        raise InputError("RANK", None, f"not set, but WORLD_SIZE={count} is", fix)
    return Shard(int(rank) + 1, count)


def own_device(device: str) -> str:
    """Of several processes on a machine with GPUs each takes the one of its ``LOCAL_RANK``."""
    if num_processes() == 1 or device not in ("auto", "cuda"):
        return device
    import torch

    rank = int(os.environ.get("LOCAL_RANK", "0"))
    if not torch.cuda.is_available() or rank >= torch.cuda.device_count():
        return device
    torch.cuda.set_device(rank)
    return f"cuda:{rank}"
