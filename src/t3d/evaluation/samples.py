"""Graded answers as files: what ``eval``, ``grade`` and ``reproduce`` wrote, by task and setting."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from t3d.errors import InputError
from t3d.evaluation.finished import (
    RESULTS,
    SAMPLES,
    SUMMARY_ENDING,
    check_lines,
    check_results,
    check_summary,
    fault_of_cell,
)
from t3d.grading.verdict import OTHER_RULES
from t3d.problems.files import read_lines
from t3d.problems.problem import Problem
from t3d.work.files import read_json
from t3d.work.kept import Row

COSTS = ("num_tokens", "num_denoising_steps", "num_forwards")
"""What decoding an answer took; files of outputs from elsewhere do not say."""
DRAFTS = ("num_drafted", "num_accepted")
"""What is kept of drafts, where a strategy makes some."""
ERROR = "error"
"""Reason of a verdict on a response that is missing since decoding failed, and why that ended."""
_DRAW = re.compile(r"#\d+$")
_POSED = ("split", "seed", "limit", "samples_per_prompt")
"""What poses the problems of a cell of ``t3d reproduce``, besides its suite and data."""


def sample_row(task: str, problem: Problem, row: Row) -> dict[str, Any]:
    """A graded response as a line of ``samples.jsonl``."""
    verdict = {name: row[name] for name in ("correct", "extracted", "reason", *OTHER_RULES) if name in row}
    return {
        "task": task,
        "id": row["id"],
        "question": problem.conversation,
        "answer": problem.answer,
        "response": row["response"],
        **verdict,
        **{name: row[name] for name in (*COSTS, "finish_reason")},
        **{name: row[name] for name in DRAFTS if name in row},
    }


def failed_row(task: str, problem: Problem, identity: str, rules: Iterable[str]) -> dict[str, Any]:
    """The line of a response that is missing since decoding failed: wrong, by all rules."""
    wrong = {"correct": False, "extracted": None, "reason": ERROR, **dict.fromkeys(rules, False)}
    return sample_row(
        task,
        problem,
        {"id": identity, "response": "", **wrong, **dict.fromkeys(COSTS, 0), "finish_reason": ERROR},
    )


def jsonl(rows: Iterable[Row]) -> str:
    """Rows as JSON Lines, in ASCII, since a text may hold lone surrogates."""
    return "".join(json.dumps(row) + "\n" for row in rows)


class Key(NamedTuple):
    """Names of a cell; None where the lines do not name it."""

    task: str | None
    setting: str | None

    def __str__(self) -> str:
        return " ".join(name for name in self if name is not None) or "(unnamed)"


@dataclass(frozen=True, kw_only=True)
class GradedSamples:
    """The answers of one evaluation: cell, then id, then line."""

    path: str
    """As the caller gave it."""
    cells: Mapping[Key, Mapping[str, Row]]
    source: Mapping[str, Any] | None = None
    """Of a cell of ``t3d reproduce``: what posed and graded its problems, which its lines do not tell."""
    entries: Mapping[Key, Mapping[str, Any]] = field(default_factory=dict)
    """The entries of its ``results.json`` or of the cell: they have the times, which no line has."""

    def describe(self) -> str:
        """The names of its cells."""
        return ", ".join(map(str, self.cells))


def without_draw(identity: str) -> str:
    """The id of the problem; ``#1`` behind it numbers several answers."""
    return _DRAW.sub("", identity)


def prompt_key(row: Row) -> tuple[str, str, str]:
    """What the answers to one prompt share; problems whose own names end in ``#1`` differ in their data."""
    return without_draw(str(row["id"])), str(row.get("question")), str(row.get("answer"))


def read_graded(path: str | Path) -> GradedSamples:
    """Read a folder of ``t3d eval``, its ``samples.jsonl``, a file of ``t3d grade``, or a cell of ``t3d
    reproduce`` (``cells/LABEL.HASH.json``).

    Raises InputError for a file or line that is not so, for an id that a cell has twice, and for a cell
    that does not keep its verdicts.
    """
    file = Path(path)
    if file.is_dir():
        file = file / SAMPLES
    if not file.is_file():
        fix = "give a finished output of t3d eval, a file of t3d grade, or a cell of t3d reproduce"
        raise InputError("evaluations", str(path), f"there is no {file.name}", fix)
    report = _report_in(file)
    if report is not None:
        return _read_cell(str(path), report)
    named_task = _task_of_summary(file)
    cells: dict[Key, dict[str, Row]] = {}
    for where, line in read_lines(file, "evaluations", "a JSONL file"):
        row = _parse(line, where)
        task, setting = row.get("task", named_task), row.get("setting")
        key = Key(task=None if task is None else str(task), setting=None if setting is None else str(setting))
        cell = cells.setdefault(key, {})
        identity = str(row["id"])
        if identity in cell:
            fix = f"number the answers to one problem, such as {identity}#0 and {identity}#1"
            raise InputError("id", identity, f"{where}: used before in {key}", fix)
        cell[identity] = row
    if not cells:
        raise InputError("evaluations", str(file), "holds no answer", "give a finished evaluation")
    return GradedSamples(path=str(path), cells=cells, entries=_entries_beside(file))


