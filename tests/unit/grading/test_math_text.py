"""How the texts of answers are prepared for math-verify."""

import time

import pytest

from t3d.grading.math_text import aligned, contradict, plain


@pytest.mark.parametrize(
    ("text", "prepared"),
    [
        *[
            ("$5$", "5"),
            ("\\$5", "\\$5"),
            ("10\\%", "10"),
            (" 18.\\\\ ", "18"),
            ("a\n b", "a b"),
            ("...", ""),
        ],
        *[("€29", "29"), ("29 £", "29"), ("\\euro 29", "29"), ("-7", "-7"), ("\u22127", "-7")],
        *[("½", r"\frac{1}{2}"), ("3¾", r"3\frac{3}{4}"), ("⅐", r"\frac{1}{7}")],
        *[
            ("√2", r"\sqrt{2}"),
            ("4√(x+1)", r"4\sqrt{x+1}"),
            ("sqrt(3)/2", r"\sqrt{3}/2"),
            ("√{5}", r"\sqrt{5}"),
        ],
        *[("exp(f(x))+1", "e^{f(x)}+1"), (r"\exp(2)", r"\exp(2)"), ("sqrt(2", "sqrt(2")],
        *[
            ("2pi/3", r"2\pi /3"),
            (r"\pi", r"\pi"),
            ("pie", "pie"),
            ("sin(x)", r"\sin (x)"),
            ("tan", "tan"),
            ("log cabin", "log cabin"),
            ("log_2 n", r"\log _2 n"),
            ("arctan 2", r"\arctan 2"),
        ],
        *[
            ("2**10", "2^{10}"),
            ("2**-3", "2^{-3}"),
            ("2**(n+1)", "2^(n+1)"),
            ("x²", "x^{2}"),
            ("10⁻³", "10^{-3}"),
        ],
        *[(r"70\,000", "70000"), ("7 000 000", "7000000"), ("70~000", "70000"), ("70\u202f000", "70000")],
        *[("70 00", "70 00"), ("1234 567", "1234 567"), ("0.5 123", "0.5 123"), (r"70{,}000", r"70{,}000")],
        *[
            ("60°", r"60^\circ"),
            (r"\langle 1,2\rangle", "( 1,2)"),
            (r"\left\langle 1\right\rangle", r"\left( 1\right)"),
        ],
        *[
            (r"\text{$x=2$}", "x=2"),
            (r"\text{even}", r"\text{even}"),
            (r"\mathrm{e}", "e"),
            (r"5\mathrm{m}", r"5\mathrm{m}"),
        ],
        *[
            (r"\left\{ x=1 \right.", "x=1"),
            (r"\left\{1,2\right\}", r"\left\{1,2\right\}"),
            (r"\frac\pi2", r"\frac{\pi}2"),
        ],
    ],
)
def test_a_plain_text_has_the_same_value_and_is_latex(text, prepared):
    assert plain(text) == prepared
    assert plain(prepared) == prepared


@pytest.mark.parametrize(
    ("answer", "gold", "prepared"),
    [
        ("18 eggs", "18", "18"),
        ("18 dollars per day", "18", "18"),
        (r"\frac{1}{2} cup", "0.5", r"\frac{1}{2}"),
        ("18 eggs", "x", "18 eggs"),  # letters may be factors
        ("5 or 6", "5", "5 or 6"),
        ("5 million", "5", "5 million"),
        ("2 x", "2", "2 x"),
        ("2 thirds", "2", "2 thirds"),
        ("10 to the fourth power", "10", "10 to the fourth power"),
        ("2 pi", "2", r"2 \pi"),
        ("E: a risk", "E", "E"),
        ("(E) a risk", r"\text{(E)}", "E"),
        ("E: a risk", "e", "E: a risk"),
        ("Even", "E", "Even"),
    ],
)
def test_an_answer_takes_the_form_of_the_gold_answer(answer, gold, prepared):
    assert aligned(plain(answer), plain(gold))[0] == prepared


@pytest.mark.parametrize(
    ("relation", "intervals"),
    [
        (r"x\le 5", r"(-\infty,5]"),
        (r"5\geq x", r"(-\infty,5]"),
        ("x>-2", r"(-2,\infty)"),
        (r"0<x\leq 12.5", "(0,12.5]"),
        (r"12.5\ge x>0", "(0,12.5]"),
        (r"x<-1 \text{ or } x>3", r"(-\infty,-1)\cup(3,\infty)"),
        (r"-1<f(x)<1", "(-1,1)"),
    ],
)
def test_relations_are_intervals_beside_intervals_only(relation, intervals):
    other = r"(0,1)\cup(2,3)"
    assert aligned(relation, other) == (intervals, other)
    assert aligned(other, relation) == (other, intervals)
    assert aligned(relation, "y<1") == (relation, "y<1")


@pytest.mark.parametrize(
    "text", ["x<1 or y>3", "0<x>1", "x<", "x=1", "1<2", r"\{x : x<1\}", r"0<x<1<2", "x+1<2"]
)
def test_what_is_no_interval_of_one_variable_stays(text):
    assert aligned(text, "(0,1)")[0] == text


@pytest.mark.parametrize(
    ("answer", "gold", "contradictory"),
    [
        ("2516_7", "2516_8", True),
        ("2516_{7}", "2516_8", True),
        ("2516_{8}", "2516_8", False),
        ("2516", "2516_8", False),
        ("x_1", "x_2", False),
        (r"5\text{ inches}", r"5 \text{ cents}", True),
        ("5 cm", r"5\text{ m}", True),
        ("5 centimeters", r"5\mbox{ cm}", False),
        ("5 foot", r"5\text{ feet}", False),
        (r"5\text{ cm}", "5", False),
        (r"5\text{ apples}", r"5\text{ cm}", False),  # apples are no unit that we know
    ],
)
def test_units_and_bases_contradict_each_other(answer, gold, contradictory):
    assert contradict(plain(answer), plain(gold)) is contradictory
    assert contradict(plain(gold), plain(answer)) is contradictory


@pytest.mark.many_inputs
@pytest.mark.parametrize(
    "part",
    [
        *(
            "a",
            "a ",
            "1 ",
            "000 ",
            "sqrt(",
            "exp()",
            "√(",
            "\\text{",
            "$",
            "\\text{$",
            "<",
            "x<1 or ",
            "(,",
            "\\cup",
        ),
        *("\\\\", ". ", "1\\,000", "_", "E:", "½", "²", "\\left\\{"),
    ],
)
def test_long_answers_take_no_time(part):
    text = (part * 2000)[:2000]
    started = time.process_time()
    for one, other in ((text, "(0,1)"), (text, text), ("5", text)):
        contradict(plain(one), plain(other))
        aligned(plain(one), plain(other))
    assert time.process_time() - started < 2.0
