"""What an evaluation keeps of itself while tasks or settings are added to it.

The finished files stay where they are and count until the new ones replace them. A copy lies in the folder of
unfinished work: the files are two, so that a kill between them must not cost either.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from t3d.evaluation.finished import RESULTS, SAMPLES, check_lines, check_results
from t3d.work.files import atomic_file, read_json
from t3d.work.kept import Row

Entry = dict[str, Any]
"""What was found for one task under one setting: :meth:`Measurement.summary`, and how it was made."""
Found = tuple[Entry, list[Row]]
"""An entry and its rows of ``samples.jsonl``."""


def keep_finished(output: Path, folder: Path) -> None:
    """Copy the finished files of an evaluation, if there are any, to its unfinished work."""
    if (output / RESULTS).is_file():
        for name in (SAMPLES, RESULTS):  # the second is what makes the first count
            with atomic_file(folder / name) as partial:
                shutil.copyfile(output / name, partial)


def kept_entries(folder: Path) -> Mapping[tuple[str, str], Found]:
    """What :func:`keep_finished` has left there, by task and setting.

    Raises InputError if it is not as it was written.
    """
    report = read_json(folder / RESULTS)
    if report is None:
        return {}
    check_results(report, folder / RESULTS)
    check_lines(report, folder / SAMPLES, folder / RESULTS)
    rows: dict[tuple[str, str], list[Row]] = {}
    for line in (folder / SAMPLES).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        rows.setdefault((row["task"], row["setting"]), []).append(row)
    keys = [(entry["task"], entry["setting"]) for entry in report["results"]]
    return {key: (entry, rows[key]) for key, entry in zip(keys, report["results"], strict=True)}
