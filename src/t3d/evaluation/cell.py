"""One cell of an evaluation, a task under one setting: decoded, graded, and every response kept at once."""

import json
import os
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from t3d.decoding.completion import Completion, DecodeRequest
from t3d.decoding.llm import LLM
from t3d.decoding.params import DecodeParams
from t3d.errors import InputError
from t3d.evaluation.cost import CostCounts
from t3d.evaluation.evaluate import (
    Asked,
    EvalResult,
    combine,
    grade_responses,
    graded,
    response_fields,
)
from t3d.grading.verdict import Verdict
from t3d.tasks.task import Task
from t3d.work.files import write_errors
from t3d.work.progress import Progress

Row = dict[str, Any]


class CellFile:
    """A cell's responses and verdicts in a JSONL file, one line each as soon as it is there.

    ``rows`` holds by id what was said last of a response. A process that is killed leaves at most a torn last
    line, which is dropped. Raises InputError for any other damage.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, Row] = {}
        if not path.is_file():
            return
        content = path.read_bytes()
        end = content.rfind(b"\n") + 1
        if end < len(content):
            with write_errors(path):
                os.truncate(path, end)
        for number, line in enumerate(content[:end].split(b"\n")[:-1], start=1):
            try:
                self._take(dict(json.loads(line)))
            except (ValueError, TypeError, KeyError) as error:
                fix = "delete the file; the same command then decodes the cell again"
                raise InputError("output", str(path), f"line {number} is damaged ({error})", fix) from error

    def append(self, row: Row) -> None:
        """Write a line: a response, or something about an earlier one with its id."""
        with write_errors(self.path), self.path.open("ab") as file:
            file.write(json.dumps(row).encode() + b"\n")  # ASCII: a text may hold lone surrogates
        self._take(row)

    def _take(self, row: Row) -> None:
        # A response that was decoded again has no verdict yet
        before = {} if "response" in row else self.rows[row["id"]]
        self.rows[row["id"]] = before | row


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """A finished cell."""

    result: EvalResult
    batch1_seconds: tuple[float, ...]
    """Seconds of each response that was decoded alone."""

    def batch1_latency(self) -> dict[str, Any]:
        """Mean and median seconds of a response that is decoded alone."""
        seconds = self.batch1_seconds
        return {"n": len(seconds), "mean": statistics.fmean(seconds), "median": statistics.median(seconds)}


def evaluate_cell(
    llm: LLM,
    task: Task,
    requests: Sequence[Asked],
    params: DecodeParams,
    path: Path,
    *,
    chunk_size: int,
    num_alone: int,
    progress: Progress,
) -> CellResult:
    """Decode what ``path`` does not have yet, grade what is not graded, and sum up.

    ``num_alone`` problems are decoded once more, one by one, for their seconds. ``progress`` advances with
    every response.
    """
    file = CellFile(path)
    for first in range(0, len(requests), chunk_size):
        part = requests[first : first + chunk_size]
        missing = [asked for asked in part if asked[1].id not in file.rows]
        # Below float32, rounding that depends on what is decoded beside a response moves visible numbers:
        # a cut chunk is decoded again as a whole, so that the cut leaves no trace.
        if missing and llm.loaded.model.dtype not in (torch.float32, torch.float64):
            missing = part
        progress.advance(len(part) - len(missing))
        _decode(llm, missing, params, file, progress)
    ungraded = [asked for asked in requests if "correct" not in file.rows[asked[1].id]]
    responses = [(problem, file.rows[request.id]["response"]) for problem, request in ungraded]
    for (_, request), verdict in zip(ungraded, grade_responses(task, responses), strict=True):
        file.append({"id": request.id, **_verdict_row(verdict)})
    _decode_alone(llm, requests, params, file, num_alone, progress)
    rows = [file.rows[request.id] for _, request in requests]
    samples = [
        graded(task, problem, row, _verdict_of(row)) for (problem, _), row in zip(requests, rows, strict=True)
    ]
    return CellResult(
        result=combine(task, params, requests, samples, _counts(rows)),
        batch1_seconds=tuple(row["batch1_seconds"] for row in rows if "batch1_seconds" in row),
    )


def _decode(
    llm: LLM, asked: Sequence[Asked], params: DecodeParams, file: CellFile, progress: Progress
) -> None:
    """Decode and keep each response with the seconds since the one before, so that they add up."""
    last = time.perf_counter()

    def keep(completion: Completion) -> None:
        nonlocal last
        now = time.perf_counter()
        measures = {"num_committed": len(completion.response_ids), "seconds": now - last}
        file.append(response_fields(completion) | measures)
        last = now
        progress.advance()

    llm.decode([request for _, request in asked], params, on_finish=keep)


def _decode_alone(
    llm: LLM, requests: Sequence[Asked], params: DecodeParams, file: CellFile, count: int, progress: Progress
) -> None:
    """Decode the first answer to each of the first problems once more, by itself, and keep its seconds."""
    firsts: dict[str, DecodeRequest] = {}
    for problem, request in requests:
        firsts.setdefault(problem.id, request)
    for request in list(firsts.values())[:count]:
        if "batch1_seconds" not in file.rows[request.id]:
            started = time.perf_counter()
            llm.decode([request], params)
            file.append({"id": request.id, "batch1_seconds": time.perf_counter() - started})
        progress.advance()


def _verdict_row(verdict: Verdict) -> Row:
    return {
        "correct": verdict.correct,
        "extracted": verdict.extracted,
        "reason": verdict.reason,
        "others": dict(verdict.others),
    }


def _verdict_of(row: Row) -> Verdict:
    return Verdict(**{name: row[name] for name in ("correct", "extracted", "reason", "others")})


def _counts(rows: Iterable[Row]) -> CostCounts:
    counts = [
        CostCounts(
            num_completions=1,
            committed_tokens=row["num_committed"],
            visible_tokens=row["num_tokens"],
            denoising_steps=row["num_denoising_steps"],
            forwards=row["num_forwards"],
            stopped=row["finish_reason"] == "stop",
            seconds=row["seconds"],
        )
        for row in rows
    ]
    return sum(counts[1:], start=counts[0])
