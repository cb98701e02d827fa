"""Grade saved outputs again, in chunks that survive a kill."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t3d.errors import InputError
from t3d.evaluation.intervals import wilson_interval
from t3d.evaluation.samples import without_draw
from t3d.grading.math_worker import usable_cores
from t3d.problems.problem import Problem
from t3d.problems.text_files import read_lines
from t3d.tasks.math_task import MathTask
from t3d.tasks.task import ExplainingTask, Task, verdict_of
from t3d.work.claim import claim, full_plan, take_finished
from t3d.work.files import check_output_file, discard, write_text
from t3d.work.progress import Progress
from t3d.work.versions import versions

GRADE_CHUNK_SIZE = 64
"""Default of outputs graded between two saves."""

Row = dict[str, Any]

_OTHER_RULES = ("strict-match", "flexible-extract")
_OF_VERDICTS = ("correct", "extracted", "reason", "grader", *_OTHER_RULES)
"""Fields of an earlier verdict, which do not stay."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SavedOutput:
    """One line of a file of outputs, and the problem that it answers."""

    row: Row
    problem: Problem
    output: str


def read_outputs(path: str | Path, task: Task, split: str = "test") -> list[SavedOutput]:
    """Outputs of a JSONL file: ``id``, ``output`` and, for math, optionally ``reference`` per line.

    ``response`` and ``answer``, as ``t3d eval`` writes them, do for ``output`` and ``reference``. Without a
    reference the ``id`` is that of a problem of the task, or its last part. ``#1`` behind an id numbers
    several answers to one problem. Lines that name another task are left out. Raises InputError for a file,
    line or id that is not so, or if every line names another task.
    """
    lines = read_lines(path, "samples", "a JSONL file of outputs")
    rows = [(where, _parse_row(line, where)) for where, line in lines]
    if not rows:
        raise InputError("samples", str(path), "the file holds no output", 'write one {"id": ...} per line')
    wanted = (None, _benchmark(task.name))
    own = [(where, row) for where, row in rows if _benchmark(row.get("task")) in wanted]
    if not own:
        others = ", ".join(sorted({str(row["task"]) for _, row in rows}))
        raise InputError(
            "task", task.name, f"every line of {path} is of {others}", "give the lines' own task"
        )
    problems: dict[str, Problem] | None = None
    outputs: list[SavedOutput] = []
    for where, row in own:
        identity = str(row["id"])
        reference = row.get("reference", row.get("answer"))
        if isinstance(task, MathTask) and reference is not None:
            question = str(row.get("question", ""))
            name = without_draw(identity)
            problem = Problem(id=name, question=question, task=task.name, answer=str(reference))
        else:
            if problems is None:
                problems = _problems_by_name(task.problems(split, None, 0))
            problem = _problem_of(identity, problems, where)
        task.check(problem)
        outputs.append(SavedOutput(row=row, problem=problem, output=row.get("output", row.get("response"))))
    return outputs


def _benchmark(task: object) -> str | None:
    """``mbpp`` of ``mbpp-sanitized``, whose problems have the same ids; None where no task is named."""
    return None if task is None else str(task).partition("-")[0]


def _parse_row(line: str, where: str) -> Row:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError("samples", where, f"not JSON ({error})", "write one JSON object per line") from error
    if not isinstance(row, dict) or not isinstance(row.get("id"), (str, int)):
        raise InputError("samples", where, 'has no "id"', "name the problem that the line answers")
    if not isinstance(row.get("output", row.get("response")), str):
        raise InputError("samples", where, 'has no text as "output"', "give each line the text to grade")
    return row


def _problems_by_name(problems: Sequence[Problem]) -> dict[str, Problem]:
    """By id, and by its last part where that is no id."""
    return {
        **{problem.id.rpartition("/")[2]: problem for problem in problems},
        **{problem.id: problem for problem in problems},
    }


def _problem_of(identity: str, problems: dict[str, Problem], where: str) -> Problem:
    for name in (identity, without_draw(identity)):
        if name in problems:
            return problems[name]
    some = ", ".join([problem.id for problem in problems.values()][:2])
    raise InputError("id", identity, f"{where}: no problem has it", f"use the data's ids, such as {some}")


