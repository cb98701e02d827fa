"""What finished evaluations have left, read so that damage is named: results, summaries, cells.

A field that is there is always checked. Files of earlier versions have no checksum and fewer fields.
"""

import hashlib
import json
import math
from collections.abc import Collection, Mapping
from itertools import product
from pathlib import Path
from typing import Any

from t3d.errors import InputError
from t3d.work.files import check_output_file
from t3d.work.kept import PLAN_FILE
from t3d.work.own import json_with
from t3d.work.plan import file_sha256, is_whole

RESULTS, SAMPLES, SUMMARY_ENDING = "results.json", "samples.jsonl", ".summary.json"
"""Names of what ``t3d eval`` writes, and the ending beside a file of ``t3d grade``."""
CELLS = "*.*.json"
"""Pattern of the files of cells: ``LABEL.HASH.json``."""
UNFINISHED = "unfinished"
"""Folder of responses in the output, until all are there."""
ERRORS = "errors.jsonl"
"""Lists the responses that are missing since decoding failed."""
OWN_NAMES = (RESULTS, SAMPLES, UNFINISHED, ERRORS, "config.yaml", "report.html")
"""What ``t3d eval`` writes in its output."""
_LINES = "lines_sha256"
"""Field of results and summaries: the SHA-256 of the file of lines that they sum up."""
_TEXTS = ("setting", "task", "verdicts", "config_hash", "command", "teacher", "method", "split")
_COUNTS = ("n", "num_correct", "num_prompts", "num_threads", "seed", "num_drafted", "num_accepted")
_COUNTS += ("num_errors",)
_NUMBERS = ("distinct_answers_per_prompt", "tokens_per_step", "tokens_per_forward", "tokens_per_second")
_NUMBERS += ("latency", "seconds", "training_seconds", "mean_denoising_steps", "mean_length", "stopped")
_NUMBERS += ("accuracy", "acceptance")
_OBJECTS = ("config", "model", "versions", "finish_reasons", "reasons")
_OF_EVERY_ROW = ("setting", "task", "n", "num_correct")
_OF_A_CELLS_ROW = (*_OF_EVERY_ROW, "num_prompts", "distinct_answers_per_prompt", "tokens_per_forward")
_OF_A_CELLS_ROW += ("tokens_per_second", "latency", "mean_denoising_steps", "mean_length")
_OF_A_CELL = ("config_hash", "command", "config", "results")
_OF_A_SUMMARY = ("task", "accuracy", "ci95", "n", "num_correct", "reasons")


def check_evaluation(folder: Path, *inputs: str | Path | None) -> None:
    """Find out before the work whether an evaluation may be written into a folder, or read there.

    Raises InputError for an input, and for results and samples that no evaluation wrote.
    """
    results, plan = folder / RESULTS, folder / UNFINISHED / PLAN_FILE
    is_begun = results.is_file() or plan.is_file()
    check_output_file(results, *inputs, is_own=json_with("plan", "results"))
    check_output_file(folder / SAMPLES, *inputs, is_own=lambda _: is_begun)


def hash_of_lines(text: str) -> dict[str, str]:
    """The field by which :func:`check_lines` knows the file of this text."""
    return {_LINES: hashlib.sha256(text.encode()).hexdigest()}


def check_lines(record: Mapping[str, Any], lines: Path, file: Path, field: str = "output") -> None:
    """Raise InputError unless ``lines`` is the file that the results or summary in ``file`` sum up."""
    expected = record.get(_LINES)
    if expected is not None and not (lines.is_file() and file_sha256(lines) == expected):
        problem = f"not the file that {file.name} sums up, which has its SHA-256"
        fix = f"delete it and {file.name}; the same command then makes them again"
        raise InputError(field, str(lines), problem, fix)


def check_results(record: Mapping[str, Any], file: Path, field: str = "output") -> None:
    """Raise InputError for a ``results.json`` that is not as it was written, or has no usable entries."""
    fault = None if is_whole(record) else "its checksum does not fit"
    _refuse(fault or _fault_of_rows(record.get("results"), _OF_EVERY_ROW), file, field, "evaluates again")


