"""Equations in a text that can be checked by arithmetic alone: ``3 * 4 + 1 = 13``."""

import re
from fractions import Fraction

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+"
_TIMES, _BY = "*x\u00d7\u00b7", "/\u00f7"
_OPERATORS = f"+{_TIMES}{_BY}\u2212-"
"""In a class of characters; the signs of typography for times, divided by and minus among them."""
_NUMBER = rf"[$€£]?[ ]?(?:{_DIGITS})"
_EQUATION = re.compile(
    rf"(?<![\w.,)%])(?P<first>(?:-(?=[$\d.]))?{_NUMBER})"
    rf"(?P<rest>(?:[ ]?[{_OPERATORS}][ ]?{_NUMBER})+)[ ]?=[ ]?(?P<result>-?{_NUMBER})"
    rf"(?![\d%^]|[.,]\d|[ ]?[({_OPERATORS}][ ]?[$€£]?[\d(])"
)
_TERM = re.compile(rf"[ ]?([{_OPERATORS}])[ ]?({_NUMBER})")
_GOES_BEFORE = re.compile(rf"(?:[\w)%][ ]*[\^{_OPERATORS}]|[)%])[ ]*\Z")
_OPERAND_BEFORE = re.compile(r"[\w)%][ ]*\Z")
"""What says that an expression began further left, where a bracket or a word stands in it; the second before
a minus."""


def equations_right(text: str) -> tuple[int, int]:
    """How many equations of a text hold, and how many there are: numbers with operators between them, ``=``,
    a number.

    ``*``, ``x`` and ``/`` come before ``+`` and ``-``; dollar signs and commas in thousands are passed
    over. A result with decimals holds if it is the value rounded to them. What cannot be told is not counted:
    brackets, percents, units between the numbers, a result that goes on (``2 + 3 = 5 + 1``).
    """
    verdicts = [_holds(found) for found in _EQUATION.finditer(text) if _is_whole(text, found)]
    return sum(verdicts), len(verdicts)


def _is_whole(text: str, found: re.Match[str]) -> bool:
    before = text[text.rfind("\n", 0, found.start()) + 1 : found.start()]
    outside = _OPERAND_BEFORE if found["first"].startswith("-") else _GOES_BEFORE
    return outside.search(before) is None


def _holds(found: re.Match[str]) -> bool:
    terms = [_number(found["first"])]
    for operator, digits in _TERM.findall(found["rest"]):
        number = _number(digits)
        if operator in _TIMES:
            terms[-1] *= number
        elif operator in _BY:
            if not number:
                return False
            terms[-1] /= number
        else:
            terms.append(number if operator == "+" else -number)
    difference = abs(sum(terms, Fraction()) - _number(found["result"]))
    decimals = len(found["result"].partition(".")[2])
    return difference == 0 or (decimals > 0 and difference <= Fraction(1, 2 * 10**decimals))


def _number(text: str) -> Fraction:
    return Fraction(re.sub(r"[$€£, ]", "", text))
