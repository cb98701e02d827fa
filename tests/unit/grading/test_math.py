"""How an answer is compared, and what becomes of it."""

import json
import os
from contextlib import closing
from pathlib import Path

import pytest

from t3d.errors import InputError
from t3d.grading import math as math_grading
from t3d.grading.boxed import last_answer
from t3d.grading.math import (
    MathGrader,
    exact_match,
    flexible_extract,
    gsm8k_gold,
    strict_match,
)
from t3d.grading.math_text import plain

GSM8K = Path(os.environ.get("T3D_DATA", ""), "gsm8k", "test.jsonl")


@pytest.fixture(scope="module")
def grader():
    with closing(MathGrader(num_workers=1)) as grader:
        yield grader


@pytest.mark.parametrize(
    ("text", "strict", "flexible"),
    [
        ("She has 5 left.\n#### 18", "18", "18"),
        ("#### 1,080 or #### 7, maybe 9", "1,080", "9"),
        ("The answer is $18.50.", None, "$18.50."),
        ("#### $18", None, "$18"),  # strict-match takes no currency
        ("from -3 to - 4", None, "4"),
        ("####5", None, "5"),
        (r"\boxed{-7}", None, "-7"),
        ("none", None, None),
    ],
)
def test_strict_and_flexible_extraction_of_lm_eval(text, strict, flexible):
    assert strict_match(text) == strict
    assert flexible_extract(text) == flexible


@pytest.mark.parametrize(
    "text", ["\\boxed{" * 200_000, "\\boxed{}" * 100_000, "{" * 10**6, "}" * 10**6, "1" * 10**6]
)
def test_flexible_extraction_is_linear_in_the_length(text):
    flexible_extract(text)


@pytest.mark.parametrize(
    ("extracted", "gold", "equal"),
    [
        ("1,080", "1080", True),
        ("$18.50.", "18.50", True),
        ("18.", "18", True),
        ("18.0", "18", False),  # a comparison of texts
        (None, "18", False),
        ("18", "She has 20.\n#### 18", True),
    ],
)
def test_exact_match_compares_texts(extracted, gold, equal):
    assert exact_match(extracted, gold) is equal


def test_the_gold_answer_stands_after_the_last_hashes():
    assert gsm8k_gold("2+2 = <<2+2=4>>4\n#### 1,234") == "1234"
    assert gsm8k_gold("65,960") == "65960"


@pytest.mark.parametrize(
    ("answer", "gold", "reason"),
    [
        (r"\$65{,}960.00", "65960", "equal"),
        (r"\frac{2}{4}", "0.5", "equal"),
        (r"\sqrt{12}", r"2\sqrt{3}", "equal"),
        ("1 + x", "x+1", "equal"),
        ("x = 5", "5", "equal"),
        ("(1, 2)", "(1,2)", "equal"),
        (r"18\text{ dollars}", "18", "equal"),
        ("10\\%", "10", "equal"),
        ("18.", "18", "equal"),
        (r"\text{Evelyn}", r"\text{Evelyn}", "equal"),
        (r"\frac{", r"\frac{", "equal"),  # unreadable, but the same text
        ("19", "18", "different"),
        ("-18", "18", "different"),
        ("5 or 6", "5", "different"),
        (r"\text{west}", r"\text{east}", "different"),
        (r"\frac{1}{", "1", "unparsed"),
        ("", "1", "unparsed"),
        ("7" * 3000, "7", "unparsed"),
    ],
)
def test_values_are_compared_not_texts(grader, answer, gold, reason):
    boxed = r"\boxed{" + answer + "}"
    if last_answer(boxed) is None:  # a brace is missing
        verdict_reason = grader._compare(answer, gold)
    else:
        verdict = grader.grade(boxed, gold)
        assert verdict.correct is (reason == "equal") and verdict.grader == "math_verify"
        assert verdict.extracted == answer.strip()
        verdict_reason = verdict.reason
    assert verdict_reason == reason


