"""The chain task: its arithmetic is read back from the question, and the grader is strict."""

import random

import pytest

from t3d.errors import InputError
from t3d.problems.problem import Problem
from t3d.tasks.mini.chain import ChainSpec, ChainTask

TASK = ChainTask()


def test_working_and_box_must_both_be_right():
    """9 - 4 = 5, 5 + 2 = 7, 7 - 3 = 4."""
    story = "Gus has 9 nuts, first drops 4, then gets 2, next sells 3. How many now?"
    problem = Problem(id="x", question=story, answer="4")
    steps = ["First 9 - 4 = 5.", "Then Gus now has 7, 2 more.", "Next from 7 down 3 to 4."]

    def right(*sentences):
        return TASK.grade(problem, " ".join(sentences))

    assert right(*steps, "So \\boxed{4}.")
    assert right("First 5 it is.", *steps[1:], "So \\boxed{4}.")  # wording is free
    assert not right(*steps, "So \\boxed{5}.")
    assert not right(*steps, "So 4.")
    assert not right("First 9 - 4 = 6.", *steps[1:], "So \\boxed{4}.")
    assert not right(*steps[1:], "So \\boxed{4}.")
    assert not right("So \\boxed{4}.")
    assert not right("")


def test_arithmetic_is_read_back_from_every_question():
    rng = random.Random(3)
    for _ in range(300):
        problem, _ = TASK.draw(rng, "train")
        spec = ChainSpec.of_question(problem.question)
        assert spec.split == "train"
        assert str(spec.totals[-1]) == problem.answer
    with pytest.raises(InputError, match="not a chain story"):
        ChainSpec.of_question("What is two plus two?")


def test_totals_stay_between_zero_and_nine():
    rng = random.Random(1)
    assert all(0 <= total <= 9 for _ in range(2000) for total in TASK.draw_spec(rng, "train").totals)
    assert ChainSpec(3, (4, -7)).totals == (3, 7, 0)
