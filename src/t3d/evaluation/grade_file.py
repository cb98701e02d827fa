"""Grade saved outputs again; every verdict is kept as soon as it is there."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t3d.errors import InputError
from t3d.evaluation.finished import SUMMARY_ENDING, check_lines, check_summary, hash_of_lines
from t3d.evaluation.measure import grade_lines, summarise
from t3d.evaluation.samples import jsonl, row_of, without_draw
from t3d.grading.verdict import VERDICT_FIELDS
from t3d.problems.files import read_lines
from t3d.problems.problem import Problem
from t3d.tasks.math_task import MathTask
from t3d.tasks.task import ExplainingTask, Task
from t3d.work.files import check_output_file, read_json, write_text
from t3d.work.kept import KeptLines, Row, once
from t3d.work.own import json_with
from t3d.work.plan import file_sha256, full_plan, of_unknown_origin, sealed, take_finished
from t3d.work.progress import Progress
from t3d.work.versions import versions


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
    row = row_of(line, where, "samples")
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
) -> dict[str, Any]:
    """Grade every line of ``samples`` into ``output`` and return the summary, ``OUTPUT.summary.json``.

    A line gains ``correct``, ``extracted``, ``reason`` and whatever else the verdict says. Verdicts lie in
    ``OUTPUT.unfinished`` until all are there; the same call continues after a kill, and reads what it
    finished before. Raises InputError as :func:`read_outputs` does, or if another run is using that folder,
    left the verdicts of other settings in it or made ``output``.
    """
    samples, output = Path(samples), Path(output)
    summary_file = output.with_name(output.name + SUMMARY_ENDING)
    check_output_file(output, samples)
    check_output_file(summary_file, samples, is_own=json_with("task", "accuracy", "reasons"))
    outputs = read_outputs(samples, task, split)
    settings = {
        "task": task.name,
        "samples": {"count": len(outputs), "sha256": file_sha256(samples)},
        **(task.settings() if isinstance(task, ExplainingTask) else {}),
    }

    def take() -> dict[str, Any] | None:
        if not output.is_file():
            return None
        match read_json(summary_file):
            case {"plan": dict() as before} as finished:
                check_summary(finished, summary_file)
                check_lines(finished, output, summary_file)
                take_finished(output, before, settings)
                return finished
        raise of_unknown_origin(output)

    def work(folder: Path) -> dict[str, Any]:
        lines = KeptLines(folder / "verdicts.jsonl", fresh="response")
        names = [str(index) for index in range(len(outputs))]  # ids of lines may be equal
        with Progress("grade", len(outputs)) as progress:
            for name, saved in zip(names, outputs, strict=True):
                if name not in lines.rows:
                    lines.append({"id": name, "response": saved.output})
                elif "correct" in lines.rows[name]:
                    progress.skip(1)
            responses = [(saved.problem, name) for name, saved in zip(names, outputs, strict=True)]
            grade_lines(task, responses, lines, num_threads=num_workers, on_verdict=progress.advance)
        graded = [_graded_row(saved, lines.rows[name]) for name, saved in zip(names, outputs, strict=True)]
        summary = {**_summary(outputs, graded), **_by_setting(outputs, graded), **settings}
        text = jsonl(graded)
        summary |= {"versions": versions(), "plan": full_plan(settings), **hash_of_lines(text)}
        summary = sealed(summary)
        write_text(summary_file, json.dumps(summary, indent=2) + "\n")
        write_text(output, text)  # after the summary, by which a finished output is known
        return summary

    unfinished = output.with_name(output.name + ".unfinished")
    return once(unfinished, settings, "*.jsonl", take=take, work=work)


def _graded_row(saved: SavedOutput, line: Row) -> Row:
    kept = {name: value for name, value in saved.row.items() if name not in VERDICT_FIELDS}
    return kept | {name: line[name] for name in VERDICT_FIELDS if name in line}


def _summary(outputs: Sequence[SavedOutput], graded: Sequence[Row]) -> dict[str, Any]:
    problems = [saved.problem for saved in outputs]
    return summarise(graded, len({(problem.id, problem.question, problem.answer) for problem in problems}))


def _by_setting(outputs: Sequence[SavedOutput], graded: Sequence[Row]) -> dict[str, Any]:
    """The same for each decoding setting, where the lines name several."""
    parts: dict[Any, list[tuple[SavedOutput, Row]]] = {}
    for saved, row in zip(outputs, graded, strict=True):
        parts.setdefault(row.get("setting"), []).append((saved, row))
    if len(parts) == 1:
        return {}
    return {"settings": {str(label): _summary(*zip(*part, strict=True)) for label, part in parts.items()}}
