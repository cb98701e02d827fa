"""Flags of commands whose chunks workers on Ray can make."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import tyro

from t3d.cli.processes import num_processes
from t3d.errors import InputError, require_positive
from t3d.scale.chunked import LOCAL, ChunkedWork, Workers
from t3d.work.plan import tell_finished
from t3d.work.progress import duration
from t3d.work.shards import Shard

if TYPE_CHECKING:
    from t3d.models.loading import LoadedModel

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class RayFlags:
    """Whether and where workers on Ray make the chunks."""

    ray: bool = False
    """Workers on Ray make the chunks, each with a model of its own, into the folder of the output, which all
    machines share (extra ray; docs/scaling.md). The records are those of one process."""
    address: str = LOCAL
    """Of the Ray cluster: HOST:PORT, auto for the one that this machine belongs to, or local to start one
    here for this command."""
    num_workers: int = 1
    """Of Ray, each with a model."""
    cpus_per_worker: int = 1
    """Cores that Ray reserves for a worker, and threads of its model."""
    gpus_per_worker: float | None = None
    """GPU that Ray reserves for a worker: 1, a part such as 0.5, or 0. Default: 1 where the cluster has GPUs
    and --device does not say cpu."""
    tensor_parallel: int = 1
    """Processes of a worker, on one machine: they share its model, each with a part of the weights on a GPU
    of its own. cpus_per_worker and gpus_per_worker are then those of each process."""

    def check(self, shard: Shard | None) -> None:
        """Raise InputError for values that cannot be, and flags without use or beside a shard."""
        require_positive(self, "num_workers", "cpus_per_worker", "tensor_parallel")
        if self.gpus_per_worker is not None and not 0 <= self.gpus_per_worker <= 1:
            fix = "use 0 to 1; a larger model is shared by --tensor-parallel processes, on a GPU each"
            raise InputError("gpus_per_worker", self.gpus_per_worker, "not a part of one GPU", fix)
        if self.tensor_parallel > 1 and self.gpus_per_worker not in (None, 0, 1):
            problem = f"each of the {self.tensor_parallel} processes that share a model has a GPU of its own"
            raise InputError("gpus_per_worker", self.gpus_per_worker, problem, "use 1, or 0 for none")
        if self.ray:
            if self.address.startswith("ray://"):
                fix = "start the command on a machine of the cluster, with --address auto"
                raise InputError("address", self.address, "the command would not be a part of it", fix)
            if num_processes() > 1 or shard is not None:
                problem = "given beside a shard, but the workers of Ray make all chunks"
                raise InputError("ray", True, problem, "leave one of the two out")
            return
        for item in fields(self):
            if (value := getattr(self, item.name)) != item.default:
                raise InputError(item.name, value, "ignored without ray", "leave it out, or give --ray")

    def check_drafter(self, drafter: str | None) -> None:
        """Raise InputError for a drafter of a model that processes share."""
        if drafter is not None and self.tensor_parallel > 1:
            problem = f"not for a model that {self.tensor_parallel} processes share"
            raise InputError("drafter", drafter, problem, "leave it or tensor_parallel out")

    def load(self, load: "Callable[..., LoadedModel]") -> "LoadedModel":
        """What a worker decodes with: all of the model, or its share of it, with the others' behind it."""
        if self.tensor_parallel == 1:
            return load()
        from t3d.scale.followers import load_shared

        return load_shared(partial(load, tp_plan="auto"), self.tensor_parallel, self.cpus_per_worker)

    def made(
        self,
        prepare: Callable[[], ChunkedWork[T]],
        output: str | Path,
        was_there: bool,
        device: str,
        label: str,
        items: str,
        told_identity: Callable[[], Mapping[str, str]],
    ) -> T:
        """The result of work that each worker prepares for itself; says how fast it was made.

        Says so where ``output``, the last file that is written, was there before: no log of workers is shown.
        ``told_identity`` tells what model is here, which theirs must be.

        Raises InputError without Ray, and as :func:`~t3d.scale.ray_workers.make_on_ray` does.
        """
        try:
            from t3d.scale.ray_workers import make_on_ray
        except ModuleNotFoundError as error:
            if error.name != "ray":
                raise
            raise InputError("ray", True, "not installed", "run pip install t3d[ray]") from error
        given: dict[str, Any] = {item.name: getattr(self, item.name) for item in fields(Workers)}
        if self.gpus_per_worker is None and device == "cpu":
            given["gpus_per_worker"] = 0.0
        made = make_on_ray(prepare, Workers(**given), label, lambda: {"model": told_identity()})
        if was_there and not made.num_new:
            tell_finished(output)
        rate = f", {made.num_new / made.seconds:.2f} a second" if made.num_new else ""
        took = f"{made.num_new} {items} in {duration(made.seconds)}{rate}"
        of = f" of {self.tensor_parallel} processes" if self.tensor_parallel > 1 else ""
        without = f", {made.num_left_out} of them left out" if made.num_left_out else ""
        print(
            f"{self.num_workers} workers on Ray{of}{without}: {took}; "
            f"{duration(made.seconds_to_start)} to start"
        )
        return made.result


OnRay = Annotated[RayFlags, tyro.conf.arg(name="")]
"""Where the work is done as top-level flags."""
