"""The make task: its specification is read back, all right answers are found, the grader is strict."""

import itertools

import pytest

from t3d.problems.problem import Problem
from t3d.tasks.mini.make import MakeSpec, MakeTask, all_specs, write_solution

TASK = MakeTask()


def test_question_says_the_specification_and_is_read_back():
    spec = MakeSpec(12, 4, (5, 8), 7)
    assert spec.question == "Make 12 with 4 digits, no 5 or 8, use a 7."
    for each in all_specs()[::97]:
        assert MakeSpec.of_question(each.question) == each


def test_answers_are_all_tuples_that_a_search_over_all_digits_finds():
    spec = MakeSpec(11, 3, (1, 9), 2)
    expected = {
        digits
        for digits in itertools.product(range(10), repeat=3)
        if sum(digits) == 11 and not {0, 1, 9} & set(digits) and 2 in digits
    }
    assert set(spec.answers()) == expected
    assert len(spec.answers()) == len(expected) > 0


def test_working_counts_down_to_nothing_left():
    """13 - 3 = 10, 10 - 2 = 8, 8 - 4 = 4, 4 - 4 = 0."""
    expected = "Take 3 left 10, 2 left 8, 4 left 4, 4 left 0. So \\boxed{3+2+4+4}."
    assert write_solution(13, (3, 2, 4, 4)) == expected


@pytest.mark.parametrize(
    "response",
    [
        "Take 3 left 10, 2 left 8, 4 left 4, 5 left 0. So \\boxed{3+2+4+5}.",  # 14
        "Take 3 left 10, 2 left 8, 4 left 4, 4 left 0. So \\boxed{3+4+2+4}.",  # the box is not the working
        "Take 3 left 10, 2 left 8, 4 left 5, 4 left 0. So \\boxed{3+2+4+4}.",  # 8 - 4 is not 5
        "Take 3 left 10, 2 left 8, 5 left 3, 3 left 0. So \\boxed{3+2+5+3}.",  # no 4
        "Take 7 left 6, 4 left 2, 1 left 1, 1 left 0. So \\boxed{7+4+1+1}.",  # 7 and 1 are banned
        "Take 5 left 8, 4 left 4, 4 left 0. So \\boxed{5+4+4}.",  # three digits
        "So \\boxed{3+2+4+4}.",
        "Take 3 left 10, 2 left 8, 4 left 4, 4 left 0.",
        "So \\boxed{}.",
        "",
    ],
)
def test_what_breaks_a_constraint_or_the_working_is_wrong(response):
    problem = Problem(id="x", question="Make 13 with 4 digits, no 1 or 7, use a 4.")
    assert TASK.grade(problem, write_solution(13, (3, 2, 4, 4)))
    assert not TASK.grade(problem, response)
