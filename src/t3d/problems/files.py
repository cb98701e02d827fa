"""Files of JSON, JSON Lines and Parquet: data sets as they were published, and what a user wrote."""

import codecs
import gzip
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t3d.errors import InputError, require_file
from t3d.problems.fields import Record
from t3d.work.plan import file_sha256


@dataclass(frozen=True, kw_only=True, slots=True)
class DataFile:
    """Rows of a file, and the SHA-256 of its bytes."""

    path: Path
    sha256: str
    rows: tuple[Record, ...]

    def summary(self) -> dict[str, Any]:
        """Name, SHA-256 and number of rows, as results record them."""
        return {"file": self.path.name, "sha256": self.sha256, "num_rows": len(self.rows)}


def own_folder(folder: Path, name: str) -> Path:
    """The folder of that name in a folder of all data, or the latter without one."""
    return folder / name if (folder / name).is_dir() else folder


def find_files(folder: Path, patterns: Sequence[str], what: str) -> list[Path]:
    """Files of the first pattern that matches, numbered names in the order of their numbers.

    The file itself if ``folder`` is one. Raises InputError if there is none.
    """
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise InputError("data", str(folder), "no such file or folder", f"give the folder that holds {what}")
    for pattern in patterns:
        found = [path for path in folder.glob(pattern) if path.is_file()]
        if found:
            return sorted(found, key=lambda path: (path.parent.as_posix(), len(path.name), path.name))
    fix = f"put one of these there: {', '.join(patterns)}"
    raise InputError("data", str(folder), f"holds no file with {what}", fix)


def read_only_file(folder: Path, patterns: Sequence[str], what: str) -> DataFile:
    """The one file that :func:`find_files` finds. Raises InputError if it finds several."""
    found = find_files(folder, patterns, what)
    if len(found) > 1:
        names = ", ".join(path.name for path in found[:3])
        raise InputError("data", str(folder), f"{len(found)} files for {what} ({names})", "name the file")
    return read_data_file(found[0])


def read_data_file(path: Path, field: str = "data") -> DataFile:
    """Read Parquet, or JSON Lines, a JSON list or object, gzipped or not, in UTF-8 or marked UTF-16.

    Raises InputError, in which the path is the value of ``field``, for anything else.
    """
    rows = read_data_rows(path, field)
    for row in rows:
        if isinstance(row, ValueError):
            raise _unreadable(path, field, row)
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise _no_objects(path, field)
    return DataFile(path=path, sha256=file_sha256(path), rows=tuple(rows))


def read_data_rows(path: Path, field: str = "data") -> list[Any]:
    """Like :func:`read_data_file`, but a broken line of JSON Lines is a row: the error that it gave.

    So is a row that is no object. Raises InputError if the file as a whole cannot be read, or has no object.
    """
    require_file(field, path, "give JSON Lines, a JSON list or Parquet")
    content = path.read_bytes()
    try:
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        rows = _parquet_rows(content) if path.suffix == ".parquet" else _json_rows(_decoded(content))
    except (OSError, ValueError, EOFError, RecursionError) as error:  # of Arrow, too
        raise _unreadable(path, field, error) from error
    if any(isinstance(row, dict) for row in rows):
        return rows
    for row in rows:
        if isinstance(row, ValueError):
            raise _unreadable(path, field, row)
    raise _no_objects(path, field)


def _unreadable(path: Path, field: str, error: Exception) -> InputError:
    problem = f"cannot be read ({' '.join(str(error).split())[:100]})"
    return InputError(field, str(path), problem, "get the file again")


def _no_objects(path: Path, field: str) -> InputError:
    return InputError(field, str(path), "not a list of objects", "give JSON Lines, a JSON list or Parquet")


def _decoded(content: bytes) -> str:
    """UTF-8, or UTF-16 where its mark says so; the marks of files that were joined go, too."""
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = content.decode("utf-16" if is_utf16 else "utf-8-sig")
    return text.replace("\n\ufeff", "\n")


def _parquet_rows(content: bytes) -> list[Any]:
    import pyarrow.parquet as pq  # noqa: PLC0415 - tasks are imported for their names, too

    return pq.read_table(io.BytesIO(content)).to_pylist()


def _json_rows(text: str) -> list[Any]:
    """Objects of a JSON list, of one object over many lines (MATH's files), or of one a line."""
    if text.lstrip().startswith("["):
        return json.loads(text)
    try:
        return [json.loads(text)]
    except json.JSONDecodeError:
        return [_json_line(line, number) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def _json_line(line: str, number: int) -> Any:
    """The value of a line, or the error that says why it has none."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:  # also a whole number of too many digits
        return ValueError(f"line {number}: {error}")


def read_objects(path: str | Path, field: str, kind: str) -> Iterator[tuple[str, Record]]:
    """The objects of a file with one per line, as :func:`read_lines` finds the lines."""
    for where, line in read_lines(path, field, kind):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # also a whole number of too many digits
            problem = f"not JSON ({error})"
            raise InputError(field, where, problem, "write one JSON object per line") from error
        if not isinstance(row, dict):
            raise InputError(field, where, "not an object", "write one JSON object per line")
        yield where, row


def read_lines(path: str | Path, field: str, kind: str) -> list[tuple[str, str]]:
    r"""The lines that are not empty, each with where it stands, such as ``line 3 of FILE``.

    Only ``\n`` ends a line. Raises InputError as :func:`read_text_file`.
    """
    numbered = enumerate(read_text_file(path, field, kind).split("\n"), start=1)
    return [(f"line {number} of {path}", line) for number, line in numbered if line.strip()]


def read_text_file(path: str | Path, field: str, kind: str) -> str:
    """A file's text. ``field`` and ``kind`` (``a JSONL file of outputs``) are for the message.

    Raises InputError for a missing file, a folder, or what is not UTF-8 text.
    """
    path, fix = Path(path), f"give {kind}"
    require_file(field, path, fix)
    try:
        return path.read_text(encoding="utf-8-sig")  # some editors begin a file with a mark
    except UnicodeDecodeError as error:
        raise InputError(field, str(path), f"not UTF-8 text ({error.reason})", fix) from error
