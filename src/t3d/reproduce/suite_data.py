"""The problems of a suite: those trained on, those evaluated on, and what tells them from others.

What tells them from others is part of the hash of a cell.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import combinations
from pathlib import Path
from statistics import mean
from typing import Any, ClassVar

from t3d.decoding.rollout_filter import SampleGrader
from t3d.errors import InputError
from t3d.problems.problem import Problem
from t3d.problems.prompt_file import read_prompt_file
from t3d.problems.prompt_styles import PromptKind, user_turn
from t3d.tasks.benchmarks import load_benchmark, prompt_kind, style_options
from t3d.tasks.mini.mini_task import OUT_OF_DISTRIBUTION
from t3d.tasks.mini.suite import TASKS
from t3d.tasks.task import ExplainingTask, Task
from t3d.work.plan import file_sha256

MISSING: dict[str, Any] = {"data": "missing"}
"""Identity of an evaluation that is not possible here."""


class MiniData:
    """Problems of the built-in tasks."""

    splits = ("validation", "test", OUT_OF_DISTRIBUTION)
    """Of evaluation."""

    def task(self, name: str) -> Task:
        """The verifier of a task."""
        return TASKS[name]

    def problems(self, task: str, split: str, limit: int | None, seed: int) -> list[Problem]:
        """Problems of a split of evaluation, none of them trained on, drawn with this seed."""
        return TASKS[task].problems(split, limit, seed)

    def training_problems(self, count: int, seed: int, *, solved: bool) -> list[Problem]:
        """Training prompts of all tasks; ``solved``: with the solutions that SFT learns, as all are here.

        As many of every task, the rest one more of each of the first.
        """
        del solved
        share, rest = divmod(count, len(TASKS))
        counts = [share + (index < rest) for index in range(len(TASKS))]
        return [
            problem
            for task, number in zip(TASKS.values(), counts, strict=True)
            if number
            for problem in task.problems("train", number, seed)
        ]

    def identity(self, *, solved: bool) -> dict[str, str]:
        """Of the training problems, besides count and seed: nothing."""
        del solved
        return {}

    def evaluation_identity(self, task: str, split: str) -> dict[str, Any]:
        """Of a task's problems and verdicts: nothing, both are this package's."""
        del task, split
        return {}

    def sample_grader(self) -> SampleGrader:
        """For a filter of the rollouts of training prompts."""

        def grade(responses: Sequence[tuple[Problem, str]]) -> list[bool]:
            return [TASKS[problem.task].grade(problem, text) for problem, text in responses]

        return SampleGrader(grade=grade)

    def paths(self, tasks: Sequence[str]) -> list[Path]:
        """Files and folders that are read for training and these tasks: none."""
        del tasks
        return []


@dataclass(frozen=True)
class SdarData:
    """Real data in one folder: ``train.jsonl`` (question, task math, function or stdio), ``solutions.jsonl``
    (with a solution each, for SFT), and a folder per benchmark. Prompts are the paper's (C.3)."""

    splits: ClassVar = ("validation", "test")
    folder: Path
    _tasks: dict[str, Task] = field(default_factory=dict, init=False, repr=False, compare=False)
    _identities: dict[tuple[str, str], dict[str, Any]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def task(self, name: str) -> Task:
        """The benchmark's verifier, always the same one, which keeps its workers."""
        if name not in self._tasks:
            self._tasks[name] = load_benchmark(name, self.folder, **style_options(name, "paper"))
        return self._tasks[name]

    def problems(self, task: str, split: str, limit: int | None, seed: int) -> list[Problem]:
        """A benchmark's problems; GSM8K's validation problems are of its training split."""
        problems = self.task(task).problems(_split_of_data(task, split), limit, seed)
        return [_with_prompt(problem, prompt_kind(task)) for problem in problems]

    def training_problems(self, count: int, seed: int, *, solved: bool) -> list[Problem]:
        """The first ``count`` lines of the file; the seed draws nothing.

        Raises InputError for a file with fewer, since every method is to learn from as many.
        """
        del seed
        kinds: dict[str, PromptKind] = {"math": "math", "function": "function", "stdio": "stdio"}
        problems = read_prompt_file(self._training_file(solved=solved))[:count]
        if len(problems) < count:
            problem = f"{self._training_file(solved=solved)} has only {len(problems)} lines"
            raise InputError("num_prompts", count, problem, "add some, or give --num-prompts")
        for problem in problems:
            if problem.task not in kinds:
                fix = f"use one of {', '.join(kinds)}"
                raise InputError("task", problem.task, f"problem {problem.id!r}: not a kind of prompt", fix)
        return [_with_prompt(problem, kinds[problem.task]) for problem in problems]

    def identity(self, *, solved: bool) -> dict[str, str]:
        """SHA-256 of the file, once it is there."""
        file = self._training_file(solved=solved)
        return {"sha256": file_sha256(file) if file.is_file() else "missing"}

    def evaluation_identity(self, task: str, split: str) -> dict[str, Any]:
        """SHA-256 of the split's files, and the grader's settings.

        MISSING also where the grader does not work; a run says which of the two before its work.
        """
        if (task, split) not in self._identities:
            part = _split_of_data(task, split)
            try:
                benchmark = self.task(task)
                benchmark.problems(part, 1, 0)
                assert isinstance(benchmark, ExplainingTask)
                settings = benchmark.settings()
            except InputError:
                return MISSING
            files = settings["data"]
            files = {part: files[part]} if part in files else files
            hashes = {name: file["sha256"] for name, file in files.items()}
            self._identities[task, split] = settings | {"data": hashes}
        return self._identities[task, split]

    def sample_grader(self) -> SampleGrader:
        """Raises InputError: the training prompts are without answers."""
        problem = "the suite's training prompts have no answers that rollouts could be compared with"
        raise InputError("method", "rollout_filter='correct'", problem, "use t3d-plus, or t3d distil")

    def paths(self, tasks: Sequence[str]) -> list[Path]:
        """What has to be in the folder."""
        return [self.folder / name for name in ("train.jsonl", "solutions.jsonl", *tasks)]

    def _training_file(self, *, solved: bool) -> Path:
        return self.folder / ("solutions.jsonl" if solved else "train.jsonl")


def _split_of_data(task: str, split: str) -> str:
    return "train" if (task, split) == ("gsm8k", "validation") else split


def _with_prompt(problem: Problem, kind: PromptKind) -> Problem:
    return dataclasses.replace(problem, question=user_turn(problem.question, "paper", kind))


SuiteData = MiniData | SdarData


def shared_share(
    data: SuiteData, task: str, limit: int | None, seeds: Sequence[int], split: str = "test"
) -> float:
    """Share of a task's problems of a split that two seeds have in common, the mean over all pairs.

    0 for a single seed, which has nobody to share with.
    """
    of_seeds = seeds if len(seeds) > 1 else ()
    drawn = [set(questions(data.problems, task, limit, seed, split)) for seed in of_seeds]
    shares = [len(first & second) / len(first) for first, second in combinations(drawn, 2)]
    return mean(shares) if shares else 0.0


def draws_training_prompts(data: SuiteData) -> bool:
    """Whether another seed has other training prompts."""
    first, second = (data.training_problems(1, seed, solved=False) for seed in (0, 1))
    return [problem.question for problem in first] != [problem.question for problem in second]


@cache  # every number of a table asks, and the problems of some tasks take seconds to list
def questions(
    problems_of: Callable[[str, str, int | None, int], list[Problem]],
    task: str,
    limit: int | None,
    seed: int,
    split: str = "test",
) -> tuple[str, ...]:
    """The questions of a task's problems of a split, in their order."""
    return tuple(problem.question for problem in problems_of(task, split, limit, seed))
