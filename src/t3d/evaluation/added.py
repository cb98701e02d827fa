"""What an evaluation keeps of itself while tasks or settings are added to it.

The finished files stay where they are and count until the new ones replace them. A copy lies in the folder of
unfinished work: the files are two, so that a kill between them must not cost either.
"""

import shutil
from pathlib import Path
from typing import Any

from t3d.errors import InputError
from t3d.evaluation.finished import RESULTS, SAMPLES
from t3d.evaluation.samples import read_graded
from t3d.work.files import atomic_file
from t3d.work.kept import Row

Entry = dict[str, Any]
"""What was found for one task under one setting: :meth:`Measurement.summary`, and how it was made."""
Found = tuple[Entry, list[Row]]
"""An entry and its rows of ``samples.jsonl``."""


def keep_finished(output: Path, folder: Path) -> None:
    """Copy the finished files of an evaluation, if there are any, to its unfinished work.

    Raises InputError, as :func:`kept_entries` does, and then leaves nothing there.
    """
    if kept_entries(output):
        for name in (SAMPLES, RESULTS):  # the second is what makes the first count
            with atomic_file(folder / name) as partial:
                shutil.copyfile(output / name, partial)


def kept_entries(folder: Path) -> dict[tuple[str, str], Found]:
    """What finished files in a folder say, by task and setting; nothing where there are none.

    Raises InputError if they are not as they were written, or do not have the responses of every entry.
    """
    if not (folder / RESULTS).is_file():
        return {}
    try:
        graded = read_graded(folder)
    except InputError as error:
        raise InputError("output", error.value, error.problem, error.fix) from error
    found: dict[tuple[str, str], Found] = {}
    for key, entry in graded.entries.items():
        rows = list(graded.cells.get(key, {}).values())
        if len(rows) != entry["n"]:
            problem = f"has {len(rows)} responses of {key}, but {RESULTS} counts {entry['n']}"
            fix = f"delete it and {RESULTS}; the same command then makes them again"
            raise InputError("output", str(folder / SAMPLES), problem, fix)
        found[entry["task"], entry["setting"]] = dict(entry), rows
    return found
