"""What the math benchmarks share: problems from a local file, answers compared in worker processes."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from t3d.errors import InputError
from t3d.grading.math import MathGrader
from t3d.grading.math_worker import TIME_LIMIT_S, GraderName
from t3d.grading.verdict import Verdict
from t3d.problems.fields import Record, said_text
from t3d.problems.files import own_folder, read_only_file
from t3d.problems.problem import Problem


class MathTask(ABC):
    """A benchmark of math problems in a folder or file; without one it grades problems that it is given.

    ``data`` records the file of each split that was read, with its SHA-256.
    """

    name: str
    question_keys: tuple[str, ...]
    answer_keys: tuple[str, ...]

    def __init__(
        self,
        folder: str | Path | None = None,
        *,
        grader: GraderName = "math_verify",
        time_limit_s: float = TIME_LIMIT_S,
        num_workers: int | None = None,
    ) -> None:
        self.folder = None if folder is None else Path(folder)
        self.grader = MathGrader(grader, time_limit_s=time_limit_s, num_workers=num_workers)
        self.data: dict[str, dict[str, Any]] = {}

    @abstractmethod
    def file_patterns(self, split: str) -> tuple[str, ...]:
        """Names of files that may hold a split, the preferred first; InputError for an unknown split."""

    @abstractmethod
    def gold(self, answer: str) -> str:
        """The gold answer in an answer as the data hold it."""

    def problems(self, split: str, limit: int | None, seed: int) -> list[Problem]:
        """The first ``limit`` problems of a split, in the order of the file; nothing is drawn."""
        del seed
        patterns = self.file_patterns(split)
        if self.folder is None:
            raise InputError("data", None, f"{self.name} needs its data", "give the folder that holds them")
        folder = own_folder(self.folder, self.name)
        file = read_only_file(folder, patterns, f"the {split} split of {self.name}")
        self.data[split] = file.summary()
        return [self._problem(row, split, index, file.path) for index, row in enumerate(file.rows[:limit])]

    def _problem(self, row: Record, split: str, index: int, path: Path) -> Problem:
        where = f"row {index + 1} of {path}"
        question = said_text(row, self.question_keys, where)
        gold = self.gold(said_text(row, self.answer_keys, where))
        return Problem(id=f"{self.name}/{split}/{index}", question=question, task=self.name, answer=gold)

    def check(self, problem: Problem) -> None:
        """Raise InputError without a gold answer."""
        if problem.answer is None or not problem.answer.strip():
            fix = "give it its answer, or leave it out"
            raise InputError("answer", problem.answer, f"problem {problem.id!r} has no gold answer", fix)

    def assess(self, problem: Problem, response: str) -> Verdict:
        """The verdict on a response, with the answer that was found and the reason."""
        self.check(problem)
        return self.grader.grade(response, self.gold(str(problem.answer)))

    def grade(self, problem: Problem, response: str) -> bool:
        """Whether the response is right."""
        return self.assess(problem, response).correct

    def settings(self) -> dict[str, Any]:
        """What verdicts depend on, JSON-ready."""
        return {"grader": self.grader.settings(), "data": self.data}

    def close(self) -> None:
        """End the grader's workers."""
        self.grader.close()
