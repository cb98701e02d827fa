"""Writing files of records: a JSON list, or one JSON object per line."""

import json
from collections.abc import Iterable
from pathlib import Path

from t3d.problems.fields import Record
from t3d.work.files import atomic_file


def write_json_list(path: Path, records: Iterable[Record]) -> None:
    """Write one JSON list, a record per line."""
    with atomic_file(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.write("[")
        for index, record in enumerate(records):
            file.write((",\n" if index else "") + json.dumps(record, ensure_ascii=False))
        file.write("]\n")


def write_json_lines(path: Path, records: Iterable[Record]) -> None:
    """Write one JSON object per line."""
    with atomic_file(path) as partial, partial.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
