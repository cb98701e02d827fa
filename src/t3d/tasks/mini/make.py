"""The ``make`` task: digits that add up to a number, under a ban and a demand.

Many digit tuples are right and all of them are tied by one constraint, so the tokens of an answer
depend on each other: digits chosen together without knowing of each other miss the sum.
"""

import functools
import itertools
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass

from t3d.errors import InputError
from t3d.problems.problem import Problem
from t3d.tasks.mini.mini_task import (
    DEFAULT_NUM_PROBLEMS,
    OUT_OF_DISTRIBUTION,
    MiniTask,
    require_split,
    split_of,
)

TOTALS = {3: range(6, 12), 4: range(6, 14), 5: range(6, 14)}
"""Totals by the number of digits."""
OTHER_TOTALS = {3: range(12, 14)}
"""Those of the split ``ood``: numbers that are seen, but never of so few digits."""
MAX_BANNED = 2
MIN_SOLUTIONS = 3
_QUESTION = re.compile(r"Make (\d+) with (\d) digits(?:, no ([\d or]+))?(?:, use a (\d))?\.", re.ASCII)


@dataclass(frozen=True, slots=True)
class MakeSpec:
    """``num_digits`` digits of 1..9 that sum to ``total``: none banned, the required one among them."""

    total: int
    num_digits: int
    banned: tuple[int, ...] = ()
    required: int | None = None

    @classmethod
    def of_question(cls, question: str) -> "MakeSpec":
        """The specification behind a question that the task wrote."""
        match = _QUESTION.fullmatch(question)
        if match is None:
            raise InputError("question", question, "not a make problem", "use a problem of the task")
        total, num_digits, ban, demand = match.groups()
        banned = tuple(int(digit) for digit in re.findall(r"\d", ban or ""))
        spec = cls(int(total), int(num_digits), banned, None if demand is None else int(demand))
        if spec.question != question or not spec.is_of_the_task:
            raise InputError("question", question, "not a make problem", "use a problem of the task")
        return spec

    @property
    def is_of_the_task(self) -> bool:
        """Whether the numbers are in the task's ranges and enough answers are right."""
        return (
            any(self.total in totals.get(self.num_digits, ()) for totals in (TOTALS, OTHER_TOTALS))
            and len(self.banned) <= MAX_BANNED
            and 0 not in self.banned
            and list(self.banned) == sorted(set(self.banned))
            and self.required not in (0, *self.banned)
            and len(self.answers()) >= MIN_SOLUTIONS
        )

    @property
    def question(self) -> str:
        """The specification in words."""
        ban = f", no {' or '.join(map(str, self.banned))}" if self.banned else ""
        demand = "" if self.required is None else f", use a {self.required}"
        return f"Make {self.total} with {self.num_digits} digits{ban}{demand}."

    @property
    def split(self) -> str:
        """``ood`` by total and count of digits, else ``train``, ``validation`` or ``test``."""
        is_other = self.total in OTHER_TOTALS.get(self.num_digits, ())
        return OUT_OF_DISTRIBUTION if is_other else split_of(self.question)

    def fits(self, digits: tuple[int, ...]) -> bool:
        """Whether these digits are a right answer."""
        return (
            len(digits) == self.num_digits
            and sum(digits) == self.total
            and all(1 <= digit <= 9 and digit not in self.banned for digit in digits)
            and (self.required is None or self.required in digits)
        )

    def draw_answer(self, rng: random.Random) -> tuple[int, ...]:
        """One right answer, each equally likely, without listing them all."""
        candidates = _tuples(self.total, self.num_digits)
        while not self.fits(digits := rng.choice(candidates)):
            pass
        return digits

    def answers(self) -> tuple[tuple[int, ...], ...]:
        """All right answers: the tuples that :meth:`fits`, whose other conditions all of them meet."""
        banned, required = set(self.banned), self.required
        return tuple(
            digits
            for digits in _tuples(self.total, self.num_digits)
            if banned.isdisjoint(digits) and (required is None or required in digits)
        )


