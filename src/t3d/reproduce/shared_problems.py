"""What the seeds of a suite have in common: test problems and training prompts."""

from collections.abc import Callable, Sequence
from functools import cache
from itertools import combinations
from statistics import mean

from t3d.problems.problem import Problem
from t3d.reproduce.suites import SuiteData


def shared_share(data: SuiteData, task: str, limit: int | None, seeds: Sequence[int]) -> float:
    """Share of a task's test problems that two seeds have in common, the mean over all pairs.

    0 for a single seed, which has nobody to share with.
    """
    drawn = [_questions(data.problems, task, limit, seed) for seed in seeds] if len(seeds) > 1 else []
    shares = [len(first & second) / len(first) for first, second in combinations(drawn, 2)]
    return mean(shares) if shares else 0.0


def draws_training_prompts(data: SuiteData) -> bool:
    """Whether another seed has other training prompts."""
    first, second = (data.training_problems(1, seed, solved=False) for seed in (0, 1))
    return [problem.question for problem in first] != [problem.question for problem in second]


ProblemsOf = Callable[[str, str, int | None, int], list[Problem]]
"""By task, split, limit and seed: :meth:`SuiteData.problems`."""


@cache  # every number of a table asks, and the problems of some tasks take seconds to list
def _questions(problems_of: ProblemsOf, task: str, limit: int | None, seed: int) -> frozenset[str]:
    return frozenset(problem.question for problem in problems_of(task, "test", limit, seed))
