"""Prompt files: JSON Lines or Parquet of problems."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from t3d.errors import InputError
from t3d.problems.fields import Record, is_text
from t3d.problems.files import read_data_file, read_objects
from t3d.problems.problem import ROLES, Problem

PROMPT_FIELDS = ("id", "question", "task", "answer", "solution")
"""Keys of a prompt file's lines, all but the question optional."""
_OF_TRAJECTORIES = {"prompt_ids", "response_ids", "step_map"}
"""Keys by which rows of a rollout are known."""
MESSAGES = "messages"
"""A key that may stand in place of ``question`` and ``solution``: a conversation that ends with a message of
the user, or with what answers it."""
_SAY = 'give messages such as {"role": "user", "content": "..."}'


def read_prompt_file(path: str | Path) -> list[Problem]:
    """Problems of a JSONL or Parquet file: one object per line or row with ``question``, and optional ``id``,
    ``answer``, ``task`` and ``solution``. ``messages``, as chat data sets have them, may stand in place of
    ``question`` and ``solution``: the last message of the user is the question, the assistant's answer to it,
    if there is one, the solution, and what is before it, a system message too, the question's turns.

    Raises InputError for a missing or empty file, a rollout, a line that is not such an object, an unknown
    key, text that is not Unicode, messages that are no such conversation, or an id used twice.
    """
    problems: dict[str, Problem] = {}
    for where, row in _rows(Path(path)):
        if row.keys() >= _OF_TRAJECTORIES:
            problem = "a rollout: its rows are trajectories, which hold no questions"
            fix = f"give the prompts that it was made of ({path}.yaml names them), or learn from it: "
            raise InputError("prompts", str(path), problem, f"{fix}t3d train --trajectories {path}")
        problem = _problem_of(Path(path), where, row)
        if problem.id in problems:
            raise InputError("id", problem.id, f"used twice in {path}", "give every line its own id")
        problems[problem.id] = problem
    if not problems:
        raise InputError(
            "prompts", str(path), "the file holds no prompt", 'write one {"question": ...} per line'
        )
    return list(problems.values())


def _rows(path: Path) -> Iterator[tuple[str, Record]]:
    if path.suffix != ".parquet":
        yield from read_objects(path, "prompts", 'a JSONL file with a "question" per line')
        return
    for number, row in enumerate(read_data_file(path, "prompts").rows, start=1):
        yield f"row {number} of {path}", {name: value for name, value in row.items() if value is not None}


def _problem_of(path: Path, where: str, row: Record) -> Problem:
    turns: tuple[tuple[str, str], ...] = ()
    if MESSAGES in row:
        row, turns = _of_messages(where, row)
    if not isinstance(row.get("question"), str) or not row["question"].strip():
        raise InputError("question", where, "missing or empty", 'give each line a non-empty "question"')
    unknown = sorted(set(row) - set(PROMPT_FIELDS))
    if unknown:
        fix = f"use {', '.join(PROMPT_FIELDS)}, or {MESSAGES}"
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
    for name, text in [*texts.items(), *((MESSAGES, text) for _, text in turns)]:
        if not is_text(text or ""):
            raise InputError(name, where, "half of a surrogate pair, no text", "write the character whole")
    question = row["question"]
    return Problem(id=identity, question=question, answer=answer, task=task, solution=solution, turns=turns)


def _of_messages(where: str, row: Record) -> tuple[Record, tuple[tuple[str, str], ...]]:
    """The same with ``question`` and ``solution`` in place of ``messages``, and the turns before them."""
    rest = {name: value for name, value in row.items() if name != MESSAGES}
    for name in ("question", "solution"):
        if name in rest:
            raise InputError(MESSAGES, where, f"{name} says the same", f"leave out {name}")
    if not isinstance(row[MESSAGES], list | None):
        raise InputError(MESSAGES, where, "not a list of messages", _SAY)
    said = [_role_and_text(where, message) for message in row[MESSAGES] or ()]
    roles = [role for role, _ in said]
    if "system" in roles[1:]:
        raise InputError(MESSAGES, where, "a system message behind others", "give it as the first")
    if roles[-1:] == ["assistant"]:
        rest["solution"] = said.pop()[1]
    if not said or said[-1][0] != "user":
        problem = (
            f"a conversation of {', '.join(roles) or 'nobody'}, without a question of the user at its end"
        )
        fix = "end it with a message of the user, or with the answer to one"
        raise InputError(MESSAGES, where, problem, fix)
    *turns, (_, rest["question"]) = said
    return rest, tuple(turns)


def _role_and_text(where: str, message: Any) -> tuple[str, str]:
    role, text = (message.get(name) if isinstance(message, dict) else None for name in ("role", "content"))
    if not (isinstance(role, str) and isinstance(text, str)):
        raise InputError(MESSAGES, where, "a message without a role and a text", _SAY)
    if role not in ROLES:
        raise InputError(MESSAGES, where, f"a message of role {role!r}", f"use {', '.join(ROLES)}")
    if not text.strip():
        problem = f"an empty message of role {role!r}"
        raise InputError(MESSAGES, where, problem, "write what is said, or leave the message out")
    return role, text