def check_summary(record: Mapping[str, Any], file: Path, field: str = "output") -> None:
    """Raise InputError for a summary of ``t3d grade`` that is not as it was written, or lacks numbers."""
    fault = None if is_whole(record) else "its checksum does not fit"
    fault = fault or _fault_of_fields(record, _OF_A_SUMMARY)
    if fault is None:
        match record["ci95"]:
            case [int() | float() as low, int() | float() as high] if math.isfinite(low + high):
                pass
            case other:
                fault = f"ci95 is {other!r}, no interval"
    _refuse(fault, file, field, "grades again")


def read_cell(path: Path) -> dict[str, Any]:
    """The record of a cell of ``t3d reproduce``. Raises InputError, naming the field, for any other file."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        record, fault = {}, str(error)
    else:
        fault = fault_of_cell(record)
    _refuse(fault, path, "cells", "makes this cell again")
    return record


def fault_of_cell(record: Any) -> str | None:
    """What is wrong with the record of a cell: a field, or a task and setting that is missing or is twice."""
    if not isinstance(record, dict):
        return "no object"
    fault = _fault_of_fields(record, _OF_A_CELL) or _fault_of_rows(record["results"], _OF_A_CELLS_ROW)
    if fault is not None:
        return fault
    match record["config"].get("evaluation"):
        case {"tasks": list() as tasks, "settings": dict() as settings}:
            found = {(row["task"], row["setting"]) for row in record["results"]}
            odd = sorted(found ^ set(product(tasks, settings)))
            return f"results and config differ in {' '.join(odd[0])}" if odd else None
    return None


def _refuse(fault: str | None, file: Path, field: str, again: str) -> None:
    if fault is not None:
        fix = f"delete it; the same command then {again}"
        raise InputError(field, str(file), f"damaged ({fault})", fix)


def _fault_of_rows(rows: Any, required: Collection[str]) -> str | None:
    if not isinstance(rows, list) or not rows:
        return "results is no list of entries, or an empty one"
    seen = set()
    for number, row in enumerate(rows):
        fault = _fault_of_row(row, required)
        if fault is None and (row["task"], row["setting"]) in seen:
            fault = f"{row['task']} {row['setting']} is there twice"
        if fault is not None:
            return f"results[{number}]: {fault}"
        seen.add((row["task"], row["setting"]))
    return None


def _fault_of_row(row: Any, required: Collection[str]) -> str | None:
    if not isinstance(row, dict):
        return "no object"
    fault = _fault_of_fields(row, required)
    if fault is not None:
        return fault
    verdicts = row.get("verdicts")
    if verdicts is not None and (len(verdicts) != row["n"] or set(verdicts) - set("01")):
        return "verdicts is not a 0 or 1 for every response"
    if verdicts is not None and verdicts.count("1") != row["num_correct"]:
        return f"num_correct is {row['num_correct']}, but verdicts has {verdicts.count('1')} of 1"
    if row["num_correct"] + row.get("num_errors", 0) > row["n"]:
        return f"num_errors is {row['num_errors']}, more than n less num_correct"
    if row["n"] % row.get("num_prompts", 1):
        return f"n is {row['n']}, no multiple of num_prompts"
    return None


def _fault_of_fields(record: Mapping[str, Any], required: Collection[str]) -> str | None:
    """The first field that is missing, or whose value is of another kind or not possible."""
    for name in required:
        if name not in record:
            return f"no {name}"
    for names, holds, kind in (
        (_TEXTS, lambda value: isinstance(value, str), "text"),
        (_COUNTS, lambda value: type(value) is int and value >= 0, "count"),
        (_NUMBERS, _is_number, "number of 0 or more"),
        (_OBJECTS, lambda value: isinstance(value, dict), "object"),
    ):
        for name in names:
            if name in record and not holds(record[name]):
                return f"{name} is {_shown(record[name])}, no {kind}"
    for name in ("n", "num_prompts", "num_threads"):
        if record.get(name) == 0:
            return f"{name} is 0"
    if "num_correct" in record and record["num_correct"] > record.get("n", math.inf):
        return f"num_correct is {record['num_correct']}, more than n"
    return None


def _is_number(value: object) -> bool:
    is_real = isinstance(value, int | float) and not isinstance(value, bool)
    return is_real and math.isfinite(value) and value >= 0


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
