"""The rules by which an answer is found in its box, and where they differ."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t3d.grading.boxed import last_answer, last_opened_box, last_opened_box_verbatim


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
    assert last_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "last", "released"),
    [
        (r"so \boxed{3}.", "3", "3"),
        (r"\boxed{1} then \boxed{ 2 }", "2", " 2 "),
        (r"\boxed{\frac{1}{2}} }}", r"\frac{1}{2}", r"\frac{1}{2}"),
        (r"{ \boxed{a \boxed{b} c} ", "b", "b"),
        (r"\boxed{1} and \boxed{2", None, None),  # cut short: the first may be a draft
        (r"\boxed {4}", "4", None),
        (r"\boxed{}", "", ""),
        (r"\\boxed{5}", "5", "5"),
        (r"x = 5 \\ \boxed{5}", "5", "5"),
        ("}{", None, None),
        ("", None, None),
    ],
)
def test_the_last_box(text, last, released):
    assert last_answer(text) == last
    assert last_opened_box_verbatim(text) == released
    assert last_opened_box(text) == (None if released is None else released.strip())


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"It is $\boxed 2$.", "2"),
        (r"$\boxed\frac12$", r"\frac12"),
        (r"\[ \boxed x+1 \] as said", "x+1"),
        (r"so \boxed\frac{1}{2}, which is half", r"\frac{1}{2}"),
        (r"so \boxed 12 apples and $3 each", "12"),
        (r"so \boxed -3.", "-3"),
        (r"\fbox{2}", "2"),
        (r"$\fbox 2$", "2"),
        (r"put it in \boxed please", None),
        (r"\boxed", None),
        (r"\boxedness{3}", None),
        ("oxed{42} \boxed{42}", None),  # a lost backslash, and one that JSON took for a backspace
    ],
)
def test_boxes_are_read_without_braces_and_by_their_other_name(text, answer):
    assert last_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{\left\{ x=1 \right.}", r"\left\{ x=1 \right."),
        (r"\boxed{\{1,2}", r"\{1,2"),
        (r"\boxed{\{1,2\}} }", r"\{1,2\}"),
    ],
)
def test_escaped_braces_close_and_open_nothing(text, answer):
    assert last_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"The roots are $\boxed{1}$ and $\boxed{2}$.", "1, 2"),
        (r"$x = \boxed{3}$ or $x = \boxed{-3}$", "3, -3"),
        (r"\boxed{(1,2)},\ \boxed{(3,4)}", "(1,2), (3,4)"),
        (r"\boxed{1}\text{ and }\boxed{2}, \boxed{3}", "1, 2, 3"),
        (r"\boxed{5}, and again \boxed{5}, \boxed{5}", "5"),
        (r"First \boxed{9}. The roots are \boxed{1} and \boxed{2}.", "1, 2"),
        (r"I get \boxed{5}. No, \boxed{6}.", "6"),
        (r"\boxed{\frac12} $\quad$ \boxed{0.5}", "0.5"),  # nothing says that both belong to the answer
        (r"Ann has \boxed{3}, and Bob has \boxed{4}.", "4"),
        (r"\boxed{1} and " + " " * 100 + r"\boxed{2}", "2"),
        (r"\boxed{1} and \boxed{2", None),
    ],
)
def test_an_answer_may_be_split_over_boxes(text, answer):
    assert last_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"It is \boxed{5}. (I put my final answer within \boxed{} as asked.)", "5"),
        (r"It is \boxed{5}, as it should be in $\boxed{}$.", "5"),
        (r"I shall put my answer within \boxed{}. It is 5.", None),
        (r"I get \boxed{5}. Final: \boxed{}", ""),  # an answer that was left out
    ],
)
def test_an_echo_of_the_instruction_is_no_answer(text, answer):
    assert last_answer(text) == answer


MARKS = ["\\boxed{", "\\boxed {", "\\fbox{", "{", "}", "\\{", "\\}", "\\\\", "a", " "]


@given(st.lists(st.sampled_from(MARKS), max_size=12))
def test_the_box_is_the_last_that_is_opened_up_to_where_a_count_of_braces_closes_it(parts):
    """The letters before each box are no joint, so that no boxes are parts of one answer."""
    starts = [index for index, part in enumerate(parts) if "box" in part]
    expected = None
    if starts:
        depth, content = 1, ""
        for part in parts[starts[-1] + 1 :]:
            depth += (part == "{") - (part == "}")
            if depth == 0:
                expected = content.strip()
                break
            content += part
    assert last_answer("".join(f"bb{part}" if "box" in part else part for part in parts)) == expected


@pytest.mark.many_inputs
@pytest.mark.parametrize(
    "text",
    [
        *("\\boxed{" * 40_000, "\\boxed{}" * 40_000, "{" * 300_000, "}" * 300_000, "\\boxed " * 40_000),
        *("\\boxed{1} and " * 20_000, "\\boxed a" * 40_000, "\\boxed\\a" * 40_000, "\\" * 300_000),
        *(" " * 300_000, "\\boxed" + " " * 300_000, "\\boxed" + "\\a{}" * 60_000, "$\\ " * 90_000),
        "\\boxed{}" + "$" * 90_000,
    ],
    ids=lambda text: f"{text[:12]}...{text[-2:]}",
)
def test_extraction_is_linear_in_the_length(text):
    """The square of the length would be minutes at least."""
    started = time.process_time()
    last_opened_box(text)
    last_opened_box_verbatim(text)
    last_answer(text)
    assert time.process_time() - started < 20
