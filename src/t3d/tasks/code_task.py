"""What the code benchmarks share: problems from local files, programs run in the sandbox."""

import ast
import io
import platform
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from t3d.errors import InputError
from t3d.grading.code import FunctionTests, grade_program
from t3d.grading.program_text import CodeRule, find_program
from t3d.grading.verdict import Verdict
from t3d.problems.fields import Record
from t3d.problems.problem import Problem
from t3d.problems.prompt_styles import answer_prefix
from t3d.sandbox.sandbox import Limits, Sandbox
from t3d.tasks.data_task import DataTask


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeProblem:
    """A problem with all that grading needs.

    ``preamble`` runs before every program, and ``reference`` is a program that passes.
    """

    problem: Problem
    split: str
    tests: FunctionTests
    preamble: str = ""
    reference: str


class CodeTask(DataTask):
    """A benchmark of programming problems in a folder or file.

    A response is right if its program, which :mod:`t3d.grading.program_text` finds by ``code_rule``, passes
    all tests. Programs run in a sandbox; where none works, grading is refused unless ``unsafe_no_sandbox`` is
    set.
    """

    options: tuple[str, ...] = ("unsafe_no_sandbox",)

    def __init__(
        self,
        folder: str | Path | None = None,
        *,
        code_rule: CodeRule = "opencompass",
        limits: Limits | None = None,
        unsafe_no_sandbox: bool = False,
    ) -> None:
        super().__init__(folder)
        self._code_rule: CodeRule = code_rule
        self._limits = limits or Limits()
        self._unsafe_no_sandbox = unsafe_no_sandbox

    @abstractmethod
    def file_patterns(self) -> Mapping[str, Sequence[str]]:
        """Names that a file in the folder may have, the preferred first, for each part of the data."""

    @abstractmethod
    def read_row(self, row: Record, where: str) -> CodeProblem:
        """The problem of one row. Raises InputError if something is missing."""

    @cached_property
    def sandbox(self) -> Sandbox:
        """Where programs run. Raises InputError if none works here and none is not allowed."""
        return Sandbox(limits=self._limits, unsafe_no_sandbox=self._unsafe_no_sandbox)

    @property
    def all_problems(self) -> dict[str, CodeProblem]:
        """Problems of all splits by id, in the order of the files."""
        return self._contents[0]

    @property
    def data(self) -> dict[str, dict[str, Any]]:
        """Name, SHA-256 and number of rows of each file."""
        return self._contents[1]

    @cached_property
    def _contents(self) -> tuple[dict[str, CodeProblem], dict[str, dict[str, Any]]]:
        problems: dict[str, CodeProblem] = {}
        files: dict[str, dict[str, Any]] = {}
        for part, patterns in self.file_patterns().items():
            file = self.read_file(patterns, "the problems")
            for index, row in enumerate(file.rows, start=1):
                entry = self.read_row(row, f"row {index} of {file.path}")
                identity = entry.problem.id
                if identity in problems:
                    raise InputError("task_id", identity, f"twice in {file.path}", "get the file again")
                problems[identity] = entry
            files[part] = file.summary()
        return problems, files

    def split_problems(self, split: str) -> list[Problem]:
        """All problems of one of the splits."""
        return [entry.problem for entry in self.all_problems.values() if entry.split == split]

    def entry(self, problem: Problem) -> CodeProblem:
        """All there is to the problem with this id. Raises InputError if the data do not have it."""
        if problem.id not in self.all_problems:
            some = ", ".join(list(self.all_problems)[:2])
            problem_text = f"no problem of {self.name} has it"
            raise InputError("id", problem.id, problem_text, f"use the data's ids, such as {some}")
        return self.all_problems[problem.id]

    def check(self, problem: Problem) -> None:
        """Raise InputError for an unknown problem, or if programs cannot be run safely here."""
        self.entry(problem)
        _ = self.sandbox  # raises

    def assess(self, problem: Problem, response: str) -> Verdict:
        """The verdict on a response: its program, and the reason of the first failure."""
        entry, isolation = self.entry(problem), self.sandbox.isolation
        code = find_program(
            response,
            self._code_rule,
            prefix=answer_prefix(entry.problem.question, self.kind),
            is_completion=self.kind == "completion",
        )
        if code is None:
            return Verdict(correct=False, extracted=None, reason="no code", grader=isolation)
        program = with_preamble(entry.preamble, code)
        result = grade_program(self.sandbox, program, entry.tests)
        reason: str = result.first_failure.reason
        if reason == "error":
            reason = f"error: {result.first_failure.detail.partition(':')[0]}"
        return Verdict(correct=result.passed, extracted=program, reason=reason, grader=isolation)

    def settings(self) -> dict[str, Any]:
        """What verdicts depend on, JSON-ready."""
        return {
            "grader": {
                "code_rule": self._code_rule,
                "isolation": self.sandbox.isolation,
                "limits": asdict(self.sandbox.limits),
                "python": platform.python_version(),
            },
            "data": self.data,
        }


def with_preamble(preamble: str, code: str) -> str:
    """``code`` behind ``preamble``, but for its imports from ``__future__``, which Python wants first."""
    if not preamble or "__future__" not in code:
        return preamble + code
    try:
        statements = ast.parse(code).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return preamble + code  # the sandbox reports it
    lines = [line.encode() for line in io.StringIO(code, newline="")]  # columns count bytes
    first: list[str] = []
    for statement in reversed(statements):
        if isinstance(statement, ast.ImportFrom) and statement.module == "__future__":
            first.insert(0, ast.unparse(statement) + "\n")
            begin, end = statement.lineno - 1, (statement.end_lineno or statement.lineno) - 1
            before, after = lines[begin][: statement.col_offset], lines[end][statement.end_col_offset :]
            lines[begin : end + 1] = [before + b"pass" + after]
    return "".join(first) + preamble + b"".join(lines).decode()