EQUAL = [
    # numbers as people write them
    *[("18 eggs", "18"), ("18 dollars", "18"), (r"18\text{ dollars per day}", "18"), ("35 cm", "35")],
    *[(r"70\,000", "70000"), ("70 000", "70000"), (r"70{,}000", "70000"), ("1234567", "1,234,567")],
    *[("€29", "29"), ("£1,200.00", "1200"), ("004", "4"), ("18.0", "18"), (r"15\%", "15"), ("\u22127", "-7")],
    *[("60°", r"60^\circ"), ("60 degrees", "60"), (r"6 \times 10^3", "6000"), ("6\u00d710³", "6000")],
    # fractions, roots, powers
    *[
        ("½", r"\frac12"),
        ("1½", r"\frac32"),
        (r"1\frac{1}{2}", r"\frac{3}{2}"),
        (r"\tfrac97", r"\frac{9}{7}"),
    ],
    *[("4√2", r"4\sqrt{2}"), ("sqrt(8)", r"2\sqrt2"), ("2**10", "1024"), ("exp(16) - 1", "e^{16}-1")],
    *[
        ("pi/2", r"\dfrac{\pi}{2}"),
        ("-2*pi", r"-2\pi"),
        (r"1-e^{-1}", r"1-\frac{1}{\mathrm{e}}"),
        ("π", r"\pi"),
    ],
    # intervals and equations
    *[
        ("0<x<12.5", "(0,12.5)"),
        ("(0,12.5)", "0<x<12.5"),
        (r"x\le 5", r"(-\infty,5]"),
        (r"x\in(0,1)", "(0,1)"),
    ],
    *[(r"x<-1 \text{ or } x>3", r"(-\infty,-1)\cup(3,\infty)"), ("5", "x=5"), ("f(x)=2x+3", "2x+3")],
    *[(r"y=-\frac12x+\frac34", "2x+4y-3=0"), (r"\left\{ x=1 \right.", "x=1"), (r"\text{$x=2$}", "2")],
    # sets, tuples, matrices, words
    *[("1,2,3", r"\{1,2,3\}"), ("1728,1331", "1331, 1728"), (r"1331\text{ and }1728", "1331, 1728")],
    *[
        (r"\langle 1,2\rangle", "(1,2)"),
        ("(1,2),(3,4)", "(3,4),(1,2)"),
        (r"\left(1,\frac12\right)", "(1,0.5)"),
    ],
    *[("E: a risk score", "E"), (r"\text{E}", "E"), ("Evelyn", r"\text{Evelyn}"), ("2516", "2516_8")],
    # however small
    *[("2^{-99}", r"\frac{1}{2^{99}}"), (r"\frac{6}{3\cdot 10^{20}}", r"\frac{2}{10^{20}}")],
    *[
        ("9^{9^{9^9}}", "9^{9^{9^{9}}}"),
        (r"1-2^{-99}", r"1-\frac{1}{2^{99}}"),
        (r"\frac{1}{2004!}", r"\frac{2005}{2005!}"),
    ],
]
DIFFERENT = [
    *[
        (r"\frac{1}{2006!}", r"\frac{1}{2004!}"),
        (r"\frac{1}{3\cdot 2^{2006}}", r"\frac{2^{2005}+1}{3\cdot 2^{2006}}"),
    ],
    *[
        ("10^{-20}", "10^{-21}"),
        (r"1-\frac{1}{2^{99}}", "1"),
        ("0.3333333", r"\frac13"),
        ("1.414214", r"\sqrt2"),
    ],
    *[("2516_7", "2516_8"), ("2517_8", "2516_8"), (r"5.4\text{ inches}", r"5.4\text{ cents}")],
    *[("5 or 6", "5"), ("5 million", "5"), ("2 dozen", "2"), ("2 x", "2"), ("0.15", r"15\%"), ("two", "2")],
    *[
        ("1728", "1331, 1728"),
        ("1331,1728,2197", "1331, 1728"),
        (r"\{1,2\}", r"\{1,2,3\}"),
        ("(3,1,2)", "(1,2,3)"),
    ],
    *[
        ("[0,12.5]", "(0,12.5)"),
        ("x<5", r"(-\infty,5]"),
        ("x<5", "y<5"),
        ("a=5", "b=5"),
        (r"3\cdot 4=13", "12"),
    ],
    *[(r"\frac{\pi}{3}", r"60^\circ"), (r"4\sqrt(2)", "4"), (r"\Theta(n)", "O(n)"), ("D: a risk", "E")],
    *[(r"\frac{1}{2^{21}}", r"\frac{1}{2^{20}}"), (r"6.7 \times 10^{-7}", r"3.2 \times 10^{-7}")],
    *[
        ("1000000000000000001", "1000000000000000000"),
        (r"3\operatorname{lcm}(a,b)", r"2\operatorname{lcm}(a,b)"),
    ],
]


@pytest.mark.parametrize(("answer", "gold"), EQUAL)
def test_an_answer_is_right_however_it_is_written(grader, answer, gold):
    verdict = grader.grade(rf"So the result is $\boxed{{{answer}}}$.", gold)
    assert (verdict.reason, verdict.extracted) == ("equal", answer)


