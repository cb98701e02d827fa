"""Several runs that make the units of one output together, each every n-th chunk of them.

The chunks are those that one run makes, under the same names, so it does not matter how many runs made them.
In one folder, as of a file system that machines share, the run that ends last makes the output.
"""

import re
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from t3d.errors import InputError
from t3d.work.files import discard
from t3d.work.kept import SHARDS, KeptLines, Row, check_is_own, check_no_link, claim, holder, once, take_up
from t3d.work.lock import InUseError, held, locked

T = TypeVar("T")
MAX_WAIT = 60.0
"""Seconds that a shard waits for the folder: other shards enter in a moment, a run without them stays."""


@dataclass(frozen=True)
class Shard:
    """Every ``count``-th chunk, beginning with the one of this ``number``; both count from 1.

    Raises InputError if there is no such shard.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            fix = "write I/N with I from 1 to N, such as 1/4 to 4/4"
            raise InputError("shard", str(self), "no shard has this number", fix)

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def name(self) -> str:
        """As a part of the names of files."""
        return f"shard-{self.number}-of-{self.count}"

    def takes(self, chunk: int) -> bool:
        """Whether a chunk, counted from 0, is one of its own."""
        return chunk % self.count == self.number - 1


def parse_shard(text: str) -> Shard:
    """The shard of a text such as ``2/4``. Raises InputError for any other."""
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if found is None:
        raise InputError("shard", text, "not the number of a shard", "write I/N, such as 1/4 to 4/4")
    return Shard(int(found[1]), int(found[2]))


def once_by_shards(
    folder: Path,
    plan: Mapping[str, Any],
    finished: str,
    shard: Shard,
    *,
    take: Callable[[], T | None],
    part: Callable[[Path], object],
    work: Callable[[Path], T | None],
    may_grow: Collection[str] = (),
    stays: Callable[[], bool] = lambda: False,
) -> T | None:
    """Like :func:`~t3d.work.kept.once` for a run that makes only its share of the units, by ``part``.

    ``work`` makes the result of all units, None while some are missing; the last run of those that share a
    folder has it. None: this run did not make it.

    Raises InUseError for a shard that is at work already, for shards of another number of shards that are,
    and if a run without shards stays in the folder.
    """
    check_no_link(folder)
    result = take()
    if result is not None:
        how: dict[str, Any] = {"may_grow": may_grow, "stays": stays}
        return once(folder, plan, finished, take=lambda: result, work=lambda _: result, **how)
    with _shared(folder, plan, finished, shard, may_grow):
        if take() is None:  # else another run has just made it
            part(folder)
    with suppress(InUseError), claim(folder, plan, finished, may_grow=may_grow, wait=True):
        is_empty = not list(folder.glob(finished))  # another run has made the output of them
        result = None if is_empty else work(folder)
        if is_empty or (result is not None and not stays()):
            discard(folder)
    return result


def join(folder: str | Path, plan: Mapping[str, Any], finished: str) -> None:
    """Like :func:`claim` for units that several runs make together, each under a lock of its own.

    Nothing is held afterwards. Raises InputError if units of another plan lie in the folder.
    """
    with locked(Path(folder), wait=True):
        check_is_own(Path(folder))
        take_up(Path(folder), plan, finished)


@contextmanager
def _shared(
    folder: Path, plan: Mapping[str, Any], finished: str, shard: Shard, may_grow: Collection[str]
) -> Generator[None]:
    """Hold the shard's lock; that of the folder, only while it is entered, keeps runs without shards out."""
    with ExitStack() as stack:
        with locked(folder, wait=True, at_most=MAX_WAIT, holder=holder(folder)):
            check_is_own(folder)
            others = held(folder, SHARDS)
            for name in others:
                if name == shard.name or not name.endswith(f"-of-{shard.count}"):
                    fix = "wait for it to end, or give each run a number of its own and all the same N"
                    raise InUseError("shard", str(shard), f"{name} is at work in {folder}", fix)
            take_up(folder, plan, finished, may_grow, is_in_use=bool(others))
            stack.enter_context(locked(folder / shard.name))
        yield


class LinesOfChunks(KeptLines):
    """Rows whose ids belong to chunks, each chunk with a file of its own; ``files`` says which by id."""

    def __init__(self, files: Mapping[str, Path], *, fresh: str) -> None:
        super().__init__(fresh=fresh)
        lines = {path: KeptLines(path, fresh=fresh) for path in set(files.values())}
        self._lines_of = {identity: lines[path] for identity, path in files.items()}
        for each in lines.values():
            self.rows |= each.rows

    def append(self, row: Row) -> None:
        """Keep a row, in the file of its chunk."""
        lines = self._lines_of[row["id"]]
        lines.append(row)
        self.rows[row["id"]] = lines.rows[row["id"]]
