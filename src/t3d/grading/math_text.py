r"""Prepare the texts of two answers for math-verify, which compares their values.

What it would stumble over is written as the LaTeX that it reads: characters, plain words for functions,
units, thousands, relations beside intervals. Nothing here computes a value. Texts have at most a few thousand
characters.
"""

import re
import unicodedata
from collections.abc import Iterable

Replacements = Iterable[tuple[str, str]]
"""Patterns in their order, and what stands in place of a match."""

_CHARACTERS: dict[str, str] = {
    "π": r"\pi ",
    "∞": r"\infty ",
    "\u00d7": r"\times ",
    "·": r"\cdot ",
    "÷": r"\div ",
    "≤": r"\le ",
    "≥": r"\ge ",
    "≠": r"\ne ",
    "\u222a": r"\cup ",
    "∩": r"\cap ",
    "∈": r"\in ",
    "±": r"\pm ",
    "°": r"^\circ ",
    "⟨": "(",
    "⟩": ")",
    "\u2212": "-",
    "\u2009": r"\,",
    "\u202f": r"\,",
    "\u00a0": " ",
} | dict.fromkeys("€£¥₹₩₽¢", "")
_SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"
_ON_THE_LINE = str.maketrans(_SUPERSCRIPTS, "0123456789-")

_FORMS: Replacements = (
    (r"\\text\{([^{}]*\$[^{}]*)\}", r"\1"),  # a formula in a text
    (r"(?<!\\)\$|\\?%", ""),
    (r"√\s*(\d+(?:\.\d+)?|[A-Za-z])", r"\\sqrt{\1}"),
    (r"√\s*\{", r"\\sqrt{"),
    (r"(?<![\\A-Za-z])(pi)(?![A-Za-z])", r"\\\1 "),
    # with an argument, since tan is also a colour
    (r"(?<![\\A-Za-z])((?:arc)?(?:sin|cos|tan)|ln|log)(?=\s*(?:[\d({^_\\]|[A-Za-z]\b))", r"\\\1 "),
    (r"(\\[dt]?frac)\s*\\pi\s*", r"\1{\\pi}"),
    (r"\*\*\s*(-?\d+|[A-Za-z])", r"^{\1}"),
    (r"\*\*", "^"),
    (r"\\math(?:rm|it)\{([ei]|\\pi)\}", r"\1"),
    (r"\\langle(?![A-Za-z])", "("),
    (r"\\rangle(?![A-Za-z])", ")"),
    (r"\\(?:euro|pounds)(?![A-Za-z])", ""),
)
_CALLS: Replacements = (
    (r"(?:(?<![\\A-Za-z])sqrt|√)\s*\(", r"\sqrt"),
    (r"(?<![\\A-Za-z])exp\s*\(", "e^"),
)
"""Functions called by plain words, and what stands before the argument in braces."""

_GROUPED = re.compile(r"(?<![\d.,])\d{1,3}(?:(?:\\[,;:! ]|~| )\d{3})+(?![\d]|[.,]\d{3})")
_ONE_SIDED_BRACE = re.compile(r"\\left\s*\\\{(.*)\\right\s*\.")
_EDGE = re.compile(r"(?:\s|\\\\|\.)+\Z")


def plain(text: str) -> str:
    """An answer as LaTeX that math-verify reads, of the same value.

    Dollar and percent signs go (10 % is 10, as for the MATH data set's own grader), and so do currencies,
    line breaks, full stops or LaTeX line breaks at the end, and a brace on one side only.
    """
    text = "".join(map(_fraction_of, text)).translate(str.maketrans(_CHARACTERS))
    text = re.sub(f"[{_SUPERSCRIPTS}]+", lambda found: "^{" + found[0].translate(_ON_THE_LINE) + "}", text)
    for pattern, replacement in _FORMS:
        text = re.sub(pattern, replacement, text)
    for pattern, command in _CALLS:
        text = _with_braces(text, re.compile(pattern), command)
    text = _GROUPED.sub(lambda found: re.sub(r"\D", "", found[0]), " ".join(text.split()))
    brace = _ONE_SIDED_BRACE.fullmatch(text)
    return _EDGE.sub("", text if brace is None else brace[1]).strip()


def _fraction_of(character: str) -> str:
    numerator, slash, denominator = unicodedata.normalize("NFKC", character).partition("\u2044")
    is_fraction = slash and numerator and denominator
    return f"\\frac{{{numerator}}}{{{denominator}}}" if is_fraction else character


def _with_braces(text: str, call: re.Pattern[str], command: str) -> str:
    """``sqrt(x)`` as ``\\sqrt{x}``, up to the parenthesis that closes it."""
    while found := call.search(text):
        depth = 1
        for end in range(found.end(), len(text)):
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            if depth == 0:
                break
        else:
            return text
        text = f"{text[: found.start()]}{command}{{{text[found.end() : end]}}}{text[end + 1 :]}"
    return text


def aligned(answer: str, gold: str) -> tuple[str, str]:
    """Two plain texts, each in the form of the other."""
    answer = letter_of(answer, gold)
    answer, gold = without_words(answer, gold), without_words(gold, answer)
    return as_intervals(answer, gold), as_intervals(gold, answer)


# ---- choices ----

_LETTER = re.compile(r"(?:\\text(?:bf)?\{)?\(?([A-Z])\)?\}?")
_LABELLED = re.compile(r"(?:\\text(?:bf)?\{)?\(?([A-Z])\)?\}?\s*[:.)]\s*\S")