@pytest.mark.parametrize(("answer", "gold"), DIFFERENT)
def test_an_answer_of_another_value_is_wrong(grader, answer, gold):
    assert not grader.grade(rf"So the result is $\boxed{{{answer}}}$.", gold).correct


@pytest.mark.parametrize(
    ("response", "gold", "correct"),
    [
        (r"$\boxed 2$", "2", True),
        (r"$\boxed\frac12$", "0.5", True),
        (r"\fbox{2}", "2", True),
        (r"The roots are $\boxed{-2}$ and $\boxed{1}$.", "-2, 1", True),
        (r"The roots are $\boxed{-2}$ and $\boxed{1}$.", "1", False),
        (r"I get \boxed{5}. No, \boxed{6}.", "5", False),
        (r"I get \boxed{5}. Wait, it is \boxed{6", "5", False),
        (r"It is \boxed{5}. (I put my final answer within \boxed{} as asked.)", "5", True),
        (r"I get \boxed{5}. Final: \boxed{}", "5", False),
        ("The order costs $29.00.", "29", False),
    ],
)
def test_the_answer_is_what_the_last_boxes_say(grader, response, gold, correct):
    assert grader.grade(response, gold).correct is correct


def test_golds_of_every_form_equal_themselves_and_no_other(grader):
    golds = [gold for _, gold in EQUAL]
    names = {plain(gold): gold for gold in golds}
    for gold in names.values():
        assert grader.grade(rf"\boxed{{{gold}}}", gold).reason == "equal"
    values = [
        r"\frac{1}{2}",
        r"\sqrt{3}",
        r"\pi",
        "(1,2)",
        r"\{1,2\}",
        r"(-\infty,5]",
        "x^2+1",
        "y=2x+1",
        r"\text{even}",
    ]
    for gold in values:
        others = [other for other in values if other != gold and {gold, other} != {"(1,2)", r"\{1,2\}"}]
        assert [other for other in others if grader.grade(rf"\boxed{{{gold}}}", other).correct] == []


def test_a_root_of_a_quotient_of_names_is_not_split(grader):
    """``\\sqrt{1/n}`` is ``1/\\sqrt n`` for positive n only, and math-verify supposes nothing."""
    assert not grader.grade(r"\boxed{\sqrt{1/n}}", r"\frac{1}{\sqrt n}").correct


def test_no_answer_is_wrong_and_settings_name_the_grader():
    with closing(MathGrader(num_workers=1)) as grader:
        verdict = grader.grade("I give up: 18", "18")
        assert (verdict.correct, verdict.extracted, verdict.reason) == (False, None, "no answer")
        settings = grader.settings()
    assert settings["name"] == "math_verify" and "math-verify" in settings["versions"]
    assert settings["texts"] == 2


@pytest.mark.parametrize(
    ("missing", "found", "problem"),
    [
        ("math-verify", None, r"grader='math_verify': needs math-verify, .* pip install 't3d\[eval\]'"),
        (None, "4.13.2", r"grader='legacy': .* needs antlr4-python3-runtime 4\.11, found 4\.13\.2.*==4\.11"),
    ],
)
def test_a_grader_without_its_packages_refuses_to_start(monkeypatch, missing, found, problem):
    real = math_grading.version

    def fake(package):
        if package == missing:
            raise math_grading.PackageNotFoundError(package)
        return found if found and package == "antlr4-python3-runtime" else real(package)

    monkeypatch.setattr(math_grading, "version", fake)
    with pytest.raises(InputError, match=problem):
        MathGrader("legacy" if found else "math_verify")


@pytest.mark.skipif(not GSM8K.is_file(), reason="set T3D_DATA to the folder of the data sets")
def test_every_gsm8k_gold_answer_equals_itself_and_not_the_next_ones(grader):
    """1,319 golds, written another way (thousands separators, dollars, decimals), so texts do not decide."""
    rows = [json.loads(line) for line in GSM8K.read_text(encoding="utf-8").splitlines()]
    golds = [gsm8k_gold(row["answer"]) for row in rows]
    assert len(golds) == 1319
    assert all(exact_match(strict_match(row["answer"]), gold) for row, gold in zip(rows, golds, strict=True))
    for gold, following in zip(golds, [*golds[1:], golds[0]], strict=True):
        assert grader.grade(rf"\boxed{{{gold}}}", gold).correct
        assert grader.grade(rf"\boxed{{\${float(gold):,.2f}}}", gold).correct
        if following != gold:
            assert grader.grade(rf"\boxed{{{gold}}}", following).reason == "different"
