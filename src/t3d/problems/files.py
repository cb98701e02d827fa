"""Data sets as local files, read as they were published."""

import gzip
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t3d.errors import InputError

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class DataFile:
    """Rows of a file, and the SHA-256 of its bytes."""

    path: Path
    sha256: str
    rows: tuple[Row, ...]


def find_file(folder: Path, patterns: Sequence[str], what: str) -> Path:
    """The file itself if ``folder`` is one, else the first match. Raises InputError if there is none."""
    if folder.is_file():
        return folder
    if not folder.is_dir():
        raise InputError("data", str(folder), "no such file or folder", f"give the folder that holds {what}")
    for pattern in patterns:
        found = sorted(path for path in folder.glob(pattern) if path.is_file())
        if len(found) > 1:
            names = ", ".join(path.name for path in found[:3])
            raise InputError("data", str(folder), f"{len(found)} files for {what} ({names})", "name the file")
        if found:
            return found[0]
    fix = f"put one of these there: {', '.join(patterns)}"
    raise InputError("data", str(folder), f"holds no file with {what}", fix)


def read_data_file(path: Path) -> DataFile:
    """Read Parquet, or JSON Lines, a JSON list or object, gzipped or not. Raises InputError otherwise."""
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    try:
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        rows = _parquet_rows(content) if path.suffix == ".parquet" else _json_rows(content.decode())
    except (OSError, ValueError, EOFError) as error:  # of Arrow, too
        problem = f"cannot be read ({' '.join(str(error).split())[:100]})"
        raise InputError("data", str(path), problem, "get the file again") from error
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise InputError(
            "data", str(path), "not a list of objects", "give JSON Lines, a JSON list or Parquet"
        )
    return DataFile(path=path, sha256=sha256, rows=tuple(rows))


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
        return list(_json_lines(text))


def _json_lines(text: str) -> Iterator[Any]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"line {number}: {error}") from error


def text_of(row: Row, names: Sequence[str], where: str) -> str:
    """The first of these fields that the row has. Raises InputError if it has none, or no text there."""
    for name in names:
        if name in row:
            if isinstance(row[name], str) and row[name].strip():
                return row[name]
            raise InputError(name, row[name], f"{where}: not a text", "get the file again")
    found = ", ".join(row) or "none"
    raise InputError(
        "data", where, f"has none of the keys {', '.join(names)} (found: {found})", "check the file"
    )
