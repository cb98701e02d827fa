"""Finished units of work, kept so that a killed run goes on where it was.

A run does its work in units (a chunk of prompts, a response, a checkpoint, a student) in one folder. It
claims that folder first: nobody else may work there at the same time, and the units that lie there must be
those of the same plan. Units are whole files, lines of a file (:class:`KeptLines`), or products that
are made once each (:class:`Product`). Where they end in one output, :func:`once` removes them with it.
"""

import json
import math
import os
import socket
import time
import zlib
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from t3d.errors import InputError
from t3d.work.digests import check_digests, digests
from t3d.work.files import (
    beside,
    clear_leftovers,
    discard,
    read_json,
    visible_names,
    write_errors,
    write_text,
)
from t3d.work.lock import InUseError, held, locked
from t3d.work.plan import described, differences, full_plan, is_whole, of_unknown_origin, sealed

CHUNK_SIZE = 512
"""Default of prompts per unit of decoding. A resumed run redoes whole chunks, so a cut leaves no trace."""
PLAN_FILE = "plan.json"
SHARDS = "shard-*"
"""Names of the locks of runs that share a folder (:mod:`t3d.work.shards`)."""
Row = dict[str, Any]
T = TypeVar("T")


@contextmanager
def claim(
    folder: str | Path,
    plan: Mapping[str, Any],
    finished: str,
    *,
    may_grow: Collection[str] = (),
    wait: bool = False,
) -> Generator[Path]:
    """Hold ``folder``, its units of work made by ``plan``, for this process; ``plan`` is JSON-ready.

    ``finished`` is the glob pattern of the units that a later run reuses. ``may_grow`` names objects of the
    plan that may have gained entries since (:func:`~t3d.work.plan.differences`).

    Raises InUseError if another run holds the folder (``wait``: waits until that lets go) or a shard is at
    work there, InputError if units of another plan lie in it, or files that no plan tells of.
    """
    folder = Path(folder)
    with locked(folder, wait=wait, holder=holder(folder)):
        check_is_own(folder)
        if shards := held(folder, SHARDS):
            raise InUseError("output", str(folder), f"{shards[0]} is at work there", "wait for it to end")
        clear_leftovers(folder)
        take_up(folder, plan, finished, may_grow)
        yield folder


def once(
    folder: Path,
    plan: Mapping[str, Any],
    finished: str,
    *,
    take: Callable[[], T | None],
    work: Callable[[Path], T],
    may_grow: Collection[str] = (),
    stays: Callable[[], bool] = lambda: False,
) -> T:
    """What ``work`` makes of the units in ``folder``, which is claimed as by :func:`claim` and then removed.

    ``take`` reads what the same call has finished before; None: nothing. It is asked again once the folder is
    held, as another run may just have finished. The folder ``stays`` while there is more to do in it later.
    Raises InputError, besides, for a folder that is a link.
    """
    check_no_link(folder)
    result = take()
    if result is not None:
        is_left = folder.is_dir() or beside(folder, "removed").is_dir()  # a kill came before they were gone
        if is_left and not stays():
            # Of another plan, just being removed, or on a disk that is read-only they stay, and do no harm.
            with suppress(InputError), claim(folder, plan, finished, may_grow=may_grow):
                discard(folder)
        return result
    with claim(folder, plan, finished, may_grow=may_grow):
        result = take()
        if result is None:
            result = work(folder)
        if not stays():
            discard(folder)
    return result


def check_no_link(*folders: Path) -> None:
    """Raise InputError for a link where a folder is to be removed at the end."""
    for folder in folders:
        if folder.is_symlink():
            problem = "is a symbolic link, but a folder that is removed when the work is finished"
            raise InputError("output", str(folder), problem, "delete the link, or use another output")


def check_is_own(folder: Path) -> None:
    """Raise InputError for files that no plan tells of: they may be somebody else's, and would be lost."""
    if visible_names(folder) and _read_plan(folder) is None:
        problem = f"holds files, and no readable {PLAN_FILE} tells of which run"
        raise InputError("output", str(folder), problem, "move or delete the folder, or use another output")


def take_up(
    folder: Path,
    plan: Mapping[str, Any],
    finished: str,
    may_grow: Collection[str] = (),
    is_in_use: bool = False,
) -> None:
    """Say in a folder whose work is done there. Raises InputError for units, or a user, of another plan."""
    told = {"plan": full_plan(plan), "process": {"pid": os.getpid(), "host": socket.gethostname()}}
    if is_in_use or list(folder.glob(finished)):  # all: a search that is left open holds the folder
        _check_plan(folder, told["plan"], may_grow)
    write_text(folder / PLAN_FILE, json.dumps(told, indent=1, sort_keys=True))


def check_left(folder: Path, plan: Mapping[str, Any], may_grow: Collection[str] = ()) -> None:
    """Raise InputError if a folder says that it holds the work of another plan."""
    if _read_plan(folder) is not None:
        _check_plan(folder, full_plan(plan), may_grow)


def _check_plan(folder: Path, plan: Mapping[str, Any], may_grow: Collection[str]) -> None:
    if found := differences(_read_plan(folder) or {}, plan, may_grow=may_grow):
        problem = f"holds the work of another run: {described(found)}"
        fix = "give that run's settings to continue it, delete the folder, or use another output"
        raise InputError("output", str(folder), problem, fix)


def _read_plan(folder: Path) -> dict[str, Any] | None:
    match read_json(folder / PLAN_FILE):
        case {"plan": dict() as plan, "process": {"pid": _, "host": _}}:
            return plan
    return None


