"""MBPP (arXiv 2108.07732): write a Python function from one sentence and some of its tests."""

import ast
import builtins
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from t3d.errors import InputError
from t3d.grading.code import FunctionTests
from t3d.problems.fields import Record, said_text, texts
from t3d.problems.problem import Problem
from t3d.problems.prompt_styles import PromptKind
from t3d.problems.sources.rows import one_test_question
from t3d.tasks.code_task import CodeProblem, CodeTask

MbppProtocol = Literal["t3d", "sanitized", "all_tests"]
"""``t3d``: the 500 problems of the test split, one test in the question, as in the released code.
``all_tests``: the same with all tests in the question. ``sanitized``: the 257 problems of the test split that
were checked by hand, with all their tests in the question, as SDAR was evaluated (OpenCompass)."""

SPLIT_ENDS = {"prompt": 10, "test": 510, "validation": 600, "train": 974}
"""The last id of each split; the first is 1."""
_FULL = ("mbpp.jsonl", "mbpp.jsonl.gz")
_SANITIZED = ("sanitized-mbpp.json", "sanitized-mbpp.jsonl", "sanitized-mbpp.jsonl.gz")


class MbppTask(CodeTask):
    """MBPP under one of three protocols; ids are ``mbpp/`` and Google's number.

    All tests must pass, whatever the question shows; challenge tests are not used. Setup code runs between
    program and tests, since that of 367 and 927 uses the solution's class. The released code leaves it
    out, so that 367 cannot be passed there. Reads Google's files or the hub's Parquet files.
    """

    splits = tuple(SPLIT_ENDS)
    kind: PromptKind = "function"
    options = ("protocol", *CodeTask.options)

    def __init__(
        self, folder: str | Path | None = None, *, protocol: MbppProtocol = "t3d", **options: Any
    ) -> None:
        if protocol not in get_args(MbppProtocol):
            raise InputError("protocol", protocol, "not known", f"use {' or '.join(get_args(MbppProtocol))}")
        super().__init__(folder, **options)
        self.protocol = protocol
        self.name = "mbpp" if protocol == "t3d" else f"mbpp-{protocol}"

    def file_patterns(self) -> Mapping[str, Sequence[str]]:
        """One file of Google's, or the hub's files of all splits."""
        names, config = (_SANITIZED, "sanitized") if self.protocol == "sanitized" else (_FULL, "full")
        if any(self.folder.glob(f"{config}/test-*.parquet")):
            return {part: (f"{config}/{part}-*.parquet",) for part in SPLIT_ENDS}
        return {"all": names}

    def read_row(self, row: Record, where: str) -> CodeProblem:
        """The problem of one row."""
        number, tests = row.get("task_id"), texts(row, "test_list", where)
        if not isinstance(number, int) or not 1 <= number <= SPLIT_ENDS["train"]:
            raise InputError("task_id", number, f"{where}: not a number from 1 to 974", "get the file again")
        if not tests:
            raise InputError("test_list", tests, f"{where}: has no tests", "get the file again")
        text = said_text(row, ("text", "prompt"), where)
        reference = said_text(row, ("code",), where)
        imports, names = taken_by_tests(reference, tests)
        # Full files hold setup code, sanitized ones a list of imports.
        setup = [*imports, str(row.get("test_setup_code") or ""), *(row.get("test_imports") or [])]
        return CodeProblem(
            problem=Problem(id=f"mbpp/{number}", question=self._question(text, tests), task=self.name),
            split=next(split for split, last in SPLIT_ENDS.items() if number <= last),
            tests=FunctionTests(tests=tuple(tests), setup="\n".join(setup).strip("\n"), program_names=names),
            reference=reference,
        )

    def _question(self, text: str, tests: Sequence[str]) -> str:
        if self.protocol == "t3d":
            return one_test_question(text, tests)
        return f"{text}\nYour code should pass these tests:\n\n" + "\n".join(tests)

    def settings(self) -> dict[str, Any]:
        """What verdicts depend on, JSON-ready."""
        return {"protocol": self.protocol, **super().settings()}


def taken_by_tests(reference: str, tests: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """What tests take from a solution beside its own names, as the data's own solution shows.

    That is its imports (596 asks for ``sys``), which the tests then make themselves, and those of its
    functions' names that are Python's (126 defines ``sum``).
    """
    try:
        solution, used = (ast.parse(text) for text in (reference, "\n".join(tests)))
    except (SyntaxError, ValueError):
        return [], ()
    names = {node.id for node in ast.walk(used) if isinstance(node, ast.Name)}
    imports = [
        ast.unparse(node)
        for node in solution.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        and names & {alias.asname or alias.name for alias in node.names}
    ]
    defined = {node.name for node in solution.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    return imports, tuple(sorted(name for name in defined & names if hasattr(builtins, name)))
