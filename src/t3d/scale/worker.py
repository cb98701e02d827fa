"""What a worker on Ray does: it makes the chunks that it is told."""

import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from t3d.errors import InputError
from t3d.scale.chunked import ChunkedWork
from t3d.work.lock import InUseError
from t3d.work.plan import described, differences
from t3d.work.shards import Shard

T = TypeVar("T")
SECONDS_IN_USE = 3.0
"""So long a worker waits for a chunk that another run holds, before it is given another one."""


class OtherWorkError(Exception):
    """The worker would make something else than the run."""


@dataclass(frozen=True)
class Hello:
    """What a worker says when it is ready."""

    host: str
    plan: Mapping[str, Any]
    sizes: Sequence[int]
    notes: Sequence[str]


class Worker(Generic[T]):
    """The actor. The work is prepared in its first call, since what a constructor raises comes as a text."""

    def __init__(self, prepare: Callable[[], ChunkedWork[T]], folder: Path) -> None:
        self._prepare, self._folder = prepare, folder

    @cached_property
    def _work(self) -> ChunkedWork[T]:
        try:
            os.chdir(self._folder)
        except OSError as error:
            problem, fix = f"not on {socket.gethostname()}", "start in a folder that all machines share"
            raise InputError("address", str(self._folder), problem, fix) from error
        return self._prepare()

    def hello(self) -> Hello:
        """That it is ready, once the work is prepared."""
        work = self._work
        return Hello(socket.gethostname(), work.plan, work.sizes, work.notes)

    def make(self, shard: Shard, plan: Mapping[str, Any]) -> tuple[bool, T | None]:
        """Whether the shard was there before, and the result if all are.

        Raises OtherWorkError for another plan: it was started again, and its files are others now.
        """
        if found := differences(plan, self._work.plan):
            raise OtherWorkError(f"changed on {socket.gethostname()} meanwhile: {described(found)}")
        is_made, until = self._work.is_made(shard), time.monotonic() + SECONDS_IN_USE
        while True:
            try:
                return is_made, self._work.make(shard)
            except InUseError:  # often by a worker of a run that was killed, which is about to end
                if time.monotonic() > until:
                    raise
            time.sleep(1)
