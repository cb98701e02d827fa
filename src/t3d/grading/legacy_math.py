"""The equality of answers in T3D's released code, for comparison with published numbers.

It strips both texts as the MATH data set's own grader does and compares numbers or texts; where that fails,
sympy's ``parse_latex`` reads them raw and after Minerva's normalisation (arXiv 2206.14858, page 18). Oddities
are kept: a percent sign means nothing, and what cannot be read is compared as text. Standard library only
until :func:`latex_equal` needs sympy, since the worker loads this file by its path.
"""

import re
from collections.abc import Iterable
from itertools import pairwise

NO_ANSWER = "Can not extract the answer!"
"""What the released code grades where there is no boxed answer."""
MAX_PLAIN_LENGTH = 128
"""Longer answers are compared by sympy only if they do not repeat themselves."""

Replacements = Iterable[tuple[str, str]]

_BEFORE_UNITS: Replacements = (
    *(("\n", ""), ("\\!", ""), ("\\\\", "\\"), ("tfrac", "frac"), ("dfrac", "frac")),
    *((text, "") for text in [r"\left", r"\right", r"^{\circ}", r"^\circ", r"\$", r"$", r","]),
)
_AFTER_UNITS: Replacements = (*2 * (("\\%", ""),), (" .", " 0."), ("{.", "{0."))  # percent twice, as there
_UNIT = "\\text{ "

_MINERVA_REPLACED: Replacements = (
    *(("an ", ""), ("a ", ""), (".$", "$"), ("\\$", ""), ("\\ ", ""), (" ", ""), ("mbox", "text")),
    *((",\\text{and}", ","), ("\\text{and}", ","), ("\\text{m}", "\\text{}")),
)
_MINERVA_WORDS = (
    "square ways integers dollars mph inches ft hours km units \\ldots sue points feet minutes digits cents "
    "degrees cm gm pounds meters meals edges students childrentickets multiples"
)
_MINERVA_REMOVED = (
    *_MINERVA_WORDS.split(),
    *("\\text{s}", "\\text{.}", "\\text{\ns}", "\\text{}^2", "\\text{}^3", "\\text{\n}", "\\text{}"),
    *[r"\mathrm{th}", r"^\circ", r"^{\circ}", r"\;", r",\!", r"{,}", r'"', r"\dots"],
)
_MINERVA_PATTERNS = (
    (r"(?:.*?)\$(.*?)\$(?:.*)", r"$\1$"),
    (r"\\text\{(.*?)\}", r"\1"),
    (r"\\textbf\{(.*?)\}", r"\1"),
    (r"\\overline\{(.*?)\}", r"\1"),
    (r"\\boxed\{(.*)\}", r"\1"),
    (r"frac([^{])(.)", r"frac{\1}{\2}"),
    (r"sqrt([^{])", r"sqrt{\1}"),
)


def legacy_equal(answer: str, gold: str) -> bool:
    """Whether the released code takes the answer for the gold answer (its time limit aside)."""
    if strings_equal(answer, gold):
        return True
    if any(len(text) > MAX_PLAIN_LENGTH and is_repetitive(text) for text in (answer, gold)):
        return False
    return latex_equal(answer, gold)


def strings_equal(answer: str, gold: str) -> bool:
    """Equality of the stripped texts, as numbers where both are; of the raw texts where stripping fails."""
    try:
        ours, theirs = strip_answer(answer), strip_answer(gold)
    except ValueError:
        return answer == gold
    try:
        return float(ours) == float(theirs)
    except ValueError:
        return ours == theirs