def letter_of(answer: str, gold: str) -> str:
    """``E`` of ``E: a risk score`` where the gold answer is a letter."""
    labelled = _LABELLED.match(answer) if _LETTER.fullmatch(gold) else None
    return answer if labelled is None else labelled[1]


# ---- units ----

_WORDS = re.compile(r"(?<=[\d})])\s+([A-Za-z]{2,}(?:\s+[A-Za-z]{2,}){0,3})\Z")
_UNIT = re.compile(r"(?:\\text|\\mathrm|\\mbox)\s*\{\s*([A-Za-z ]+?)\s*\}\Z")
_NO_UNITS = (
    "and or percent percentage pct pi inf infinity times plus minus mod to over power squared cubed factorial"
    " hundred hundreds thousand thousands million millions billion billions trillion trillions dozen dozens"
    " half halves third thirds quarter quarters fourth fourths fifth fifths sixth sixths eighth eighths"
    " tenth tenths"
)
_UNIT_NAMES = (
    *(
        "mm millimeter",
        "cm centimeter",
        "m meter",
        "km kilometer",
        "in inch inches",
        "ft foot feet",
        "yd yard",
    ),
    *(
        "mi mile",
        "s sec second",
        "min minute",
        "h hr hour",
        "day",
        "week",
        "month",
        "yr year",
        "cent",
        "dollar",
    ),
    *("g gram", "kg kilogram", "lb pound", "oz ounce", "degree"),
)
"""Units that exclude each other, each with its names; a final s may follow."""
_CANONICAL = {
    name + ending: names.split()[0] for names in _UNIT_NAMES for name in names.split() for ending in ("", "s")
}


def without_words(text: str, other: str) -> str:
    """A text without plain words behind its number, unless they are part of it or the other has letters too.

    ``18 eggs`` is 18, as ``18\\text{ eggs}`` is to math-verify, to which the letters would be factors.
    """
    words = _WORDS.search(text)
    letters = re.search("[A-Za-z]", re.sub(r"\\text\s*\{[^{}]*\}|\\[A-Za-z]+", "", other))
    if words is None or letters or set(_NO_UNITS.split()) & set(words[1].lower().split()):
        return text
    return text[: words.start()]


def unit_of(text: str) -> str | None:
    """The unit of a plain text, if it is one that we know: its first name."""
    found = _UNIT.search(text) or _WORDS.search(text)
    return None if found is None else _CANONICAL.get(found[1].lower())


# ---- bases ----

_IN_BASE = re.compile(r"\d[0-9A-Za-z]*_\{?(?:\\text\{)?(\d+)\}*")


def contradict(answer: str, gold: str) -> bool:
    """Whether plain texts name different units, or different bases of a number, which math-verify ignores."""
    units = (unit_of(answer), unit_of(gold))
    bases = [found[1] for text in (answer, gold) if (found := _IN_BASE.fullmatch(text))]
    return (None not in units and units[0] != units[1]) or (len(bases) == 2 and bases[0] != bases[1])


# ---- intervals ----

_INTERVAL = re.compile(r"(?:\\left)?\s*[\[(].*,.*[\])]|.*\\cup.*")
_OR = re.compile(r"\s*(?:\\text\{\s*or\s*\}|\bor\b|\\lor|\\vee)\s*")
_RELATION = re.compile(r"\\(?:[lg]eq?(?:slant)?|[lg]t)(?![A-Za-z])|[<>]=?")
_VARIABLE = re.compile(r"[A-Za-z](?:\([A-Za-z]\))?|\\(?!infty|pi)[a-z]+")


def as_intervals(text: str, other: str) -> str:
    """Relations of one variable as a union of intervals, where the other text is intervals.

    ``x<-1 or x>3`` is ``(-\\infty,-1)\\cup(3,\\infty)``.
    """
    if not _INTERVAL.fullmatch(other) or _INTERVAL.fullmatch(text):
        return text
    parts = [_interval_of(part) for part in _OR.split(text)]
    intervals = [part[1] for part in parts if part is not None]
    is_about_one = len({part[0] for part in parts if part is not None}) == 1
    return "\\cup".join(intervals) if len(intervals) == len(parts) and is_about_one else text


def _interval_of(relation: str) -> tuple[str, str] | None:
    """Variable and interval of ``x<a``, ``a<x`` or ``a<x<b``; None of anything else."""
    sides = [side.strip() for side in _RELATION.split(relation)]
    signs = [_sign_of(sign) for sign in _RELATION.findall(relation)]
    if signs and all(sign in (">", ">=") for sign in signs):
        sides, signs = sides[::-1], [sign.replace(">", "<") for sign in signs[::-1]]
    if not signs or not all(sides) or not all(sign in ("<", "<=") for sign in signs):
        return None
    if len(sides) == 2:  # x < a, or a < x
        is_left = _VARIABLE.fullmatch(sides[0]) is not None
        sides, signs = (
            (["-\\infty", *sides], ["<", *signs]) if is_left else ([*sides, "\\infty"], [*signs, "<"])
        )
    if len(sides) != 3 or not _VARIABLE.fullmatch(sides[1]):
        return None
    opening, closing = "[" if signs[0] == "<=" else "(", "]" if signs[1] == "<=" else ")"
    return sides[1], f"{opening}{sides[0]},{sides[2]}{closing}"


def _sign_of(sign: str) -> str:
    """``<``, ``<=``, ``>`` or ``>=``, however it is written."""
    name = sign.lstrip("\\")
    return ("<" if name[0] in "l<" else ">") + ("=" if name[1:2] in ("e", "=") else "")