def _entries_beside(file: Path) -> dict[Key, Mapping[str, Any]]:
    """Of ``results.json`` beside the ``samples.jsonl`` of an evaluation; none where there is no such file."""
    results = file.with_name(RESULTS)
    if file.name != SAMPLES or not results.is_file():
        return {}
    match read_json(results):
        case {"results": list() as entries} as report:
            check_results(report, results, "evaluations")
            check_lines(report, file, results, "evaluations")
            return {Key(task=entry["task"], setting=entry["setting"]): entry for entry in entries}
    raise InputError(
        "evaluations", str(results), "not the results of t3d eval", "delete it, or evaluate again"
    )


def _report_in(file: Path) -> dict[str, Any] | None:
    """The content of a JSON file of results and their configuration; None for a file of lines."""
    if file.suffix != ".json":
        return None
    match read_json(file):
        case {"results": list(), "config": dict()} as report:
            return report
    return None


def _read_cell(path: str, record: Mapping[str, Any]) -> GradedSamples:
    """The verdicts of a cell, whose problems are named by what poses them and their number."""
    match record["config"]:
        case {"suite": suite, "evaluation": {"samples_per_prompt": int() as num_draws, **evaluation}} if (
            num_draws > 0
        ):
            posed = {**evaluation, "samples_per_prompt": num_draws}
        case _:
            fix = "give a cell of t3d reproduce, or the folder of t3d eval"
            raise InputError("evaluations", path, "not the record of a cell", fix)
    fault = fault_of_cell(record)
    if fault is not None:
        raise InputError("evaluations", path, f"damaged ({fault})", "make the cell again")
    if not all("verdicts" in row for row in record["results"]):
        problem = "made before cells kept the verdict of every problem; it tells only their sum"
        raise InputError("evaluations", path, problem, f"make it again: {record['command']}")
    source = {"suite": suite, **{name: posed.get(name) for name in _POSED}}
    source |= {f"data and grader of {task}": each for task, each in posed.get("data_and_graders", {}).items()}
    where = f"{posed.get('split')}/seed{posed.get('seed')}/limit{posed.get('limit')}"
    cells: dict[Key, Mapping[str, Row]] = {}
    for row in record["results"]:
        verdicts, prefix = row["verdicts"], f"{row['task']}/{where}"
        cells[Key(task=row["task"], setting=row["setting"])] = {
            line["id"]: line for line in _verdict_lines(verdicts, prefix, num_draws)
        }
    entries = {Key(task=row["task"], setting=row["setting"]): row for row in record["results"]}
    return GradedSamples(path=path, cells=cells, source=source, entries=entries)


def _verdict_lines(verdicts: str, prefix: str, num_draws: int) -> Iterator[Row]:
    """A line per verdict; the answers to one problem stand one after another."""
    for index, verdict in enumerate(verdicts):
        problem, draw = divmod(index, num_draws)
        name = f"{prefix}/{problem}" if num_draws == 1 else f"{prefix}/{problem}#{draw}"
        yield {"id": name, "correct": verdict == "1"}


def _task_of_summary(file: Path) -> str | None:
    """The task that ``t3d grade`` recorded beside its file."""
    summary = file.with_name(file.name + SUMMARY_ENDING)
    if not summary.is_file():
        return None
    match read_json(summary):
        case {"task": str() as task} as report:
            check_summary(report, summary, "evaluations")
            check_lines(report, file, summary, "evaluations")
            return task
    raise InputError("evaluations", str(summary), "not a summary of t3d grade", "delete it, or grade again")


def row_of(line: str, where: str, field: str) -> Row:
    """The JSON object of a line, which has an ``id``. Raises InputError, naming ``field``, for any other."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        fix = "write one JSON object per line"
        raise InputError(field, where, f"not JSON ({error})", fix) from error
    if not isinstance(row, dict) or type(row.get("id")) not in (str, int):
        raise InputError(field, where, 'has no "id"', "name the problem that the line answers")
    return row


def _parse(line: str, where: str) -> Row:
    row = row_of(line, where, "evaluations")
    if type(row.get("correct")) is not bool:
        raise InputError("correct", where, "missing or not true or false", "grade the file with t3d grade")
    for name in COSTS:
        if name in row and (type(row[name]) is not int or row[name] < 0):
            raise InputError(name, where, "not a count", "use the file as t3d eval wrote it")
    return row