def strip_answer(text: str) -> str:
    """The MATH grader's normal form. Raises ValueError for two units or a command with nothing after it."""
    text = _replace(text, _BEFORE_UNITS)
    head, *units = text.split(_UNIT)
    if len(units) > 1:
        raise ValueError(f"more than one unit in {text!r}")
    text = _replace(head, _AFTER_UNITS)
    if text.startswith("."):
        text = "0" + text
    name, *values = text.split("=")
    if len(values) == 1 and len(name) <= 2:
        text = values[0]
    text = _brace_fractions(_brace_roots(text).replace(" ", ""))
    return _fraction_of_slash("\\frac{1}{2}" if text == "0.5" else text)


def _replace(text: str, replacements: Replacements) -> str:
    for before, after in replacements:
        text = text.replace(before, after)
    return text


def _brace_roots(text: str) -> str:
    """``\\sqrt3`` as ``\\sqrt{3}``."""
    head, *parts = text.split("\\sqrt")
    if "" in parts:
        raise ValueError(f"a root of nothing in {text!r}")
    return head + "".join(
        "\\sqrt" + (part if part[0] == "{" else f"{{{part[0]}}}{part[1:]}") for part in parts
    )


def _brace_fractions(text: str) -> str:
    """``\\frac12`` and ``\\frac1{72}`` with both braces; unchanged where a numerator stands alone."""
    head, *parts = text.split("\\frac")
    braced = [head]
    for part in parts:
        if not part:
            raise ValueError(f"a fraction of nothing in {text!r}")
        if part[0] == "{":
            braced.append(part)
        elif len(part) == 1:
            return text
        else:
            denominator = part[1:] if part[1] == "{" else f"{{{part[1]}}}{part[2:]}"
            braced.append(f"{{{part[0]}}}{denominator}")
    return "\\frac".join(braced)


def _fraction_of_slash(text: str) -> str:
    """``3/4`` as ``\\frac{3}{4}`` where both are plain whole numbers."""
    parts = text.split("/")
    if len(parts) != 2:
        return text
    try:
        above, below = int(parts[0]), int(parts[1])
    except ValueError:
        return text
    return f"\\frac{{{above}}}{{{below}}}" if text == f"{above}/{below}" else text


def is_repetitive(text: str) -> bool:
    """Whether neighbours among the sorted suffixes share over a fifth of all there is to share."""
    length = len(text)
    if length <= 1:
        return False
    suffixes = sorted(text[start:] for start in range(length))
    shared = sum(_common_prefix(one, two) for one, two in pairwise(suffixes))
    return 2 * shared / (length * (length + 1)) > 0.2


def _common_prefix(one: str, two: str) -> int:
    for index, (left, right) in enumerate(zip(one, two, strict=False)):
        if left != right:
            return index
    return min(len(one), len(two))


def minerva_normal_form(text: str) -> str:
    """Minerva's normalisation of a final answer."""
    text = _replace(text, _MINERVA_REPLACED)
    text = _replace(text, ((unit, "") for unit in _MINERVA_REMOVED))
    for pattern, replacement in _MINERVA_PATTERNS:
        text = re.sub(pattern, replacement, text)
    text = text.replace("$", "")
    without_commas = text.replace(",", "")
    return without_commas if without_commas.isdigit() else text


def latex_equal(answer: str, gold: str) -> bool:
    """Equality of what sympy reads, raw or normalised; of the normalised texts where it reads neither."""
    if _reads_equal(answer, gold):
        return True
    answer, gold = minerva_normal_form(answer), minerva_normal_form(gold)
    equal = _reads_equal(answer, gold)
    return answer == gold if equal is None else equal


def _reads_equal(answer: str, gold: str) -> bool | None:
    """Whether sympy reads the same expression or value in both; None if it cannot read one of them."""
    from sympy.parsing.latex import parse_latex  # noqa: PLC0415 - half a second, and only in the worker

    try:
        ours, theirs = parse_latex(answer), parse_latex(gold)
        return bool(ours == theirs or ours.evalf() == theirs.evalf())
    except ImportError:
        raise  # without the right parser runtime there is no legacy grade at all
    except Exception:  # whatever sympy raises on arbitrary text: the released code catches all of it
        return None
