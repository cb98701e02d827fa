"""What workers are given to do, how many there are and where, and what they made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from t3d.work.shards import Shard

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
LOCAL = "local"
"""Address of a cluster that is started for this command, and ends with it."""


@runtime_checkable
class ChunkedWork(Protocol[T_co]):
    """Work in chunks of one output, as a worker holds it: prepared, and the model loaded."""

    @property
    def plan(self) -> Mapping[str, Any]:
        """All that the result depends on, versions included."""

    @property
    def sizes(self) -> Sequence[int]:
        """Items of each chunk."""

    @property
    def notes(self) -> Sequence[str]:
        """What there is to say before the work."""

    def is_made(self, shard: Shard) -> bool:
        """Whether nothing is left to do for a shard."""

    def make(self, shard: Shard) -> T_co | None:
        """Make a shard's chunks; the result, if all chunks are there now."""


@dataclass(frozen=True, kw_only=True)
class Workers:
    """How many workers, where, and what each one has."""

    num_workers: int
    address: str
    cpus_per_worker: int
    gpus_per_worker: float | None
    """None: a GPU each if the cluster has any."""
    tensor_parallel: int = 1
    """Processes of a worker, which share its model; the cores and GPUs above are those of each."""

    @property
    def num_cpus(self) -> int:
        """That Ray reserves for a worker."""
        return self.tensor_parallel * self.cpus_per_worker


@dataclass(frozen=True)
class Made(Generic[T]):
    """A result, and what it took."""

    result: T
    num_new: int
    """Items of the chunks that were not there before."""
    seconds_to_start: float
    """Until the first worker had its model."""
    seconds: float
    """From then on."""
    num_left_out: int
    """Workers that would have made something else."""
