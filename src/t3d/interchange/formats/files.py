"""Files of records: a JSON list, or one JSON object per line."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from t3d.errors import InputError
from t3d.problems.fields import Record
from t3d.problems.text_files import read_lines
from t3d.work.files import atomic_file


def _refuse(path: Path, problem: str, fix: str) -> InputError:
    return InputError("input", str(path), problem, fix)


def read_json_list(path: Path) -> Iterator[Record]:
    """Records of a file that holds one JSON list of objects.

    Raises InputError for a missing file, broken JSON or anything but such a list.
    """
    if not path.is_file():
        raise _refuse(path, "no such file", "give a JSON file")
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise _refuse(path, f"not JSON ({error})", "give one JSON list of records") from error
    if not isinstance(records, list):
        raise _refuse(path, "not a list", "give one JSON list of records")
    for index, record in enumerate(records):
        if not isinstance(record, dict):
            raise _refuse(path, f"record {index} is not an object", "give one JSON list of objects")
        yield record


def write_json_list(path: Path, records: Iterable[Record]) -> None:
    """Write one JSON list, a record per line."""
    with atomic_file(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.write("[")
        for index, record in enumerate(records):
            file.write((",\n" if index else "") + json.dumps(record, ensure_ascii=False))
        file.write("]\n")


def read_json_lines(path: Path) -> Iterator[Record]:
    """Records of a file with one JSON object per line; empty lines are skipped.

    Raises InputError for a missing file or another line.
    """
    for where, line in read_lines(path, "input", "a file with one JSON object per line"):
        yield _object_of_line(where, line)


def _object_of_line(where: str, line: str) -> Record:
    fix = "write one JSON object per line"
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError("input", where, f"not JSON ({error})", fix) from error
    if not isinstance(record, dict):
        raise InputError("input", where, "not an object", fix)
    return record


def write_json_lines(path: Path, records: Iterable[Record]) -> None:
    """Write one JSON object per line."""
    with atomic_file(path) as partial, partial.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
