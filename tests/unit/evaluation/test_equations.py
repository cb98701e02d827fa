"""Equations in a text: which hold, and which cannot be told and are not counted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t3d.evaluation.equations import equations_right


@pytest.mark.parametrize(
    "text",
    [
        "2+3=5",
        "2 + 3*4 = 14",
        "She pays 5 x 3 = $15.",
        "$1,200 / 4 = $300",
        "10 / 3 = 3.33 each",
        "- 2 + 3 = 5",  # an item of a list, not minus two
        "**2+3=5**",
        "so (2+3=5)",
        "4-6 = -2",
        "3 \u2212 1 = 2",
        ".5*4=2",
        "-5+3=-2",
        "8\u00f72\u00d73=12",
    ],
)
def test_equations_that_hold(text):
    assert equations_right(text) == (1, 1)


@pytest.mark.parametrize("text", ["2+3=6", "10/3=3", "10/3=3.34", "4/0=4", "1,200+1=1201.5", "2+3=5.5"])
def test_equations_that_do_not_hold(text):
    assert equations_right(text) == (0, 1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x = 5",
        "(1+2)*3+4=13",
        "4*(2+3)=20",
        "2 + 3 = 5 + 1",
        "20% * 50 = 10",
        "3/4 = 75%",
        "5 apples * 3 = 15",
        "apples * 3 + 1 = 16",
        "a -2+3 = 1",
        "2^3+1=9",
        "2+3=5*(1)",
        "on 12/11 we",
    ],
)
def test_what_cannot_be_told_is_not_counted(text):
    assert equations_right(text) == (0, 0)


def test_each_link_of_a_chain_counts():
    """``2+3`` goes on behind its ``=``, so that only the last link is an equation with a number."""
    assert equations_right("2+3=5+1=6, and 2+2=5") == (1, 2)


@given(st.lists(st.integers(1, 99), min_size=2, max_size=5), st.data())
def test_a_text_of_random_equations_is_what_python_says(numbers, data):
    operators = [data.draw(st.sampled_from("+-*")) for _ in numbers[1:]]
    term = str(numbers[0]) + "".join(
        f" {op} {number}" for op, number in zip(operators, numbers[1:], strict=True)
    )
    value, off = eval(term), data.draw(st.integers(0, 1))
    assert equations_right(f"So {term} = {value + off}.") == (1 - off, 1)
