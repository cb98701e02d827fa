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
def locked(path: Path, *, wait: bool = False, holder: str = "") -> Generator[None]:
    """Hold the lock ``.NAME.lock`` beside a folder or file, which may be missing.

    Raises InUseError if another run holds it, in whose text ``holder`` says which, or waits until that run
    lets go.
    """
    file = beside(path, "lock")
    lock = FileLock(file, fallback_to_soft=False)
    with write_errors(path):
        with creating(path):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()  # filelock takes a file that cannot be made for one that is held
        try:
            lock.acquire(blocking=wait)
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
