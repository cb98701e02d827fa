"""The released code's equality: hand examples of each of its rules."""

import random
from contextlib import closing

import pytest

from t3d.grading.legacy_math import (
    is_repetitive,
    latex_equal,
    legacy_equal,
    minerva_normal_form,
    strings_equal,
    strip_answer,
)
from t3d.grading.math import MathGrader


@pytest.mark.parametrize(
    ("text", "stripped"),
    [
        ("\\dfrac12", "\\frac{1}{2}"),
        ("\\tfrac{1}{2}", "\\frac{1}{2}"),
        ("\\frac1{72}", "\\frac{1}{72}"),
        ("\\frac{1}72", "\\frac{1}72"),
        ("x\\frac1", "x\\frac1"),
        ("\\left(3, \\frac{\\pi}{2}\\right)", "(3\\frac{\\pi}{2})"),  # every comma goes, also of a pair
        ("1,000,\\!000", "1000000"),
        ("90^\\circ", "90"),
        ("90^{\\circ}", "90"),
        ("\\$18.90", "18.90"),
        ("18\\text{ dollars}", "18"),
        ("18\\text{dollars}", "18\\text{dollars}"),  # a unit starts with a space
        ("10\\%", "10"),
        ("10%", "10%"),
        (".5", "\\frac{1}{2}"),
        ("0.5", "\\frac{1}{2}"),
        (".25", "0.25"),
        ("{.5}", "{0.5}"),
        ("x=5", "5"),
        ("xy = 5", "xy=5"),  # at most two characters before the sign
        ("a=b=c", "a=b=c"),
        ("\\sqrt3", "\\sqrt{3}"),
        ("\\sqrt{12}x", "\\sqrt{12}x"),
        ("3/4", "\\frac{3}{4}"),
        ("03/4", "03/4"),
        ("x/4", "x/4"),
        ("a\n b", "ab"),
        ("\\\\frac12", "\\frac{1}{2}"),
        ("", ""),
    ],
)
def test_stripping(text, stripped):
    assert strip_answer(text) == stripped


@pytest.mark.parametrize(
    ("answer", "gold", "equal"),
    [
        ("0.50", "0.5", False),  # only the text 0.5 becomes a fraction
        ("2.50", "2.5", True),
        ("1e3", "1000", True),
        ("\\frac{1}{2}", "0.5", True),
        ("5\\text{ m}", "5\\text{ cm}", True),
        ("5\\text{ m}\\text{ a}", "5", False),  # stripping fails: raw texts
        ("\\frac", "\\frac", True),
        ("nan", "nan", False),
    ],
)
def test_equality_of_stripped_texts(answer, gold, equal):
    assert strings_equal(answer, gold) is equal


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("12 an apple", "12apple"),
        ("x\\text{and}3", "x,3"),
        ("30 minutes", "30"),
        ("1,000", "1000"),
        ("1,000x", "1,000x"),
        ("so $x$ or $y$", "x"),
        ("\\textbf{5}", "5"),
        ("\\boxed{\\frac12}", "\\frac{1}{2}"),
        ("\\sqrt3", "\\sqrt{3}"),
        ("\\mbox{m}^2", ""),
    ],
)
def test_minervas_normal_form(text, normal):
    assert minerva_normal_form(text) == normal


@pytest.mark.parametrize(
    ("answer", "gold", "equal"),
    [
        ("\\frac{2}{4}", "\\frac{1}{2}", True),
        ("2\\sqrt{3}", "\\sqrt{12}", True),
        ("x+1", "1+x", True),
        ("x+2", "1+x", False),
        ("\\frac{2}{4} hours", "\\frac12", True),  # only after Minerva's normalisation
        ("}{", "}{", True),
        ("}{", "}}", False),
    ],
)
def test_equality_by_sympy(answer, gold, equal):
    assert latex_equal(answer, gold) is equal


def test_long_answers_that_repeat_themselves_are_wrong():
    repeated, varied = "12" * 80, "".join(random.Random(0).choices("0123456789", k=160))
    assert is_repetitive(repeated) and not is_repetitive(varied) and not is_repetitive("1")
    assert not legacy_equal(f"{repeated}+x", f"x+{repeated}")
    assert legacy_equal(f"{varied}+x", f"x+{varied}")


def test_the_legacy_grader_says_so():
    with closing(MathGrader("legacy", num_workers=1)) as grader:
        verdict = grader.grade(r"\boxed{\sqrt{12}}", r"2\sqrt3")
        assert (verdict.correct, verdict.reason, verdict.grader) == (True, "equal", "legacy")
        assert grader.grade(r"\boxed{5\%}", "5").correct  # a percent sign means nothing
        assert grader.grade(r"\boxed{1} and \boxed{2", "1").reason == "no answer"
        assert grader.settings()["versions"]["antlr4-python3-runtime"].startswith("4.11.")
