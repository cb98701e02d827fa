"""The ``code`` task: a three-line Python function from a short specification.

The local name, the order of operands and the direction of the branch are free, so many programs are
right; one that mixes two of them uses an undefined name or computes something else.
"""

import itertools
import random
import re
from dataclasses import dataclass

from t3d.errors import InputError
from t3d.grading.arithmetic import run_program
from t3d.problems.problem import Problem
from t3d.tasks.mini.mini_task import OUT_OF_DISTRIBUTION, MiniTask, split_of

FUNCTION_NAME = "f"
LOCAL_NAMES = ("y", "z", "n", "v", "t", "r")
FACTORS, OFFSETS, CHANGES = range(2, 10), range(1, 10), range(1, 10)
OTHER_FACTORS = (1,)
"""Those of the split ``ood``: an offset and a change of the others, but never a factor."""
THRESHOLDS = range(10, 60)
OPENINGS = ("Write f", "Now write f", "Write f in Python", "Now write f in Python")
_QUESTION = re.compile(
    r"(?:Now w|W)rite f(?: in Python)?: "
    r"times ([1-9]), plus ([1-9]), if (over|under) ([1-5]\d) then (plus|minus) ([1-9])\.",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class CodeSpec:
    """y = factor * x + offset; y +- change if y is over (or under) the threshold, else y."""

    factor: int
    offset: int
    compare: str
    threshold: int
    change_sign: str
    change: int

    @classmethod
    def of_question(cls, question: str) -> "CodeSpec":
        """The specification behind a question that the task wrote."""
        match = _QUESTION.fullmatch(question)
        if match is None:
            raise InputError("question", question, "not a code problem", "use a problem of the task")
        factor, offset, compare, threshold, change_sign, change = match.groups()
        return cls(int(factor), int(offset), compare, int(threshold), change_sign, int(change))

    def __str__(self) -> str:
        """The specification in words."""
        first = f"times {self.factor}, plus {self.offset}"
        return f"{first}, if {self.compare} {self.threshold} then {self.change_sign} {self.change}."

    @property
    def split(self) -> str:
        """``ood`` by the factor, else ``train``, ``validation`` or ``test``."""
        return OUT_OF_DISTRIBUTION if self.factor in OTHER_FACTORS else split_of(f"code/{self}")

    def value(self, x: int) -> int:
        """The specified function, from which the tests are made."""
        y = self.factor * x + self.offset
        applies = y > self.threshold if self.compare == "over" else y < self.threshold
        change = self.change if self.change_sign == "plus" else -self.change
        return y + change if applies else y

    def test_inputs(self) -> list[int]:
        """Inputs on both sides of the threshold, the closest ones included."""
        middle = (self.threshold - self.offset) // self.factor
        return [0, 1, 7, *range(middle - 3, middle + 4), 50]


def _programs(spec: CodeSpec, name: str) -> list[str]:
    """Programs with this local name, each as often as it is likely.

    ``x * 3 + 4`` is as likely as its two reorderings together: with three even forms, which one few
    steps mix would hang on the order in which a model happens to commit equally likely tokens.
    """
    firsts = [
        f"{spec.factor} * x + {spec.offset}",
        *2 * [f"x * {spec.factor} + {spec.offset}"],
        f"{spec.offset} + {spec.factor} * x",
    ]
    changed = f"{name} {'+' if spec.change_sign == 'plus' else '-'} {spec.change}"
    holds, fails = (">", "<=") if spec.compare == "over" else ("<", ">=")
    lasts = [
        f"{changed} if {name} {holds} {spec.threshold} else {name}",
        f"{name} if {name} {fails} {spec.threshold} else {changed}",
    ]
    return [
        f"def {FUNCTION_NAME}(x):\n {name} = {first}\n return {last}"
        for first, last in itertools.product(firsts, lasts)
    ]


class ProgramTask(MiniTask):
    """Generator, solutions and verifier of ``code``."""

    name = "code"
    spec_of = staticmethod(CodeSpec.of_question)

    def draw(self, rng: random.Random, split: str) -> tuple[Problem, str]:
        """One random problem of a split and one random right program for it."""
        spec = self.draw_spec(rng, split)
        program = rng.choice(_programs(spec, rng.choice(LOCAL_NAMES)))
        question = f"{rng.choice(OPENINGS)}: {spec}"
        return Problem(id="", question=question, task=self.name), program

    @staticmethod
    def draw_spec(rng: random.Random, split: str) -> CodeSpec:
        """A random specification of a split."""
        factors = OTHER_FACTORS if split == OUT_OF_DISTRIBUTION else FACTORS
        while True:
            spec = CodeSpec(
                rng.choice(factors),
                rng.choice(OFFSETS),
                rng.choice(("over", "under")),
                rng.choice(THRESHOLDS),
                rng.choice(("plus", "minus")),
                rng.choice(CHANGES),
            )
            if spec.split == split:
                return spec

    def solutions(self, question: str) -> list[str]:
        """Every local name with every order of operands and branches, the likelier order twice."""
        spec = CodeSpec.of_question(question)
        return [program for name in LOCAL_NAMES for program in _programs(spec, name)]

    def grade(self, problem: Problem, response: str) -> bool:
        """True if the program computes the specified function on every test input."""
        spec = CodeSpec.of_question(problem.question)
        inputs = spec.test_inputs()
        return run_program(response, FUNCTION_NAME, inputs) == tuple(spec.value(x) for x in inputs)

    def corpus_words(self) -> list[str]:
        """Every text piece of the task, for the tokenizer's word list."""
        specs = [CodeSpec(2, 1, compare, 10, "minus", 1) for compare in ("over", "under")]
        programs = [text for spec in specs for name in LOCAL_NAMES for text in _programs(spec, name)]
        return [*OPENINGS, *map(str, specs), *programs]
