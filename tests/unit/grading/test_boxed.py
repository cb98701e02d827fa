"""The rules by which an answer is found in its box, and where they differ."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t3d.grading.boxed import last_closed_box, last_opened_box, last_opened_box_verbatim


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("So \\boxed{7}.", "7"),
        ("\\boxed{1} then \\boxed{2}", "2"),
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{ 3 }", "3"),
        ("\\boxed{4", None),
        ("no box", None),
        ("\\boxed{}", ""),
    ],
)
def test_last_box_with_balanced_braces_is_the_answer(text, answer):
    assert last_opened_box(text) == answer


@pytest.mark.parametrize(
    ("text", "last", "released"),
    [
        (r"so \boxed{3}.", "3", "3"),
        (r"\boxed{1} then \boxed{ 2 }", "2", " 2 "),
        (r"\boxed{\frac{1}{2}} }}", r"\frac{1}{2}", r"\frac{1}{2}"),
        (r"{ \boxed{a \boxed{b} c} ", "b", "b"),
        (r"\boxed{1} and \boxed{2", "1", None),  # cut short: the released code then finds nothing
        (r"\boxed {4}", "4", None),
        (r"\boxed{}", "", ""),
        (r"\boxed 5", None, None),
        ("}{", None, None),
        ("", None, None),
    ],
)
def test_the_last_box(text, last, released):
    assert last_closed_box(text) == last
    assert last_opened_box_verbatim(text) == released
    assert last_opened_box(text) == (None if released is None else released.strip())


@given(st.lists(st.sampled_from(["\\boxed{", "\\boxed {", "{", "}", "a", " "]), max_size=12).map("".join))
def test_the_box_is_the_last_that_a_count_of_braces_closes(text):
    expected = None
    for mark in ("\\boxed{", "\\boxed {"):
        for start in range(len(text)):
            if text.startswith(mark, start):
                depth = 1
                for end in range(start + len(mark), len(text)):
                    depth += {"{": 1, "}": -1}.get(text[end], 0)
                    if depth == 0:
                        if expected is None or start > expected[0]:
                            expected = (start, text[start + len(mark) : end].strip())
                        break
    assert last_closed_box(text) == (None if expected is None else expected[1])


@pytest.mark.parametrize("text", ["\\boxed{" * 200_000, "\\boxed{}" * 100_000, "{" * 10**6, "}" * 10**6])
def test_extraction_is_linear_in_the_length(text):
    last_opened_box(text)
    last_opened_box_verbatim(text)
    last_closed_box(text)
