"""Unfinished work that outlives its process: who may continue it, and what it depends on.

A command does its work in units (a chunk of prompts, a checkpoint, a stage) that it keeps in one
folder. It claims that folder first: nobody else may work there at the same time, and the units that
lie there must be those of the same plan.
"""

import hashlib
import json
import logging
import os
import socket
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from t3d.errors import InputError
from t3d.work.files import beside, clear_leftovers, write_errors, write_text
from t3d.work.versions import versions

CHUNK_SIZE = 512
"""Default of prompts per unit of decoding. A resumed run redoes whole chunks, so a cut leaves no trace."""
PLAN_FILE = "plan.json"
_VERSIONS_OF_NUMBERS = ("t3d", "torch", "transformers")

_logger = logging.getLogger(__name__)


class InUseError(InputError):
    """Another run holds the folder; it may end, and then the same call succeeds."""


@contextmanager
def claim(folder: str | Path, plan: Mapping[str, Any], finished: str) -> Generator[Path]:
    """Hold ``folder``, its units of work made by ``plan``, for this process; ``plan`` is JSON-ready.

    ``finished`` is the glob pattern of the units that a later run reuses. The lock is the operating
    system's, on ``.NAME.lock`` beside the folder: it ends with the process, however that ends.

    Raises InUseError if another run holds the folder, InputError if units of another plan lie in it.
    """
    folder = Path(folder)
    with locked(folder):
        clear_leftovers(folder)
        _take_up(folder, plan, finished)
        yield folder


def join(folder: str | Path, plan: Mapping[str, Any], finished: str) -> None:
    """Like :func:`claim` for units that several runs make together, each under a lock of its own.

    Nothing is held afterwards. Raises InputError if units of another plan lie in the folder.
    """
    with locked(Path(folder), wait=True):
        _take_up(Path(folder), plan, finished)


def _take_up(folder: Path, plan: Mapping[str, Any], finished: str) -> None:
    plan = full_plan(plan)
    if any(folder.glob(finished)):
        _check_plan(folder, plan)
    process = {"pid": os.getpid(), "host": socket.gethostname()}
    write_text(folder / PLAN_FILE, json.dumps({"plan": plan, "process": process}, indent=1, sort_keys=True))


def full_plan(plan: Mapping[str, Any]) -> dict[str, Any]:
    """The plan as it is read back from JSON, with the versions that numbers depend on."""
    found = versions()
    whole = {**plan, "versions": {name: found[name] for name in _VERSIONS_OF_NUMBERS}}
    return json.loads(json.dumps(whole, default=str))


def fingerprint(value: Any) -> str:
    """SHA-256 of a JSON-ready value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Where two plans differ: ``decode.temperature was 0.1, now 0.2``."""
    old, new = _leaves(before), _leaves(now)
    return [
        f"{name} was {_short(old.get(name))}, now {_short(new.get(name))}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def _leaves(plan: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for name, value in plan.items():
        leaves |= (
            _leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
        )
    return leaves


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}..."


def take_finished(output: Path, before: Mapping[str, Any] | None, plan: Mapping[str, Any]) -> None:
    """Say that a finished output is taken as it is; ``before`` is the full plan it holds, None without one.

    Raises InputError if it was made by another plan than ``plan``: nothing finished is overwritten.
    """
    fix = "delete it to make it again, or use another output"
    if before is None:
        raise InputError("output", str(output), "exists, and nothing in it tells how it was made", fix)
    if found := differences(before, full_plan(plan)):
        problem = f"is the finished work of another run: {'; '.join(found[:4])}"
        raise InputError("output", str(output), problem, fix)
    _logger.warning("%s was finished before by the same command; delete it to make it again", output)


@contextmanager
def locked(folder: Path, *, wait: bool = False) -> Generator[None]:
    """Hold the lock beside a folder or file, which may be missing.

    Raises InUseError if another run holds it, or waits until that run lets go.
    """
    path = beside(folder, "lock")
    lock = FileLock(path, fallback_to_soft=False)
    with write_errors(folder):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=wait)
        except Timeout as error:
            problem = f"another run is using it{_holder(folder)}"
            fix = "wait for that run to end, or use another output"
            raise InUseError("output", str(folder), problem, fix) from error
    try:
        yield
    finally:
        if os.name == "posix":  # while it is held: filelock takes no lock on a file without a name
            path.unlink(missing_ok=True)
        lock.release()


def _holder(folder: Path) -> str:
    record = _read_record(folder)
    return "" if record is None else f" (process {record['process']['pid']} on {record['process']['host']})"


def _read_record(folder: Path) -> dict[str, Any] | None:
    """What :func:`claim` wrote, or None if that is missing or damaged."""
    try:
        record = json.loads((folder / PLAN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    match record:
        case {"plan": dict(), "process": {"pid": _, "host": _}}:
            return record
    return None


def _check_plan(folder: Path, plan: Mapping[str, Any]) -> None:
    record = _read_record(folder)
    if record is None:
        problem = f"holds the work of another run, and no readable {PLAN_FILE} tells which"
        raise InputError("output", str(folder), problem, "delete the folder, or use another output")
    found = differences(record["plan"], plan)
    if found:
        problem = f"holds the work of another run: {'; '.join(found[:4])}"
        fix = "give that run's settings to continue it, delete the folder, or use another output"
        raise InputError("output", str(folder), problem, fix)
