"""What failed while others were decoded: kept beside the units of work, bounded, told in one file.

Failures of a unit lie beside it in a file of their own (:class:`UnitFailures`), since several processes may
make the units. One file beside the output lists those of all units (:class:`Failures`).
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from t3d.errors import InputError
from t3d.work.files import write_errors, write_text


class TooManyErrors(InputError):
    """More failed than may. Told in one line, which names the file with their tracebacks."""


@dataclass(frozen=True)
class Failure:
    """A prompt without a response, or one of the responses to a prompt that is missing."""

    id: str
    error: str
    """Name of the exception's class."""
    message: str
    traceback: str = ""
    """Of the forward that raised; empty where the request itself was refused."""


class UnitFailures:
    """What failed of one unit, each with the attempt that it failed in: a JSON line each.

    The file is written as a whole, so that other processes may read it at any time.
    """

    def __init__(self, path: Path, attempt: str) -> None:
        self._path, self._attempt = path, attempt

    def all(self) -> dict[str, tuple[Failure, str]]:
        """With their attempts, by id. Raises InputError for a file that is not as it was written."""
        try:
            lines = self._path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return {}
        try:
            rows = [json.loads(line) for line in lines]
            attempts = [row.pop("attempt") for row in rows]
            return {row["id"]: (Failure(**row), each) for row, each in zip(rows, attempts, strict=True)}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            fix = "delete it with the chunk beside it; the same command then makes that again"
            raise InputError("output", str(self._path), f"damaged ({error})", fix) from error

    def to_try(self) -> set[str]:
        """Ids that failed in another attempt."""
        return {name for name, (_, attempt) in self.all().items() if attempt != self._attempt}

    def add(self, failures: Iterable[Failure]) -> None:
        """Keep these, too; what failed again, of this attempt."""
        self._write(self.all() | {each.id: (each, self._attempt) for each in failures})

    def forget(self, ids: Collection[str]) -> None:
        """Those of these that have not failed in this attempt."""
        found = self.all()
        kept = {name: pair for name, pair in found.items() if name not in ids or pair[1] == self._attempt}
        if kept != found:
            self._write(kept)

    def _write(self, found: Mapping[str, tuple[Failure, str]]) -> None:
        rows = [asdict(failure) | {"attempt": attempt} for failure, attempt in found.values()]
        _write_rows(self._path, rows)


@dataclass(frozen=True)
class Failures:
    """What failed of all units of one output, as one attempt to make it sees it."""

    path: Path
    """The file that lists them, a JSON line each."""
    max_errors: int
    """How many may fail; one more ends the attempt."""
    attempt: str
    """Processes that make the units together give the same. What failed in another attempt is tried again."""
    files: Sequence[Path]
    """Of each unit: where its failures are kept."""
    labels: Sequence[Mapping[str, str]] = ()
    """Of each unit, where ids alone do not tell: what its lines in the list say first."""
    item: str = "prompt"
    """What fails."""

    def of_unit(self, number: int) -> UnitFailures:
        """Those of a unit, counted from 0."""
        return UnitFailures(self.files[number], self.attempt)

    def add(self, number: int, failures: Sequence[Failure]) -> None:
        """Keep those that a unit has had in this attempt. Raises TooManyErrors beyond the bound."""
        if failures:
            self.of_unit(number).add(failures)
            self._check([found for found in self._all() if found.attempt == self.attempt])

    def num_left(self) -> int:
        """How many more may fail in this attempt; what other processes have found is counted."""
        return max(0, self.max_errors - sum(found.attempt == self.attempt for found in self._all()))

    def to_try(self) -> bool:
        """Whether anything of any unit failed in another attempt."""
        return any(found.attempt != self.attempt for found in self._all())

    def any(self) -> bool:
        """Whether anything has failed, in whatever attempt, and did not succeed since."""
        return bool(self._all())

    def report(self) -> None:
        """List them in the file, which goes where there are none. Raises TooManyErrors beyond the bound."""
        found = self._all()
        self._check(found)
        self._list(found)

    def count(self) -> int:
        """How many, of every attempt."""
        return len(self._all())

    def _check(self, found: Sequence["_Found"]) -> None:
        if len(found) > self.max_errors:
            self._list(found)
            failure = found[0].failure
            name = " ".join([*found[0].label.values(), repr(failure.id)])
            first = f"{name}: {failure.error}: {failure.message.partition(chr(10))[0]}"
            told = f"{_counted(len(found), self.item)} failed ({first})"
            problem = f"{told}; {self.path} lists all, finished work is kept"
            fix = "mend what it names, or let more fail; the same command then tries them again"
            raise TooManyErrors("max_errors", self.max_errors, problem, fix)

    def _list(self, found: Sequence["_Found"]) -> None:
        _write_rows(self.path, [dict(each.label) | asdict(each.failure) for each in found])

    def _all(self) -> list["_Found"]:
        return [
            _Found(failure, attempt, self.labels[number] if self.labels else {})
            for number in range(len(self.files))
            for failure, attempt in self.of_unit(number).all().values()
        ]


@dataclass(frozen=True)
class _Found:
    failure: Failure
    attempt: str
    label: Mapping[str, str]


def unit_errors_file(unit: Path) -> Path:
    """Where the failures of a unit that is one file are kept."""
    return unit.with_suffix(".errors.jsonl")


def errors_file(output: Path) -> Path:
    """Where the failures of an output that is one file are listed."""
    return output.with_name(f"{output.name}.errors.jsonl")


def unit_failures(unit: Path) -> list[Failure]:
    """Those that lie beside a unit. Raises InputError for a file that is not as it was written."""
    return [failure for failure, _ in UnitFailures(unit_errors_file(unit), "").all().values()]


def listed_failures(output: Path) -> list[Failure]:
    """Those that are listed beside an output. Raises InputError for a list that is not as it was written."""
    path = errors_file(output)
    if not path.is_file():
        return []
    try:
        return [Failure(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    except (ValueError, TypeError) as error:
        fix = f"delete it; the command that made {output.name} then lists them again"
        raise InputError("parts", str(path), f"damaged ({error})", fix) from error


def list_failures(output: Path, failures: Sequence[Failure]) -> None:
    """List them beside an output; without any the list goes."""
    _write_rows(errors_file(output), [asdict(failure) for failure in failures])


def new_attempt() -> str:
    """A name that no other attempt has."""
    return uuid4().hex


def failed_line(count: int, path: Path | str, item: str = "prompt") -> list[str]:
    """What a command says last of what failed; nothing where all succeeded."""
    told = f"{_counted(count, item)} failed, listed in {path}"
    return [f"{told}; the same command tries them again"] if count else []


def _counted(count: int, item: str) -> str:
    return f"{count} {item}{'s' * (count > 1)}"


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A JSON line each; no file without any."""
    if rows:
        write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
    else:
        with write_errors(path):
            path.unlink(missing_ok=True)
