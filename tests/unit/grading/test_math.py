"""How an answer is compared, and what becomes of it."""

import json
import os
from contextlib import closing
from pathlib import Path

import pytest

from t3d.errors import InputError
from t3d.grading import math as math_grading
from t3d.grading.boxed import last_closed_box
from t3d.grading.math import (
    MathGrader,
    clean_answer,
    exact_match,
    flexible_extract,
    gsm8k_gold,
    strict_match,
)

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
    ("answer", "cleaned"),
    [("$5$", "5"), ("\\$5", "\\$5"), ("10\\%", "10"), (" 18.\\\\ ", "18"), ("a\n b", "a b"), ("...", "")],
)
def test_cleaning_changes_no_value(answer, cleaned):
    assert clean_answer(answer) == cleaned


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
    if last_closed_box(boxed) is None:  # a brace is missing
        verdict_reason = grader._compare(answer, gold)
    else:
        verdict = grader.grade(boxed, gold)
        assert verdict.correct is (reason == "equal") and verdict.grader == "math_verify"
        assert verdict.extracted == answer.strip()
        verdict_reason = verdict.reason
    assert verdict_reason == reason


def test_no_answer_is_wrong_and_settings_name_the_grader():
    with closing(MathGrader(num_workers=1)) as grader:
        verdict = grader.grade("I give up: 18", "18")
        assert (verdict.correct, verdict.extracted, verdict.reason) == (False, None, "no answer")
        settings = grader.settings()
    assert settings["name"] == "math_verify" and "math-verify" in settings["versions"]


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
