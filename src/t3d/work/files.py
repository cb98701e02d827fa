"""Files and folders that appear under their name only when complete, and short errors for a bad disk."""

import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from t3d.errors import InputError

_FIXES = {
    errno.ENOSPC: "free space on that disk, then give the same command again",
    errno.EDQUOT: "free space within the quota, then give the same command again",
    errno.EROFS: "use an output on a disk that is not read-only",
    errno.EPERM: "use an output that you may write to",
    errno.EACCES: "use an output that you may write to",
    errno.EEXIST: "use an output whose path has no file where a folder belongs",
    errno.ENOTDIR: "use an output whose path has no file where a folder belongs",
    errno.EISDIR: "give the name of a file",
    errno.ENAMETOOLONG: "use an output with a shorter name",
    errno.ENOSYS: "use an output on a file system that can lock files, such as a local disk",
    errno.ENOLCK: "use an output on a file system that can lock files, such as a local disk",
    errno.EOPNOTSUPP: "use an output on a file system that can lock files, such as a local disk",
}
"""What to do about a failed write, by error number; any other number is a bug or a broken machine."""


@contextmanager
def write_errors(path: str | Path) -> Generator[None]:
    """Turn the failure of a write to ``path`` that the user can correct into InputError.

    Knows the system's errors as Python, safetensors and torch raise them: the second hides the error
    number in its text, the third has none, but only its file writer names ``inline_container``.
    """
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if isinstance(error, OSError):
            number = error.errno
        elif isinstance(error, SafetensorError):
            match = re.search(r"\(os error (\d+)\)", str(error))
            number = int(match[1]) if match else None
        else:
            number = errno.ENOSPC if "inline_container" in str(error) else None
        if number not in _FIXES:
            raise
        problem = f"cannot be written ({os.strerror(number)})"
        raise InputError("output", str(path), problem, _FIXES[number]) from error


@contextmanager
def creating(path: str | Path) -> Generator[None]:
    """InputError where a folder or file for ``path`` cannot be made at all, as in ``/proc``."""
    try:
        yield
    except FileNotFoundError as error:
        fix = "use an output in a folder where files can be made"
        raise InputError("output", str(path), "cannot be made there", fix) from error


def beside(path: Path, ending: str) -> Path:
    """``.NAME.ENDING`` in the folder of ``path``. Raises InputError for a path without a name, like "."."""
    if not path.name:
        raise InputError("output", str(path), "has no name of its own", "use an output with a name")
    return path.with_name(f".{path.name}.{ending}")


def _check_is_here(output: str | Path) -> None:
    """Raise InputError for the name of an object, also where a Path has taken one of its slashes."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(output)):
        fix = "use a path of this machine or of a mounted file system, and copy the output"
        problem = "only t3d rollout and t3d eval write to an object store"
        raise InputError("output", str(output), problem, fix)


def check_output_file(
    path: str | Path, *inputs: str | Path | None, is_own: Callable[[Path], bool] | None = None
) -> None:
    """Find out before the work: raise InputError if a folder, or an input, stands where a file is to be.

    So does a file that is not ``is_own``, which tells those that the same command may write over
    (:mod:`t3d.work.own`); without it the command compares the plan of what is there, and says so.
    """
    _check_is_here(path)
    with write_errors(path):
        if Path(path).is_dir():
            raise InputError("output", str(path), "is a folder", "give the name of a file")
        is_there = Path(path).exists()
    for given in inputs:
        if is_there and given is not None and Path(given).exists() and Path(path).samefile(given):
            raise InputError("output", str(path), "is a file to read", "use another output")
    with write_errors(path):
        is_foreign = is_there and is_own is not None and not is_own(Path(path))
    if is_foreign:
        problem = "exists, and nothing tells that this command wrote it"
        raise InputError("output", str(path), problem, "move or delete it, or use another output")


def visible_names(folder: Path) -> list[str]:
    """Sorted, of a folder that may be missing; what begins with a dot (partial files, locks) is left out."""
    return sorted(path.name for path in folder.glob("[!.]*"))


def check_output_folder(folder: str | Path, own: Collection[str]) -> None:
    """Find out before the work: raise InputError for a folder of somebody else's files.

    It is the command's if it holds nothing, or something of a name (a pattern of ``own``) that the command
    gives; :func:`check_output_file` and the plans of work tell whether what has such a name is its own. Logs
    and empty files do not count: a shell opens the one that it redirects to before the command begins.
    """
    _check_is_here(folder)
    names = visible_names(Path(folder))
    check_names(folder, names, own, [name for name in names if not _is_log(Path(folder) / name)])


def check_names(
    folder: str | Path, names: Collection[str], own: Collection[str], counted: Sequence[str]
) -> None:
    """The same of a folder whose names are told, and which of them count."""
    if counted and not any(fnmatchcase(name, pattern) for name in names for pattern in own):
        problem = f"holds {counted[0]!r}, and nothing that this command made"
        raise InputError("output", str(folder), problem, "use a new or an empty folder")


def _is_log(path: Path) -> bool:
    return path.suffix == ".log" or (path.is_file() and path.stat().st_size == 0)


@contextmanager
def atomic_file(path: str | Path) -> Generator[Path]:
    """A partial path to write to; renamed to ``path`` on success, removed on failure.

    Raises InputError, as :func:`write_errors` does, for a disk that is full or may not be written to.
    """
    path = Path(path)
    partial = beside(path, "partial")
    with write_errors(path):
        with creating(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Generator[Path]:
    """Like :func:`atomic_file` for a folder; an older folder of that name is replaced."""
    path = Path(path)
    partial = beside(path, "partial")
    with write_errors(path):
        with creating(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            yield partial
            discard(path)
            os.replace(partial, path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def read_json(path: Path) -> Any:
    """The content of a JSON file of ours, or None if it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # the last for lists in lists in lists ...
        return None


def discard(folder: Path) -> None:
    """Remove a folder that may be missing; at no moment does half of it stand under its name.

    Raises InputError, as :func:`write_errors` does.
    """
    removed = beside(folder, "removed")
    with write_errors(folder):
        shutil.rmtree(removed, ignore_errors=True)
        if folder.is_dir():
            os.replace(folder, removed)
            shutil.rmtree(removed)


def clear_leftovers(folder: Path) -> None:
    """Remove what killed processes left: partial and half-removed files in it, and itself half removed.

    Raises InputError, as :func:`write_errors` does.
    """
    with write_errors(folder):
        shutil.rmtree(beside(folder, "removed"), ignore_errors=True)
        for pattern in (".*.partial", ".*.removed"):
            for path in folder.glob(pattern):
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
