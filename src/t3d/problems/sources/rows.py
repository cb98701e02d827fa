"""One row of a published data set as a :class:`Problem`, or the reason why it gives none.

Tasks are kinds of prompts. The answer of a code problem is JSON: ``inputs``, ``outputs`` and ``time_limit_s``
(task ``stdio``), or the fields of :class:`t3d.grading.code.FunctionTests` (task ``function``).
A row that is not of the layout at all raises InputError with its file, number and field.
"""

import json
import re
from collections.abc import Sequence
from enum import StrEnum

from t3d.grading.boxed import last_opened_box
from t3d.grading.math import gsm8k_gold
from t3d.problems.fields import Record, first_key, required, said_text, text_field, texts, wrong_kind
from t3d.problems.problem import Problem

MBPP_TRAIN = range(601, 975)
"""Ids of MBPP's train split; ids 511 to 600 validate, 11 to 510 test."""

_CALCULATOR = re.compile(r"<<[^<>]*>>")
_BOXED_REQUEST = re.compile(r"Return your final response within \\boxed\{\}\.\s*")
_CODE_REQUEST = "Generate an executable Python function"
_SOLUTION = re.compile(r"<\|begin_of_solution\|>(.*?)<\|end_of_solution\|>", re.DOTALL)
_SOLUTION_MARK = "<|begin_of_solution|>"


class DroppedProblem(StrEnum):
    """Why a row gives no problem; the value is what the command prints."""

    NO_ANSWER = "no answer"
    NO_SOLUTION = "no solution"
    NO_TESTS = "no usable tests"
    OTHER_SPLIT = "of another split"
    TEST_QUESTION = "question of a benchmark"
    DUPLICATE = "duplicate question"
    TOO_LONG = "solution too long"


Reading = Problem | DroppedProblem


def gsm8k_row(row: Record, identity: str, where: str) -> Reading:
    """``question`` and ``answer`` (steps, then ``####`` and the number), or dLLM-RL's layout.

    The solution says the number in a box, which the prompts ask for, and has no calculator marks.
    """
    question = said_text(row, ("question",), where)
    answer = _text_or_none(row, ("ground_truth_answer", "answer"), where)
    if answer is None:
        return DroppedProblem.NO_ANSWER
    steps, gold = answer.rpartition("####")[0], gsm8k_gold(answer)
    solution = None
    if steps.strip():
        solution = f"{_CALCULATOR.sub('', steps).strip()}\nThe answer is \\boxed{{{gold}}}."
    return Problem(id=identity, question=question, task="math", answer=gold, solution=solution)


def math_row(row: Record, identity: str, where: str) -> Reading:
    """``problem`` and ``solution`` with the answer in its last box (MATH), with ``answer`` (PRM800K's split),
    or ``question`` and ``ground_truth_answer`` (dLLM-RL)."""
    question = said_text(row, ("problem", "question"), where)
    solution = _text_or_none(row, ("solution",), where) if "solution" in row else None
    if "ground_truth_answer" in row or "answer" in row or solution is None:
        answer = _text_or_none(row, ("ground_truth_answer", "answer"), where)
    else:
        answer = last_opened_box(solution)
    if not answer:
        return DroppedProblem.NO_ANSWER
    return Problem(id=identity, question=question, task="math", answer=answer, solution=solution)


def code_row(row: Record, identity: str, where: str) -> Reading:
    """dLLM-RL's layout of code problems: ``test_method`` with ``test_input`` and ``test_output``, or with
    ``test_list``; and ``test_time_limit`` in seconds."""
    question = said_text(row, ("question",), where)
    method = text_field(row, "test_method", where)
    limit = row.get("test_time_limit")
    if limit is not None and not (isinstance(limit, int | float) and limit > 0):
        raise wrong_kind("test_time_limit", limit, where, "a positive number")
    if method == "stdio":
        inputs, outputs = (texts(row, name, where) for name in ("test_input", "test_output"))
        if not inputs or len(inputs) != len(outputs):
            return DroppedProblem.NO_TESTS
        tests = {"inputs": inputs, "outputs": outputs, "time_limit_s": limit}
    elif method == "function":
        tests = {"tests": texts(row, "test_list", where), "time_limit_s": limit}
        if not tests["tests"]:
            return DroppedProblem.NO_TESTS
    else:
        raise wrong_kind("test_method", method, where, "stdio or function")
    return Problem(id=identity, question=question, task=method, answer=json.dumps(tests))


def one_test_question(text: str, tests: Sequence[str]) -> str:
    """The question of MBPP, with its first test."""
    return f"{text}\nYour code should pass the test:\n{tests[0]}\n"


def mbpp_row(row: Record, identity: str, where: str) -> Reading:
    """Google's layout; the question shows one test, as the benchmark's does, and code has line feeds only."""
    number = required(row, "task_id", where)
    if type(number) is not int:
        raise wrong_kind("task_id", number, where, "a number")
    if number not in MBPP_TRAIN:
        return DroppedProblem.OTHER_SPLIT
    tests = texts(row, "test_list", where)
    if not tests:
        return DroppedProblem.NO_TESTS
    answer = {"tests": tests, "setup": str(row.get("test_setup_code") or "")}
    question = one_test_question(said_text(row, ("text", "prompt"), where), tests)
    code = said_text(row, ("code",), where).replace("\r\n", "\n").strip()
    return Problem(
        id=identity,
        question=question,
        task="function",
        answer=json.dumps(answer),
        solution=f"```python\n{code}\n```",
    )


def stratos_row(row: Record, identity: str, where: str) -> Reading:
    """``conversations`` of user and assistant (Bespoke-Stratos-17k), or ``question`` and ``qwen7b_answer``
    (D2F's collections). Of an answer with a thought before it only the solution is kept."""
    if "conversations" in row:
        question, response = _first_turns(row, where)
    else:
        question, response = said_text(row, ("question",), where), row.get("qwen7b_answer")
        if response is not None and not isinstance(response, str):
            raise wrong_kind("qwen7b_answer", response, where, "a text")
    if response and _SOLUTION_MARK in response:
        closed = _SOLUTION.search(response)
        response = closed[1] if closed else None
    if not response or not response.strip():
        return DroppedProblem.NO_SOLUTION
    task = "math"
    if question.startswith(_CODE_REQUEST):
        task = "stdio" if "stdin" in question.partition(".")[2].partition(".")[0] else "function"
    question = _BOXED_REQUEST.sub("", question, count=1)
    return Problem(id=identity, question=question, task=task, solution=response.strip())


def _first_turns(row: Record, where: str) -> tuple[str, str]:
    turns = row["conversations"]
    names = {"user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}
    texts: dict[str, str] = {}
    for turn in turns if isinstance(turns, list) else []:
        if isinstance(turn, dict) and isinstance(turn.get("value"), str):
            texts.setdefault(names.get(str(turn.get("from")), ""), turn["value"])
    if not texts.get("user", "").strip() or "assistant" not in texts:
        raise wrong_kind("conversations", turns, where, "a user's turn and an assistant's, as from and value")
    return texts["user"], texts["assistant"]


def _text_or_none(row: Record, names: Sequence[str], where: str) -> str | None:
    """The first of these fields that the row has, a number as text; None where it is empty."""
    value = row[name := first_key(row, names, where)]
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise wrong_kind(name, value, where, "a text or a number")
    return str(value).strip() or None
