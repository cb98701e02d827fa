"""A problem and the one function that renders its prompt for rollout, training and evaluation."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from t3d.errors import InputError
from t3d.problems.problem import Problem
from t3d.problems.prompt_styles import PromptKind, PromptStyle, released_prompt, user_turn
from t3d.problems.text_files import read_lines

PROMPT_FIELDS = ("id", "question", "task", "answer", "solution")
"""Keys of a prompt file's lines, all but the question optional."""


def problem_ids(
    tokenizer: PreTrainedTokenizerBase,
    problem: Problem,
    *,
    style: PromptStyle = "plain",
    kind: PromptKind = "math",
) -> list[int]:
    """Token ids of a problem's prompt; rollout, training and evaluation all take them from here.

    Raises InputError where a style has no prompt of that kind.
    """
    if style == "released":
        return token_ids(tokenizer, released_prompt(problem.question, kind, problem.prefix))
    return prompt_ids(tokenizer, user_turn(problem.question, style, kind))


def prompt_ids(tokenizer: PreTrainedTokenizerBase, question: str) -> list[int]:
    """Token ids of a user turn followed by the opening of the assistant's turn.

    Uses the tokenizer's chat template and adds nothing to the question.
    """
    return chat_ids(tokenizer, [{"role": "user", "content": question}])


def chat_ids(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]]) -> list[int]:
    """Token ids of a chat, followed by the opening of the assistant's turn (the tokenizer's template)."""
    chat: Any = [dict(message) for message in messages]
    return token_ids(
        tokenizer, str(tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False))
    )


def token_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a text; special tokens written in it are recognised, none is added."""
    return tokenizer.encode(text, add_special_tokens=False)


def token_text(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], *, skip_special_tokens: bool = True
) -> str:
    """Text of token ids."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens))


def read_prompt_file(path: str | Path) -> list[Problem]:
    """Problems of a JSONL file: one object per line with ``question``, and optional ``id``, ``answer``,
    ``task`` and ``solution``.

    Raises InputError for a missing or empty file, a line that is not such an object, an unknown
    key, text that is not Unicode, or an id used twice.
    """
    problems: dict[str, Problem] = {}
    for where, line in read_lines(path, "prompts", 'a JSONL file with a "question" per line'):
        problem = _parse_problem(Path(path), where, line)
        if problem.id in problems:
            raise InputError("id", problem.id, f"used twice in {path}", "give every line its own id")
        problems[problem.id] = problem
    if not problems:
        raise InputError(
            "prompts", str(path), "the file holds no prompt", 'write one {"question": ...} per line'
        )
    return list(problems.values())


def _parse_problem(path: Path, where: str, line: str) -> Problem:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError("prompts", where, f"not JSON ({error})", "write one JSON object per line") from error
    if not isinstance(row, dict) or not isinstance(row.get("question"), str) or not row["question"].strip():
        raise InputError("question", where, "missing or empty", 'give each line a non-empty "question"')
    unknown = sorted(set(row) - set(PROMPT_FIELDS))
    if unknown:
        fix = f"use {', '.join(PROMPT_FIELDS)}"
        raise InputError("prompts", where, f"unknown key {unknown[0]!r}", fix)
    answer, solution = (None if row.get(name) is None else str(row[name]) for name in ("answer", "solution"))
    for name, text in (("question", row["question"]), ("solution", solution or "")):
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise InputError(name, where, "half of a surrogate pair, no text", "write the character whole")
    identity = str(row.get("id", f"{path.stem}/{where.split()[1]}"))
    task = str(row.get("task", path.stem))
    return Problem(id=identity, question=row["question"], answer=answer, task=task, solution=solution)
