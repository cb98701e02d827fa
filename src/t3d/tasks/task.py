"""What evaluation and rollouts need to know of a task, and tasks read from files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from t3d.errors import InputError
from t3d.grading.boxed import last_opened_box
from t3d.grading.verdict import Verdict
from t3d.problems.problem import Problem
from t3d.problems.prompt_styles import PromptKind, PromptStyle
from t3d.problems.prompts import read_prompt_file


@runtime_checkable
class Task(Protocol):
    """Problems and a verifier."""

    @property
    def name(self) -> str:
        """Key of the task in result files."""
        ...

    def problems(self, split: str, limit: int | None, seed: int) -> list[Problem]:
        """At most ``limit`` problems of a split, the same for the same seed."""
        ...

    def check(self, problem: Problem) -> None:
        """Raise InputError if the problem cannot be graded; called before anything is decoded."""
        ...

    def grade(self, problem: Problem, response: str) -> bool:
        """Whether the response is right."""
        ...


@runtime_checkable
class ExplainingTask(Task, Protocol):
    """A task that says why, and what its verdicts depend on. Threads may share it."""

    def assess(self, problem: Problem, response: str) -> Verdict:
        """The verdict on a response."""
        ...

    def settings(self) -> dict[str, Any]:
        """What verdicts depend on, JSON-ready."""
        ...


@dataclass(frozen=True, kw_only=True)
class PosedTask:
    """Some problems of a task, and how they are put to a model."""

    task: Task
    problems: list[Problem]
    style: PromptStyle = "plain"
    kind: PromptKind = "math"


def verdict_of(task: Task, problem: Problem, response: str) -> Verdict:
    """The verdict on a response; of a task that gives no reasons, ``passed`` or ``failed``."""
    if isinstance(task, ExplainingTask):
        return task.assess(problem, response)
    correct = task.grade(problem, response)
    return Verdict(correct=correct, extracted=None, reason="passed" if correct else "failed")


class PromptFileTask:
    """Problems of a JSONL file, graded by the last ``\\boxed{}`` against ``answer``."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.name = self.path.stem

    def problems(self, split: str, limit: int | None, seed: int) -> list[Problem]:
        """The file's first ``limit`` problems; a file has one split and no seed."""
        del split, seed
        return read_prompt_file(self.path)[:limit]

    def check(self, problem: Problem) -> None:
        """Raise InputError without a gold answer."""
        if problem.answer is None:
            fix = f'give the line an "answer" in {self.path}'
            raise InputError(
                "answer", None, f"problem {problem.id!r} has no gold answer to grade against", fix
            )

    def assess(self, problem: Problem, response: str) -> Verdict:
        """The verdict on a response: its boxed answer has to equal the gold answer as text."""
        extracted = last_opened_box(response)
        correct = problem.answer is not None and extracted == problem.answer.strip()
        reason = "equal" if correct else "no answer" if extracted is None else "different"
        return Verdict(correct=correct, extracted=extracted, reason=reason, grader="boxed_text")

    def grade(self, problem: Problem, response: str) -> bool:
        """Whether the response is right."""
        return self.assess(problem, response).correct

    def settings(self) -> dict[str, Any]:
        """What verdicts depend on, JSON-ready."""
        return {"grader": {"name": "boxed_text"}}
