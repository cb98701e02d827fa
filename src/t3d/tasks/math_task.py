"""What the math benchmarks share: answers compared in worker processes."""

from abc import abstractmethod
from pathlib import Path
from typing import Any

from t3d.errors import InputError
from t3d.grading.math import MathGrader
from t3d.grading.math_worker import TIME_LIMIT_S, GraderName
from t3d.grading.verdict import Verdict
from t3d.problems.fields import said_text
from t3d.problems.problem import Problem
from t3d.problems.prompt_styles import PromptKind
from t3d.tasks.data_task import DataTask


class MathTask(DataTask):
    """A benchmark of math problems; without data it grades problems that it is given.

    ``data`` records the file of each split that was read, with its SHA-256.
    """

    kind: PromptKind = "math"
    options = ("grader",)
    files: dict[str, tuple[str, ...]]
    """Names that the file of each split may have, the preferred first."""
    question_keys: tuple[str, ...]
    answer_keys = ("ground_truth_answer", "answer")

    def __init__(
        self,
        folder: str | Path | None = None,
        *,
        grader: GraderName = "math_verify",
        time_limit_s: float = TIME_LIMIT_S,
        num_workers: int | None = None,
    ) -> None:
        super().__init__(folder)
        self.splits = tuple(self.files)
        self.grader = MathGrader(grader, time_limit_s=time_limit_s, num_workers=num_workers)
        self.data: dict[str, dict[str, Any]] = {}

    @abstractmethod
    def gold(self, answer: str) -> str:
        """The gold answer in an answer as the data hold it."""

    def split_problems(self, split: str) -> list[Problem]:
        """All problems of one of the splits."""
        file = self.read_file(self.files[split], f"the {split} split")
        self.data[split] = file.summary()
        problems = []
        for index, row in enumerate(file.rows):
            where = f"row {index + 1} of {file.path}"
            question = said_text(row, self.question_keys, where)
            gold = self.gold(said_text(row, self.answer_keys, where))
            identity = f"{self.name}/{split}/{index}"
            problems.append(Problem(id=identity, question=question, task=self.name, answer=gold))
        return problems

    def check(self, problem: Problem) -> None:
        """Raise InputError without a gold answer."""
        if problem.answer is None or not problem.answer.strip():
            fix = "give it its answer, or leave it out"
            raise InputError("answer", problem.answer, f"problem {problem.id!r} has no gold answer", fix)

    def assess(self, problem: Problem, response: str) -> Verdict:
        """The verdict on a response, with the answer that was found and the reason."""
        self.check(problem)
        return self.grader.grade(response, self.gold(str(problem.answer)))

    def settings(self) -> dict[str, Any]:
        """What verdicts depend on, JSON-ready."""
        return {"grader": self.grader.settings(), "data": self.data}

    def close(self) -> None:
        """End the grader's workers."""
        self.grader.close()
