"""An output on an object store (S3, GCS, ... by fsspec).

It is made in a folder here, and each finished file goes there. An object appears under its name only when it
is complete, so nobody reads half of one. Nothing locks there: two runs of the same command may make a unit
twice, which gives the same bytes; of two commands the one that comes later finds the other's plan and refuses
to go on.
"""

import re
import shutil
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from weakref import finalize

from t3d.errors import InputError
from t3d.work.files import atomic_file

Mark = tuple[Any, ...]
"""What tells two versions of a file apart."""
_TELLING = ("size", "ETag", "etag", "md5Hash", "mtime", "LastModified", "updated", "created")
"""Fields by which stores tell them apart; which of them a store has is its own."""


def is_remote(output: str) -> bool:
    """Whether a name is that of an object on a store: ``s3://bucket/name``."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", output) is not None


class RemoteOutput:
    """A file on a store with those beside it, or a folder there.

    Names of its files, and of the folder of its units, continue its own.

    The first of ``files`` says that all is there (``""``: the output itself); in a folder it sums up others.
    ``local`` is where the output is made: in a folder of this process alone, which is removed with it.
    """

    def __init__(self, url: str, files: Sequence[str], units: str) -> None:
        self.url, self._files, self._units = url, files, units
        self._store, self._root = _opened(url)
        folder = Path(mkdtemp(prefix="t3d-"))
        finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.local = folder / self._root.rpartition("/")[2]
        self._seen: dict[str, tuple[Mark, Mark]] = {}

    @property
    def finished(self) -> str:
        """Ending of the file that is there when all is."""
        return self._files[0]

    def names(self) -> list[str]:
        """What lies in the folder of this name. Raises InputError for a store that cannot be read."""
        with _store_errors(self.url):
            self._store.invalidate_cache()
            try:
                found = self._store.ls(self._root, detail=False)
            except FileNotFoundError:
                return []
        return sorted({path.rstrip("/").rpartition("/")[2] for path in found if path != self._root})

    def there(self) -> dict[str, Mark]:
        """Endings of the objects that there are (``.chunks/chunk-00000.parquet``), with the mark of each.

        Raises InputError for a store that cannot be read.
        """
        with _store_errors(self.url):
            self._store.invalidate_cache()
            found = {ending: mark for ending in self._files if (mark := self._mark(ending))}
            listed: Mapping[str, Any] = self._store.find(self._root + self._units, detail=True)
            found |= {path.removeprefix(self._root): _mark_of(info) for path, info in listed.items()}
        return found

    def pull(self, there: Mapping[str, Mark], wanted: Callable[[str], bool]) -> bool:
        """Get those of the objects that are wanted and not here in that version, each whole or not at all.

        Whether all were still there.
        """
        for ending in filter(wanted, there):
            path = self._path(ending)
            if path.is_file() and ending in self._seen and self._seen[ending][0] == there[ending]:
                continue
            try:
                with self.errors(), atomic_file(path) as partial, _store_errors(self.url, FileNotFoundError):
                    self._store.get_file(self._root + ending, str(partial))
            except FileNotFoundError:
                return False
            self._seen[ending] = there[ending], _mark_here(path)
        return True

    def push(self) -> None:
        """Put what is new or other here, in the order it was written in, then take away what is gone.

        Of a folder the file that sums up the others is gone until they are there.
        """
        here = sorted(self._here(), key=lambda ending: self._path(ending).stat().st_mtime_ns)
        new = [ending for ending in here if self._is_new(ending)]
        if self.finished and self.finished in new and self.finished in self._seen:
            self._remove(self.finished)
        for ending in new:
            path = self._path(ending)
            with _store_errors(self.url):
                here_now = _mark_here(path)
                self._store.put_file(str(path), self._root + ending)
                self._store.invalidate_cache()
                self._seen[ending] = self._mark(ending), here_now
        for ending in sorted(self._seen.keys() - set(here)):
            del self._seen[ending]
            self._remove(ending)
        if not self._path(self._units).is_dir():  # those of others, too, of which the output was made
            for ending in self.there():
                if ending.startswith(self._units) and self.finished in here:
                    self._remove(ending)

    def ending(self, path: Path) -> str:
        """Of a file in the folder, by which its object is named."""
        return str(path).removeprefix(str(self.local))

    def told(self, text: str) -> str:
        """A text with the names of the store in the place of those of the folder."""
        return text.replace(str(self.local), self.url)

    @contextmanager
    def errors(self) -> Generator[None]:
        """Refusals raised inside name the objects."""
        try:
            yield
        except InputError as error:
            value = self.told(error.value) if isinstance(error.value, str) else error.value
            raise type(error)(error.field, value, self.told(error.problem), self.told(error.fix)) from error

    def _here(self) -> list[str]:
        """Endings of the files in the folder, but for partial ones and locks."""
        files = [ending for ending in self._files if self._path(ending).is_file()]
        units = sorted(self._path(self._units).glob("[!.]*"))
        return files + [self.ending(path) for path in units if path.is_file()]

    def _is_new(self, ending: str) -> bool:
        seen = self._seen.get(ending)
        return seen is None or seen[1] != _mark_here(self._path(ending))

    def _path(self, ending: str) -> Path:
        return Path(f"{self.local}{ending}")

    def _mark(self, ending: str) -> Mark:
        """Of an object; empty without one."""
        try:
            return _mark_of(self._store.info(self._root + ending))
        except FileNotFoundError:
            return ()

    def _remove(self, ending: str) -> None:
        with _store_errors(self.url), suppress(FileNotFoundError):
            self._store.rm_file(self._root + ending)


def _mark_of(info: Mapping[str, Any]) -> Mark:
    return tuple(str(info[name]) for name in _TELLING if name in info)


def _mark_here(path: Path) -> Mark:
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ino


def _opened(url: str) -> tuple[Any, str]:
    """The store, and the object's name there. Raises InputError for one not known or not installed."""
    protocol, _, name = url.partition("://")
    if protocol.lower() in ("file", "local"):
        raise InputError("output", url, "not an object store", f"give the path itself: {name}")
    if not name.strip("/") or name.endswith("/"):
        raise InputError("output", url, "names no object", f"name one, such as {url.rstrip('/')}/NAME")
    from fsspec.core import url_to_fs  # noqa: PLC0415

    try:
        store, root = url_to_fs(url)
    except ImportError as error:
        raise InputError(
            "output", url, f"not installed: {error}", "install the package that it names"
        ) from error
    except ValueError as error:
        raise InputError(
            "output", url, f"no such store ({error})", "use s3:// or gs://, or a path"
        ) from error
    return store, root


@contextmanager
def _store_errors(url: str, *passed: type[Exception]) -> Generator[None]:
    """InputError for whatever the store raises, but for what is ``passed``: each has errors of its own."""
    try:
        yield
    except passed:
        raise
    except Exception as error:
        problem = f"{type(error).__name__} of the store: {str(error).partition(chr(10))[0]}"
        fix = "check the name, the rights and the network; the same command then goes on"
        raise InputError("output", url, problem, fix) from error