@functools.cache
def _tuples(total: int, num_digits: int) -> tuple[tuple[int, ...], ...]:
    """All ordered tuples of digits 1..9 with this sum."""
    every = itertools.product(range(1, 10), repeat=num_digits)
    return tuple(digits for digits in every if sum(digits) == total)


@functools.cache
def all_specs() -> tuple[MakeSpec, ...]:
    """Every specification of the ranges of training that has at least ``MIN_SOLUTIONS`` right answers."""
    return _all_of(TOTALS)


def _all_of(totals_by_count: Mapping[int, range]) -> tuple[MakeSpec, ...]:
    bans = [ban for size in range(MAX_BANNED + 1) for ban in itertools.combinations(range(1, 10), size)]
    demands = (None, *range(1, 10))
    return tuple(
        spec
        for num_digits, totals in totals_by_count.items()
        for total, ban, demand in itertools.product(totals, bans, demands)
        for spec in (MakeSpec(total, num_digits, ban, demand),)
        if spec.is_of_the_task
    )


@functools.cache
def _specs_of_split(split: str) -> tuple[MakeSpec, ...]:
    if split == OUT_OF_DISTRIBUTION:
        return _all_of(OTHER_TOTALS)
    return tuple(spec for spec in all_specs() if spec.split == split)


def write_solution(total: int, digits: tuple[int, ...]) -> str:
    """The working, each digit with what is left to make, and the boxed sum."""
    left = itertools.accumulate(digits, int.__sub__, initial=total)
    steps = [f"{digit} left {rest}" for digit, rest in zip(digits, list(left)[1:], strict=True)]
    return f"Take {', '.join(steps)}. So \\boxed{{{'+'.join(map(str, digits))}}}."


class MakeTask(MiniTask):
    """Generator, solutions and verifier of ``make``."""

    name = "make"
    spec_of = staticmethod(MakeSpec.of_question)

    def draw(self, rng: random.Random, split: str) -> tuple[Problem, str]:
        """One random problem of a split and one random right answer of it."""
        spec = rng.choice(_specs_of_split(split))
        digits = rng.choice(spec.answers())
        return Problem(id="", question=spec.question, task=self.name), write_solution(spec.total, digits)

    def problems(self, split: str, limit: int | None, seed: int) -> list[Problem]:
        """``limit`` distinct problems of a split with a solution each, drawn with this seed.

        None draws 512, or all there are.
        """
        specs = _specs_of_split(require_split(split))
        wanted = min(DEFAULT_NUM_PROBLEMS, len(specs)) if limit is None else limit
        if wanted > len(specs):
            problem = f"the {split} split of {self.name!r} has {len(specs)} problems"
            raise InputError("limit", limit, problem, f"use at most {len(specs)}")
        drawn = random.Random(f"{self.name}/{split}/{seed}").sample(specs, wanted)
        problems = []
        for index, spec in enumerate(drawn):
            identity = f"{self.name}/{split}/{seed}/{index}"
            solution = write_solution(spec.total, spec.draw_answer(random.Random(identity)))
            problems.append(Problem(id=identity, question=spec.question, task=self.name, solution=solution))
        return problems

    def solutions(self, question: str) -> list[str]:
        """One text per right answer."""
        spec = MakeSpec.of_question(question)
        return [write_solution(spec.total, digits) for digits in spec.answers()]

    def grade(self, problem: Problem, response: str) -> bool:
        """True if the boxed digits fit and the working leads to them.

        The working must name the boxed digits in order, each with what it leaves. It is graded so
        that a box copied from garbled working does not count.
        """
        spec = MakeSpec.of_question(problem.question)
        match = re.search(r"\\boxed\{(\d(?:\+\d)*)\}", response)
        if match is None:
            return False
        digits = tuple(int(digit) for digit in match.group(1).split("+"))
        return spec.fits(digits) and response.strip() == write_solution(spec.total, digits)

    def corpus_words(self) -> list[str]:
        """Every text piece of the task, for the tokenizer's word list."""
        return [MakeSpec(8, 3, (5, 6), 1).question, write_solution(8, (1, 3, 4))]
