"""Prompt files: JSON Lines of problems."""

from pathlib import Path

from t3d.errors import InputError
from t3d.problems.fields import Record, is_text
from t3d.problems.files import read_objects
from t3d.problems.problem import Problem

PROMPT_FIELDS = ("id", "question", "task", "answer", "solution")
"""Keys of a prompt file's lines, all but the question optional."""


def read_prompt_file(path: str | Path) -> list[Problem]:
    """Problems of a JSONL file: one object per line with ``question``, and optional ``id``, ``answer``,
    ``task`` and ``solution``.

    Raises InputError for a missing or empty file, a line that is not such an object, an unknown
    key, text that is not Unicode, or an id used twice.
    """
    problems: dict[str, Problem] = {}
    for where, row in read_objects(path, "prompts", 'a JSONL file with a "question" per line'):
        problem = _problem_of(Path(path), where, row)
        if problem.id in problems:
            raise InputError("id", problem.id, f"used twice in {path}", "give every line its own id")
        problems[problem.id] = problem
    if not problems:
        raise InputError(
            "prompts", str(path), "the file holds no prompt", 'write one {"question": ...} per line'
        )
    return list(problems.values())


def _problem_of(path: Path, where: str, row: Record) -> Problem:
    if not isinstance(row.get("question"), str) or not row["question"].strip():
        raise InputError("question", where, "missing or empty", 'give each line a non-empty "question"')
    unknown = sorted(set(row) - set(PROMPT_FIELDS))
    if unknown:
        fix = f"use {', '.join(PROMPT_FIELDS)}"
        raise InputError("prompts", where, f"unknown key {unknown[0]!r}", fix)
    answer, solution = (None if row.get(name) is None else str(row[name]) for name in ("answer", "solution"))
    for name in ("id", "task"):
        if name in row and type(row[name]) not in (str, int):
            raise InputError(
                name, where, "neither text nor a whole number", f"give it a {name}, or leave it out"
            )
    identity = str(row.get("id", f"{path.stem}/{where.split()[1]}"))
    task = str(row.get("task", path.stem))
    texts = {
        "id": identity,
        "task": task,
        "question": row["question"],
        "answer": answer,
        "solution": solution,
    }
    for name, text in texts.items():
        if not is_text(text or ""):
            raise InputError(name, where, "half of a surrogate pair, no text", "write the character whole")
    return Problem(id=identity, question=row["question"], answer=answer, task=task, solution=solution)
