"""What the suite's tasks share: seeded problems, splits by specification, listed solutions.

Specifications whose numbers are in the ranges of training are in ``train``, ``validation`` or ``test`` by
their text; those with a number that training never has in its place are in ``ood``, out of distribution.
"""

import dataclasses
import hashlib
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from t3d.errors import InputError
from t3d.problems.problem import Problem

HELD_OUT_PERCENT = {"validation": 5, "test": 10}
OUT_OF_DISTRIBUTION = "ood"
"""Split of the numbers that training never has in their place."""
SPLITS = ("train", *HELD_OUT_PERCENT, OUT_OF_DISTRIBUTION)
DEFAULT_NUM_PROBLEMS = 512


def split_of(identity: str) -> str:
    """``train``, ``validation`` or ``test``: a fixed function of the text of a specification.

    Its numbers are in the ranges of training.
    """
    bucket = int.from_bytes(hashlib.sha256(identity.encode()).digest()[:4], "big") % 100
    if bucket < HELD_OUT_PERCENT["test"]:
        return "test"
    return "validation" if bucket < sum(HELD_OUT_PERCENT.values()) else "train"


def require_split(split: str) -> str:
    """The split. Raises InputError for an unknown one."""
    if split not in SPLITS:
        raise InputError("split", split, "not known", f"use {', '.join(SPLITS[:-1])} or {SPLITS[-1]}")
    return split


class MiniTask(ABC):
    """Generator, solutions and verifier of one task; the verifier may accept further responses."""

    name: str

    @abstractmethod
    def draw(self, rng: random.Random, split: str) -> tuple[Problem, str]:
        """One random problem of a split and a random one of its :meth:`solutions`."""

    @abstractmethod
    def solutions(self, question: str) -> Sequence[str]:
        """All solutions that :meth:`draw` may give to a question; a likelier one stands there more often.

        Raises InputError for a question that is not the task's.
        """

    @abstractmethod
    def grade(self, problem: Problem, response: str) -> bool:
        """Whether the response is right."""

    @abstractmethod
    def spec_of(self, question: str) -> Any:
        """The specification behind a question. Raises InputError if it is not one of the task's."""

    def check(self, problem: Problem) -> None:
        """Raise InputError if the question is not one of the task's."""
        self.spec_of(problem.question)

    @abstractmethod
    def corpus_words(self) -> list[str]:
        """Every text piece of the task, for the tokenizer's word list."""

    def problems(self, split: str, limit: int | None, seed: int) -> list[Problem]:
        """``limit`` distinct problems of a split, each with a solution, drawn with this seed; None: 512."""
        rng = random.Random(f"{self.name}/{require_split(split)}/{seed}")
        wanted = DEFAULT_NUM_PROBLEMS if limit is None else limit
        questions: dict[str, Problem] = {}
        for _ in range(100 * wanted):
            problem, solution = self.draw(rng, split)
            identity = f"{self.name}/{split}/{seed}/{len(questions)}"
            problem = dataclasses.replace(problem, id=identity, solution=solution)
            questions.setdefault(problem.question, problem)
            if len(questions) == wanted:
                return list(questions.values())
        problem = f"the {split} split of {self.name!r} has too few distinct problems"
        raise InputError("limit", limit, problem, f"use at most {len(questions)}")
