"""Whether a Ray cluster can hold workers at all: by what its machines have, whatever of it is free now."""

import logging
import os
from collections.abc import Mapping
from typing import Any

import ray

from t3d.errors import InputError
from t3d.scale.chunked import LOCAL, Workers

_logger = logging.getLogger(__name__)


def check_room(workers: Workers, num_gpus: float, *, may_grow: bool) -> None:
    """Raise InputError for workers that would wait for ever; say so where that is only some of them.

    ``num_gpus`` is that of each. A cluster of this command alone has to hold all of them, any other one at
    least one, now or, if it ``may_grow``, later.
    """
    asked, there = workers.num_workers * workers.num_cpus, os.cpu_count() or 1
    if workers.address == LOCAL and asked > there:  # its cluster is told that it has them
        _logger.warning("num_workers=%d: %d cores for %d threads", workers.num_workers, there, asked)
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    held = sum(_num_held(machine, workers.num_cpus, num_gpus) for machine in machines)
    if held >= workers.num_workers:
        return
    told = "; ".join(f"{each.get('CPU', 0):g} cores, {each.get('GPU', 0):g} GPUs" for each in machines)
    each = f"{workers.num_cpus} cores and {num_gpus:g} GPUs each"
    problem = f"with {each} there is room for {held} on all machines ({told})"
    if workers.address == LOCAL or not (held or may_grow):
        fix = (
            "use fewer, or lower cpus_per_worker, gpus_per_worker or tensor_parallel, or use a larger cluster"
        )
        raise InputError("num_workers", workers.num_workers, problem, fix)
    _logger.warning("num_workers=%d: %s", workers.num_workers, problem)


def _num_held(machine: Mapping[str, Any], num_cpus: int, num_gpus: float) -> int:
    """Workers that a machine holds; several may share a GPU, none has a part of one beside another."""
    of_cores, there = int(machine.get("CPU", 0) // num_cpus), int(machine.get("GPU", 0))
    if not num_gpus:
        return of_cores
    return min(of_cores, there // int(num_gpus) if num_gpus >= 1 else there * int(1 / num_gpus + 1e-9))
