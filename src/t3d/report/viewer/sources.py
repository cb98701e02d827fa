"""What ``t3d view`` was given, told by its content: trajectories, answers, or a folder that holds some."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from t3d.errors import InputError
from t3d.evaluation.finished import SAMPLES
from t3d.evaluation.samples import read_graded
from t3d.problems.files import read_lines
from t3d.report.viewer.name import FIX, check_given
from t3d.report.viewer.shown import Shown, Source, of_row, of_trajectory, read_responses, source_of
from t3d.trajectory import read_trajectories

_IN_RUN = ("*.parquet", "*/*.parquet", f"*/{SAMPLES}", f"*/*/{SAMPLES}")
"""Where a run has what can be shown: of demo, train with evaluations beside it, and reproduce."""


def read_sources(path: str | Path, field: str = "source") -> list[Source]:
    """All that a file or folder has to show; of a run, trajectories first, since they can be played.

    Raises InputError, whose value is the path, where there is nothing, and for damaged files.
    """
    path = Path(path)
    if path.is_dir() and (path / SAMPLES).is_file():
        return _answers(path / SAMPLES, str(path))
    if path.is_dir():
        return _of_run(path, field)
    check_given(path, field)
    with path.open("rb") as file:
        beginning = file.read(4)
    if beginning == b"PAR1":
        return [source_of(str(path), [of_trajectory(one) for one in read_trajectories(path)])]
    return _answers(path, str(path), field)


def _of_run(folder: Path, field: str) -> list[Source]:
    found = [path for pattern in _IN_RUN for path in sorted(folder.glob(pattern)) if not _is_hidden(path)]
    sources: list[Source] = []
    for path in found:
        name = str((path.parent if path.name == SAMPLES else path).relative_to(folder))
        if path.name == SAMPLES:
            sources += _answers(path, name)
        elif _is_of_trajectories(path):
            sources.append(source_of(name, [of_trajectory(one) for one in read_trajectories(path)]))
    if not sources:
        raise InputError(field, str(folder), f"holds neither trajectories nor {SAMPLES}", FIX)
    return sources


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts[-3:])


def _is_of_trajectories(path: Path) -> bool:
    """A run may hold other data sets."""
    try:
        return b"t3d_schema_version" in (pq.read_metadata(path).metadata or {})
    except (OSError, pa.ArrowException):
        return True  # damaged: reading it says so


def _answers(file: Path, name: str, field: str = "source") -> list[Source]:
    """A source per setting, in the order of the lines; the verdicts are checked where there are some."""
    if not _has_verdicts(file, field):
        responses = read_responses(file)
        if not responses:
            raise InputError(field, str(file), "holds no response", FIX)
        return [source_of(name, responses)]
    graded = read_graded(file)
    by_setting: dict[str | None, list[Shown]] = {}
    for key, rows in graded.cells.items():
        shown = [of_row({"task": key.task, **row}, f"{row['id']} in {file}") for row in rows.values()]
        by_setting.setdefault(key.setting, []).extend(shown)
    return [
        source_of(name if setting is None else f"{name}: {setting}", shown)
        for setting, shown in by_setting.items()
    ]


def _has_verdicts(file: Path, field: str) -> bool:
    """Whether the first line is a graded answer. Files of results, and cells, keep no texts: refused."""
    if file.suffix == ".json":
        problem = "a file of results, or a cell, has verdicts and not the answers"
        raise InputError(field, str(file), problem, "give the folder of its evaluation, or another source")
    lines = read_lines(file, field, "a JSONL file of answers, or a Parquet file of t3d rollout")
    try:
        first = json.loads(lines[0][1]) if lines else None
    except (ValueError, RecursionError) as error:
        raise InputError(field, str(file), f"neither Parquet nor JSON Lines ({error})", FIX) from error
    if not isinstance(first, dict):
        raise InputError(field, str(file), "has no response in its first line", FIX)
    return "correct" in first


def limited(sources: Iterable[Source], limit: int) -> list[Source]:
    """At most so many responses of each: those of the first source, and in the others the same ids first."""
    sources = list(sources)
    wanted = {one.id for one in sources[0].shown[:limit]} if sources else set()
    return [replace(source, shown=_first(source.shown, wanted, limit)) for source in sources]


def _first(shown: tuple[Shown, ...], wanted: set[str], limit: int) -> tuple[Shown, ...]:
    if len(shown) <= limit:
        return shown
    chosen = [one.id for one in shown if one.id in wanted]
    chosen += [one.id for one in shown if one.id not in wanted]
    kept = set(chosen[:limit])
    return tuple(one for one in shown if one.id in kept)
