"""Work in chunks that needs no model, for workers on Ray, which import this file."""

import gc
import os
import random
import signal
import time
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import ray

from t3d.cli.rollout import Rollout, prepared_rollout
from t3d.errors import InputError
from t3d.scale.ray_workers import LOCAL_ENVIRONMENT, OBJECT_STORE_BYTES
from t3d.trajectory import Trajectory, read_trajectories, write_trajectories
from t3d.work.files import write_errors, write_text
from t3d.work.lock import InUseError
from t3d.work.shards import Shard, once_by_shards


@contextmanager
def started() -> Generator[str]:
    """Inside, a cluster of two cores runs, whose workers find this file, and this process is its driver."""
    with pytest.MonkeyPatch.context() as patch:
        paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
        for name, value in LOCAL_ENVIRONMENT.items():
            patch.setenv(name, value)
        for is_last in (False, True):
            try:
                ray.init(
                    address="local",
                    num_cpus=2,
                    num_gpus=0,
                    object_store_memory=OBJECT_STORE_BYTES,
                    include_dashboard=False,
                    log_to_driver=False,
                )
                break
            except Exception as error:  # Ray's own class; it gives its processes 15 s on whatever machine
                if is_last or "timed out during startup" not in str(error):
                    raise
                ray.shutdown()
        try:
            yield ray.get_runtime_context().gcs_address
        finally:
            ray.shutdown()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                gc.collect()  # processes that Ray has not waited for: another test would be told


@dataclass(frozen=True)
class Numbers:
    """A folder with a file for each chunk, which holds its number; the result is their list.

    ``faults`` says what happens at the chunk of a number: ``input``, ``full disk`` or ``bug`` raise, ``dies``
    kills the worker, ``dies once`` only where it has not yet, ``waits for two`` until the odd worker is
    ready, and another run holds one that is ``in use`` until all others are made. ``silent once`` at 0:
    whoever finds all chunks first has no result.
    """

    folder: Path
    faults: Mapping[int, str] = field(default_factory=dict)
    odd: str = ""
    """The second worker that is ready has other ``packages`` or no ``files``; the first no ``memory``."""
    count: int = 4

    def __call__(self) -> "Numbers":
        """Prepare."""
        return self

    @property
    def sizes(self) -> list[int]:
        return [10] * self.count

    @property
    def notes(self) -> list[str]:
        return ["noted"]

    @cached_property
    def plan(self) -> dict[str, Any]:
        return {"versions": {"t3d": self._version()}}

    def _version(self) -> int:
        if not self.odd:
            return 1
        try:
            (self.folder / "first").touch(exist_ok=False)
        except FileExistsError:
            (self.folder / "second").touch()
            if self.odd == "files":
                raise InputError("model", "m", "no such folder", "copy it") from None
            return 1 if self.odd == "memory" else 2
        if self.odd == "memory":
            raise MemoryError("no room for the weights")
        return 1

    def _file(self, number: int) -> Path:
        return self.folder / "chunks" / f"chunk-{number}"

    def is_made(self, shard: Shard) -> bool:
        return self._file(shard.number).is_file()

    def make(self, shard: Shard) -> list[int] | None:
        output = self.folder / "output"

        def part(_: Path) -> None:
            if not self.is_made(shard):
                self._befall(shard.number)
                self.write(self._file(shard.number), [shard.number])

        def work(_: Path) -> list[int] | None:
            files = [self._file(number + 1) for number in range(self.count)]
            if not all(file.is_file() for file in files):
                return None
            if self.faults.get(0) == "silent once" and not (self.folder / "silent").exists():
                (self.folder / "silent").touch()
                return None
            made = [number for file in files for number in self.read(file)]
            self.write(output, made)
            return made

        def take() -> list[int] | None:
            return self.read(output) if output.is_file() else None

        how: dict[str, Any] = {"take": take, "part": part, "work": work}
        return once_by_shards(self.folder / "chunks", {}, "chunk-*", shard, **how)

    def write(self, path: Path, numbers: Sequence[int]) -> None:
        """Write a chunk, or the output."""
        write_text(path, ",".join(map(str, numbers)))

    def read(self, path: Path) -> list[int]:
        """What was written."""
        return [int(part) for part in path.read_text().split(",")]

    def _befall(self, number: int) -> None:
        fault, mark = self.faults.get(number), self.folder / f"died-{number}"
        if fault == "input":
            raise InputError("limit", number, "refused", "use another")
        if fault == "in use" and len(list(self._file(1).parent.glob("chunk-*"))) < self.count - 1:
            raise InUseError("shard", str(number), "is at work", "wait")
        if fault == "full disk":
            with write_errors(self._file(number)), open("/dev/full", "wb") as file:
                file.write(bytes(2**16))
        if fault == "bug":
            raise KeyError("a bug")
        if fault == "waits for two":
            wait_for(self.folder / "second")
        if fault == "dies" or (fault == "dies once" and not mark.exists()):
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class OtherModel:
    """A rollout whose model is a name in the folder of the run; the worker that is ready first stands in
    another folder, in which that name has other weights."""

    command: Rollout
    other: Path

    def __call__(self) -> Any:
        """Prepare."""
        first = Path(self.command.output).with_suffix(".first")
        try:
            first.touch(exist_ok=False)
        except FileExistsError:
            wait_for(first.with_suffix(".ready"))
            return prepared_rollout(self.command)
        os.chdir(self.other)
        work = prepared_rollout(self.command)
        first.with_suffix(".ready").touch()
        return work


def wait_for(path: Path) -> None:
    """Until it is there, and who made it has had time to say so."""
    until = time.monotonic() + 200
    while not path.exists():
        assert time.monotonic() < until, path
        time.sleep(0.05)
    time.sleep(2)


class Records(Numbers):
    """The same with long records in the place of numbers, written as a rollout writes them.

    ``writers`` in its folder has the process that wrote a file, or was about to, by the file's name.
    """

    length = 100_000
    """Tokens of a record: writing it takes long enough to be met in the middle."""

    def write(self, path: Path, numbers: Sequence[int]) -> None:
        """Say who writes, then write."""
        write_text(self.folder / "writers" / path.name, str(os.getpid()))
        write_trajectories(path, [self._record(number) for number in numbers])

    def read(self, path: Path) -> list[int]:
        """The numbers of the records of a file that is as it was written."""
        return [int(record.id) for record in read_trajectories(path)]

    def _record(self, number: int) -> Trajectory:
        ids = tuple(random.Random(number).choices(range(2**30), k=self.length))
        how: dict[str, Any] = {"visible_length": self.length, "finish_reason": "length", "mask_token_id": 0}
        how |= {"block_size": self.length + 1, "step_map": (1,) * self.length}
        return Trajectory(id=str(number), prompt_ids=(1,), response_ids=ids, **how)
