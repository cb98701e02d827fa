"""Finished cells as small JSON files, in the output and in a folder of earlier ones."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t3d.evaluation.finished import read_cell
from t3d.reproduce.resolve import ADDED_LATER, Resolved
from t3d.work.files import write_text
from t3d.work.plan import differences


@dataclass(frozen=True)
class CellStore:
    """Cells are written to ``folder``; those of ``earlier`` (such as docs/results/cells) are used too."""

    folder: Path
    earlier: Path | None = None

    def find(self, resolved: Resolved) -> dict[str, Any] | None:
        """The record of a finished cell, or None.

        A record is no longer this cell's if a setting in it has another value now, as after a change of a
        default. Raises InputError for a damaged file.
        """
        for folder in (self.folder, self.earlier):
            for path in [] if folder is None else sorted(folder.glob(f"*.{resolved.hash}.json")):
                record = read_cell(path)
                if not differences(record["config"], resolved.full, added_later=ADDED_LATER):
                    return record
        return None

    def write(self, label: str, record: Mapping[str, Any]) -> Path:
        """Keep a finished cell; the file appears when it is complete."""
        path = self.folder / f"{label}.{record['config_hash']}.json"
        write_text(path, json.dumps(record, indent=1) + "\n")
        return path