def grade_to_file(
    task: Task,
    samples: str | Path,
    output: str | Path,
    *,
    split: str = "test",
    num_workers: int | None = None,
    chunk_size: int = GRADE_CHUNK_SIZE,
) -> dict[str, Any]:
    """Grade every line of ``samples`` into ``output`` and return the summary, ``OUTPUT.summary.json``.

    A line gains ``correct``, ``extracted``, ``reason`` and whatever else the verdict says. Chunks lie in
    ``OUTPUT.chunks`` until all are there; the same call continues after a kill, and reads what it finished
    before. Raises InputError as :func:`read_outputs` does, or if another run is using that folder, left other
    chunks in it or made ``output``.
    """
    check_output_file(output, samples)
    samples, output = Path(samples), Path(output)
    outputs = read_outputs(samples, task, split)
    settings = {
        "task": task.name,
        "samples": {"count": len(outputs), "sha256": hashlib.sha256(samples.read_bytes()).hexdigest()},
        **(task.settings() if isinstance(task, ExplainingTask) else {}),
    }
    threads = min(4, usable_cores()) if num_workers is None else num_workers
    graded: list[Row] = []
    plan = {**settings, "chunk_size": chunk_size}
    summary_file = output.with_name(output.name + ".summary.json")
    if output.is_file():
        finished = _read_summary(summary_file)
        take_finished(output, finished.get("plan"), plan)
        return finished
    with claim(output.with_name(output.name + ".chunks"), plan, "chunk-*.jsonl") as chunks:
        with Progress("grade", len(outputs)) as progress, ThreadPoolExecutor(threads) as pool:

            def graded_row(saved: SavedOutput) -> Row:
                kept = {name: value for name, value in saved.row.items() if name not in _OF_VERDICTS}
                row = {**kept, **_verdict_row(task, saved)}
                progress.advance()
                return row

            for first in range(0, len(outputs), chunk_size):
                file = chunks / f"chunk-{first // chunk_size:05d}.jsonl"
                part = outputs[first : first + chunk_size]
                if file.is_file():
                    rows = _read_chunk(file)
                    progress.advance(len(part))
                else:
                    rows = list(pool.map(graded_row, part))
                    write_text(file, _lines(rows))
                graded += rows
        summary = {**summarise(outputs, graded), **_by_setting(outputs, graded), **settings}
        summary |= {"versions": versions(), "plan": full_plan(plan)}
        write_text(summary_file, json.dumps(summary, indent=2) + "\n")
        write_text(output, _lines(graded))  # after the summary, by which a finished output is known
        discard(chunks)
    return summary


def _read_summary(path: Path) -> dict[str, Any]:
    try:
        match json.loads(path.read_text(encoding="utf-8")):
            case {"plan": dict()} as found:
                return found
    except (OSError, ValueError):
        pass
    return {}


def _verdict_row(task: Task, saved: SavedOutput) -> Row:
    verdict = verdict_of(task, saved.problem, saved.output)
    row = {"correct": verdict.correct, "extracted": verdict.extracted, "reason": verdict.reason}
    return {**row, **verdict.others, **({"grader": verdict.grader} if verdict.grader else {})}


def summarise(outputs: Sequence[SavedOutput], graded: Sequence[Row]) -> dict[str, Any]:
    """Accuracy with its 95 % interval, verdicts by other rules, and how often each reason was given.

    In percent. The interval counts problems: several answers to one are not independent.
    """
    problems = [saved.problem for saved in outputs]
    num_prompts = len({(problem.id, problem.question, problem.answer) for problem in problems})
    count = len(graded)
    accuracy = sum(row["correct"] for row in graded) / count
    low, high = wilson_interval(accuracy * num_prompts, num_prompts)
    others = [name for name in _OTHER_RULES if name in graded[0]]
    return {
        "accuracy": 100 * accuracy,
        "ci95": [100 * low, 100 * high],
        "n": count,
        "num_prompts": num_prompts,
        **{name: 100 * sum(row[name] for row in graded) / count for name in others},
        "reasons": dict(Counter(row["reason"] for row in graded).most_common()),
    }


def _by_setting(outputs: Sequence[SavedOutput], graded: Sequence[Row]) -> dict[str, Any]:
    """The same for each decoding setting, where the lines name several."""
    parts: dict[Any, list[tuple[SavedOutput, Row]]] = {}
    for saved, row in zip(outputs, graded, strict=True):
        parts.setdefault(row.get("setting"), []).append((saved, row))
    if len(parts) == 1:
        return {}
    return {"settings": {str(label): summarise(*zip(*part, strict=True)) for label, part in parts.items()}}


def _lines(rows: Sequence[Row]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)  # ASCII: an output may hold lone surrogates


def _read_chunk(path: Path) -> list[Row]:
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    except ValueError as error:
        fix = "delete it; the same command then grades it again"
        raise InputError("output", str(path), f"damaged ({error})", fix) from error