def holder(folder: Path) -> str:
    """The process that holds a folder, as errors name it; empty if no record tells."""
    match read_json(folder / PLAN_FILE):
        case {"plan": dict(), "process": {"pid": pid, "host": host}}:
            return f" (process {pid} on {host})"
    return ""


class KeptLines:
    """Rows with an ``id``, each kept at once in a JSON Lines file; without a path, in memory.

    ``rows`` holds by id what was said last: a row with a field of ``fresh`` starts an id anew, any other adds
    to it. A line ends with a checksum, which begins with the file's name: lines of another file do not fit
    (those of earlier versions, without the name, do). A process that is killed leaves at most a torn last
    line, which is dropped. Raises InputError for any other damage.
    """

    def __init__(self, path: Path | None = None, *, fresh: str) -> None:
        self.path, self._fresh = path, fresh
        self.rows: dict[str, Row] = {}
        if path is None or not path.is_file():
            return
        content = path.read_bytes()
        end = content.rfind(b"\n") + 1
        if end < len(content):
            with write_errors(path):
                os.truncate(path, end)
        for number, line in enumerate(content[:end].split(b"\n")[:-1], start=1):
            try:
                text, _, checksum = line.rpartition(b"\t")
                if int(checksum, 16) not in (_checksum(path, text), zlib.crc32(text)):
                    raise ValueError("its checksum does not fit it and the file's name")
                self._take(dict(json.loads(text)))
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                fix = "delete the file; the same command then makes its lines again"
                raise InputError("output", str(path), f"line {number} is damaged ({error})", fix) from error

    def append(self, row: Row) -> None:
        """Keep a row: something new, or more about an earlier one with its id."""
        if self.path is not None:
            text = json.dumps(row).encode()  # ASCII: a text may hold lone surrogates
            with write_errors(self.path), self.path.open("ab") as file:
                file.write(b"%s\t%08x\n" % (text, _checksum(self.path, text)))
        self._take(row)

    def _take(self, row: Row) -> None:
        before = {} if self._fresh in row else self.rows[row["id"]]
        self.rows[row["id"]] = before | row


def _checksum(path: Path, text: bytes) -> int:
    return zlib.crc32(text, zlib.crc32(os.fsencode(path.name)))


@dataclass(frozen=True, kw_only=True)
class Product:
    """What takes long to make and is made once per plan: a file or folder, and a record of how it was made.

    The record has the plan before the work begins, so that what a kill leaves is known to be the work's own;
    once all is there also the result, its seconds, and the SHA-256 of its files.
    """

    path: Path
    record: Path
    plan: Mapping[str, Any]
    unfinished: Sequence[Path] = ()
    """Folders of what a later process goes on from."""
    added_later: Collection[str] = ()
    """Names of the plan's fields that an older record may lack."""

    @property
    def is_made(self) -> bool:
        """Whether it is there, and was made by the present plan."""
        return self.path.exists() and "seconds" in self._read()

    @property
    def is_begun(self) -> bool:
        """Whether its making by the present plan was cut."""
        return "seconds" not in self._read() and bool(self._read())

    @property
    def seconds(self) -> float:
        """How long it took; 0 if it is not made."""
        return self._read().get("seconds", 0.0)

    def check_is_own(self) -> None:
        """Raise InputError for files without a record, which somebody else may have put there."""
        for path in (*self.unfinished, self.path):
            if path.exists() and not self.record.is_file():
                raise of_unknown_origin(path)

    def make(self, work: Callable[[], Any]) -> Any:
        """The result (JSON-ready) of the work, which is done now if need be.

        What another plan has left is removed first. ``work`` goes on from what a cut one of the same plan has
        left; its seconds count from there. Raises InputError as :meth:`check_is_own` does, and for a product
        that is not as it was made.
        """
        check_no_link(*self.unfinished)
        if self.is_made:
            self._check_files()
        else:
            before = self._read()
            if not before:
                self._remove()
            if not before or "seconds" in before:  # of a product that is gone
                self._write({})
            started = time.perf_counter()
            result = work()
            seconds = round(time.perf_counter() - started, 2)
            self._write({"seconds": seconds, "result": result, "files": digests(self.path, self.path.parent)})
        for folder in self.unfinished:
            discard(folder)  # a kill may have left it beside what is finished
        return self._read()["result"]

    def _read(self) -> dict[str, Any]:
        """The record, if it is of the present plan; else nothing. Raises InputError if it is damaged."""
        if not self.record.is_file():
            return {}
        match read_json(self.record):
            case {"plan": dict() as before, **made} as found if is_whole(found) and _is_made_record(made):
                return {} if differences(before, self.plan, added_later=self.added_later) else found
        fix = f"delete it and {self.path}; the same command then makes them again"
        raise InputError("output", str(self.record), "damaged", fix)

    def _write(self, made: Mapping[str, Any]) -> None:
        write_text(self.record, json.dumps(sealed({"plan": dict(self.plan), **made}), indent=1) + "\n")

    def _check_files(self) -> None:
        """Of a record of an earlier version, which has no SHA-256 of them, nothing."""
        fix = f"delete {self.path} and {self.record}; the same command then makes them again"
        check_digests(self._read().get("files", {}), self.path.parent, self.record, fix)

    def _remove(self) -> None:
        self.check_is_own()
        for path in (*self.unfinished, self.path):
            discard(path)
        with write_errors(self.path):
            self.path.unlink(missing_ok=True)


def _is_made_record(made: Mapping[str, Any]) -> bool:
    """Whether what a record says besides the plan can be read: nothing yet, or all of it."""
    match made:
        case {"seconds": int() | float() as seconds, "result": _}:
            return math.isfinite(seconds) and isinstance(made.get("files", {}), dict)
    return "seconds" not in made
