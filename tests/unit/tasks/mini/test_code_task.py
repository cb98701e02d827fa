"""The code task: programs are judged by what they compute, whatever their spelling."""

import pytest

from t3d.problems.problem import Problem
from t3d.tasks.mini.code import CodeSpec, ProgramTask

TASK = ProgramTask()
PROBLEM = Problem(id="x", question="Write f: times 3, plus 4, if over 20 then minus 5.")
RIGHT = "def f(x):\n y = 3 * x + 4\n return y - 5 if y > 20 else y"


def test_specification_is_read_back_and_its_function_is_the_stated_one():
    """3 * 5 + 4 = 19 stays; 3 * 6 + 4 = 22 is over 20 and becomes 17."""
    spec = CodeSpec.of_question(PROBLEM.question)
    assert spec == CodeSpec(3, 4, "over", 20, "minus", 5)
    assert PROBLEM.question == f"Write f: {spec}"
    assert CodeSpec.of_question(f"Now write f in Python: {spec}") == spec
    assert [spec.value(x) for x in (0, 5, 6)] == [4, 19, 17]
    under = CodeSpec.of_question("Write f: times 3, plus 4, if under 20 then plus 1.")
    assert [under.value(x) for x in (0, 5, 6)] == [5, 20, 22]


@pytest.mark.parametrize(
    "program",
    [
        RIGHT,
        "def f(x):\n t = 4 + 3 * x\n return t if t <= 20 else t - 5",
        "def f(x):\n y = x * 3 + 4\n if 20 < y:\n  return y - 5\n return y",  # not a form of the task
    ],
)
def test_any_spelling_of_the_function_is_right(program):
    assert TASK.grade(PROBLEM, program)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("y = 3", "t = 3"),  # mixed names
        ("3 * x", "x * x"),  # mixed orders
        ("y > 20", "y <= 20"),  # mixed branches
        ("y > 20", "y >= 20"),  # equal everywhere but at 20, which x = 5.33 does not reach; see below
        ("+ 4", "+ 5"),
        ("- 5", "- 4"),
        ("> 20", "> 23"),
        ("def f", "def g"),
        ("return", "print"),
        (RIGHT, ""),
        (RIGHT, "def f(x):"),
        (RIGHT, "import os"),
    ],
)
def test_programs_that_mix_choices_or_constants_are_wrong(old, new):
    program = RIGHT.replace(old, new)
    assert program != RIGHT
    is_equal_function = new == "y >= 20"
    assert TASK.grade(PROBLEM, program) == is_equal_function


@pytest.mark.parametrize(
    "line",
    [
        "while 1: y = 1",
        "y = [0] * 250000000",
        "exit(0)",
        "raise SystemExit",
        "import os",
        "y = __import__('os')",
        "y = f(x)",
    ],
)
def test_programs_that_loop_allocate_exit_or_import_are_wrong_and_the_next_one_is_graded(line):
    assert not TASK.grade(PROBLEM, RIGHT.replace("\n y", f"\n {line}\n y", 1))
    assert TASK.grade(PROBLEM, RIGHT)
