"""Work in chunks whose output is on an object store; what each process has lies in a folder of its own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from t3d.errors import InputError
from t3d.scale.chunked import ChunkedWork
from t3d.work.failures import unit_errors_file
from t3d.work.kept import check_left
from t3d.work.remote import RemoteOutput
from t3d.work.shards import Shard

T_co = TypeVar("T_co", covariant=True)


class FiledWork(ChunkedWork[T_co], Protocol[T_co]):
    """Work whose chunks are a file each."""

    def files(self, shard: Shard) -> Sequence[Path]:
        """Those of a shard's chunks."""


class StoredWork(Generic[T_co]):
    """The same work: what others have made is got from the store before it, what it makes is put there after.

    A process gets the chunks that it is to make, where they are there already, and all of them where no other
    one is missing; of the others only what failed, since the bound counts that.
    """

    def __init__(self, work: FiledWork[T_co], remote: RemoteOutput) -> None:
        self._work, self.remote = work, remote

    @property
    def plan(self) -> Mapping[str, Any]:
        """All that the result depends on."""
        return self._work.plan

    @property
    def sizes(self) -> Sequence[int]:
        """Items of each chunk."""
        return self._work.sizes

    @property
    def notes(self) -> Sequence[str]:
        """What there is to say before the work."""
        return self._work.notes

    def is_made(self, shard: Shard) -> bool:
        """Whether nothing is left to do for a shard."""
        self._get(shard)
        return self._work.is_made(shard)

    def make(self, shard: Shard) -> T_co | None:
        """Make a shard's chunks and put each onto the store; the result, if all chunks are there now."""
        count, result = len(self.sizes), None
        for number in filter(shard.takes, range(count)):
            result = self._made(Shard(number + 1, count))
            if result is not None:
                break
        return result

    def num_there(self) -> int:
        """Chunks that are on the store."""
        return len(self._names(_ALL) & self.remote.there().keys())

    def is_finished(self) -> bool:
        """Whether the output is on the store."""
        return self.remote.finished in self.remote.there()

    def _made(self, shard: Shard) -> T_co | None:
        self._get(shard)
        result = self._put(shard)
        if result is None and self._get(shard):  # others made the last ones meanwhile
            result = self._put(shard)
        return result

    def _put(self, shard: Shard) -> T_co | None:
        try:
            with self.remote.errors():
                result = self._work.make(shard)
        except InputError:
            self.remote.push()  # what was made, and what failed
            raise
        self.remote.push()
        return result

    def _get(self, shard: Shard) -> bool:
        """Whether all is here that others made: the output, or all chunks but the shard's own."""
        own, units, finished = self._names(shard), self._names(_ALL), self.remote.finished
        others = [path for path in self._work.files(_ALL) if self.remote.ending(path) not in own]

        def wanted(ending: str) -> bool:
            return has_all or ending in own or ending not in {finished, *units}

        while True:
            there = self.remote.there()
            has_all = finished in there or all(self._is_there(path, there) for path in others)
            if self.remote.pull(there, wanted):
                break  # else another run has just made the output, and removed them
        if units & there.keys():
            with self.remote.errors():
                check_left(self._work.files(_ALL)[0].parent, self.plan)
        return has_all

    def _is_there(self, path: Path, there: Mapping[str, Any]) -> bool:
        """Whether a chunk is; of one of which nothing succeeded only what failed may be."""
        return any(self.remote.ending(file) in there for file in (path, unit_errors_file(path)))

    def _names(self, shard: Shard) -> set[str]:
        return {self.remote.ending(path) for path in self._work.files(shard)}


_ALL = Shard(1, 1)
