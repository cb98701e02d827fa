"""What evaluation and rollouts need to know of a task."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from t3d.decoding.rollout_filter import SampleGrader
from t3d.grading.math_worker import usable_cores
from t3d.grading.verdict import Verdict
from t3d.problems.problem import Problem
from t3d.problems.prompt_styles import PromptKind, PromptStyle


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

    def grader_settings(self) -> dict[str, Any]:
        """What verdicts depend on, JSON-ready; nothing of a task that gives no reasons."""
        return self.task.settings() if isinstance(self.task, ExplainingTask) else {}

    def sample_grader(self) -> SampleGrader:
        """For the filter of a rollout. Raises InputError if a problem cannot be graded."""
        for problem in self.problems:
            self.task.check(problem)

        def grade(responses: Sequence[tuple[Problem, str]]) -> list[bool]:
            return [verdict.correct for verdict in verdicts_of(self.task, responses)]

        return SampleGrader(grade=grade, settings=self.grader_settings())


def verdict_of(task: Task, problem: Problem, response: str) -> Verdict:
    """The verdict on a response; of a task that gives no reasons, ``passed`` or ``failed``."""
    if isinstance(task, ExplainingTask):
        return task.assess(problem, response)
    correct = task.grade(problem, response)
    return Verdict(correct=correct, extracted=None, reason="passed" if correct else "failed")


def verdicts_of(
    task: Task, responses: Sequence[tuple[Problem, str]], num_threads: int | None = None
) -> Iterator[Verdict]:
    """Verdicts in order; of a task that threads may share, several are made at the same time."""
    if not isinstance(task, ExplainingTask):
        yield from (verdict_of(task, problem, response) for problem, response in responses)
        return
    with ThreadPoolExecutor(num_threads or min(4, usable_cores())) as pool:
        yield from pool.map(lambda pair: verdict_of(task, *pair), responses)
