"""One run at a time: a lock of the operating system, which ends with the process, however that ends."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from t3d.errors import InputError
from t3d.work.files import beside, creating, write_errors


class InUseError(InputError):
    """Another run holds the folder; it may end, and then the same call succeeds."""


@contextmanager
def locked(path: Path, *, wait: bool = False, at_most: float = -1, holder: str = "") -> Generator[None]:
    """Hold the lock ``.NAME.lock`` beside a folder or file, which may be missing.

    Raises InUseError if another run holds it, in whose text ``holder`` says which, or waits until that run
    lets go, ``at_most`` that many seconds; -1 is without end.
    """
    file = beside(path, "lock")
    lock = FileLock(file, fallback_to_soft=False)
    with write_errors(path):
        with creating(path):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()  # filelock takes a file that cannot be made for one that is held
        try:
            lock.acquire(timeout=at_most, blocking=wait)
        except Timeout as error:
            problem = f"another run is using it{holder}"
            fix = "wait for that run to end, or use another output"
            raise InUseError("output", str(path), problem, fix) from error
    try:
        yield
    finally:
        if os.name == "posix":  # while it is held: filelock takes no lock on a file without a name
            file.unlink(missing_ok=True)
        lock.release()


def held(folder: Path, pattern: str) -> list[str]:
    """Names in a folder that fit the pattern and whose locks other runs hold.

    Each lock is taken for a moment, so that one of a killed run is seen to be free; nobody else may be about
    to take it then.
    """
    found = []
    for file in sorted(folder.glob(f".{pattern}.lock")):
        path = file.with_name(file.name.removeprefix(".").removesuffix(".lock"))
        try:
            with locked(path):
                pass
        except InUseError:
            found.append(path.name)
    return found
