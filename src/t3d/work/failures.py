"""Prompts that failed while others were decoded: kept beside the units of work, bounded, told in one file.

Those of a unit lie beside it in a file of their own (:class:`UnitFailures`), since several processes may make
the units. ``OUTPUT.errors.jsonl`` lists those of all units (:class:`Failures`).
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

from t3d.errors import InputError
from t3d.work.files import write_errors, write_text


class TooManyErrors(InputError):
    """More prompts failed than may. Told in one line, which names the file with their tracebacks."""


@dataclass(frozen=True)
class Failure:
    """A prompt that has no response."""

    id: str
    error: str
    """Name of the exception's class."""
    message: str
    traceback: str = ""
    """Of the forward that raised; empty where the request itself was refused."""


class UnitFailures:
    """Failed prompts of one unit, each with the attempt that it failed in: a JSON line each.

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
        if found:
            rows = [asdict(failure) | {"attempt": attempt} for failure, attempt in found.values()]
            write_text(self._path, "".join(json.dumps(row) + "\n" for row in rows))
        else:
            with write_errors(self._path):
                self._path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Failures:
    """Failed prompts of all units of one output, as one attempt to make it sees them."""

    output: Path
    max_errors: int
    """Prompts that may fail; one more ends the attempt."""
    attempt: str
    """Processes that make the units together give the same. What failed in another attempt is tried again."""
    files: Sequence[Path]
    """Of each unit: where its failures are kept."""

    @property
    def path(self) -> Path:
        """The file that lists them, a JSON line each, beside the output."""
        return errors_file(self.output)

    def of_unit(self, number: int) -> UnitFailures:
        """Those of a unit, counted from 0."""
        return UnitFailures(self.files[number], self.attempt)

    def add(self, number: int, failures: Sequence[Failure]) -> None:
        """Keep those that a unit has had in this attempt. Raises TooManyErrors beyond the bound."""
        if failures:
            self.of_unit(number).add(failures)
            self._check([each for each, attempt in self._all() if attempt == self.attempt])

    def num_left(self) -> int:
        """How many more may fail in this attempt; what other processes have found is counted."""
        return self.max_errors - sum(attempt == self.attempt for _, attempt in self._all())

    def to_try(self) -> bool:
        """Whether prompts of any unit failed in another attempt."""
        return any(attempt != self.attempt for _, attempt in self._all())

    def any(self) -> bool:
        """Whether a prompt has failed and was not answered since."""
        return bool(self.found())

    def found(self) -> list[Failure]:
        """All of them, of every attempt."""
        return [failure for failure, _ in self._all()]

    def report(self) -> None:
        """List them in the file beside the output, which goes where there are none.

        Raises TooManyErrors beyond the bound.
        """
        found = self.found()
        self._check(found)
        self._list(found)

    def _check(self, found: Sequence[Failure]) -> None:
        if len(found) > self.max_errors:
            self._list(found)
            first = f"{found[0].id!r}: {found[0].error}: {found[0].message.partition(chr(10))[0]}"
            problem = f"{_counted(len(found))} failed ({first}); {self.path} lists all, finished work is kept"
            fix = "mend what it names, or let more fail; the same command then tries them again"
            raise TooManyErrors("max_errors", self.max_errors, problem, fix)

    def _list(self, found: Sequence[Failure]) -> None:
        if found:
            write_text(self.path, "".join(json.dumps(asdict(each)) + "\n" for each in found))
        else:
            with write_errors(self.path):
                self.path.unlink(missing_ok=True)

    def _all(self) -> list[tuple[Failure, str]]:
        return [pair for number in range(len(self.files)) for pair in self.of_unit(number).all().values()]


def errors_file(output: Path) -> Path:
    """Where the failed prompts of an output are listed."""
    return output.with_name(f"{output.name}.errors.jsonl")


def new_attempt() -> str:
    """A name that no other attempt has."""
    return uuid4().hex


def failed_line(failures: Sequence[Failure], output: Path) -> list[str]:
    """What a command says last of the prompts that failed; nothing where none did."""
    if not failures:
        return []
    told = f"{_counted(len(failures))} failed, listed in {errors_file(output)}"
    return [f"{told}; the same command tries them again"]


def _counted(count: int) -> str:
    return f"{count} prompt{'s' * (count > 1)}"
