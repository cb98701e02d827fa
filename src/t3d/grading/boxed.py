r"""Where the boxed answer of a text is: the rules in use, side by side.

Of nested boxes all take the inner one.

| rule | whose | opens with | last box never closed | edges |
|---|---|---|---|---|
| ``last_opened_box`` | mini tasks, data sources, grader ``exact`` | ``\boxed{`` | None | stripped |
| ``last_opened_box_verbatim`` | the released code and grader ``legacy`` | ``\boxed{`` | None | kept |
| ``last_answer`` | grader ``math_verify`` | ``\boxed`` or ``\fbox`` | None | stripped |

``last_answer`` also reads boxes without braces, takes neighbouring boxes as one answer in parts, and passes
over an echo of the instruction.
"""

import re
from dataclasses import dataclass

_OPENING = "\\boxed{"
_TOKEN = re.compile(r"\\{1,2}(?:boxed|fbox)(?![A-Za-z])[ \t]*\n?[ \t]*(\{)?|\\.|[{}]", re.DOTALL)
_TO_END_OF_MATH = re.compile(r"([^$\n]{1,200}?)(?:\$|\\\)|\\\])")
_FIRST_TERM = re.compile(r"-?\d[\d,.]*(?:/\d+)?|-?\\[A-Za-z]+(?:\s*\{[^{}]{0,80}\}|\d)*|[A-Za-z](?![A-Za-z])")
_PLAIN_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_JOINT = re.compile(
    r"(?:\$|\\[()\[\],;:! ]|\\q?quad(?![A-Za-z])|\\text\s*\{\s*(?:and|or)\s*\}|\b(?:and|or)\b|[,;&\s*]"
    r"|[A-Za-z](?:_\{?\w\}?)?\s*=){1,40}"
)
_SEPARATOR = re.compile(r"(?<!\\)[,;&]|\b(?:and|or)\b")
_ECHO = re.compile(r"\b(?:within|inside|into|in|using|with)\s*[$`*(\\]*\Z")
MAX_JOINT = 60
"""Longest text between two boxes of one answer, in characters."""


def last_opened_box(text: str) -> str | None:
    """Content of the last ``\\boxed{`` without white space around it; None if it is never closed."""
    content = last_opened_box_verbatim(text)
    return None if content is None else content.strip()


def last_opened_box_verbatim(text: str) -> str | None:
    """The released code's extraction: content of the last ``\\boxed{``, None if that is never closed."""
    _, boxed, rest = text.rpartition(_OPENING)
    depth = 1
    for brace in re.finditer(r"[{}]", rest if boxed else ""):
        depth += 1 if brace.group() == "{" else -1
        if depth == 0:
            return rest[: brace.start()]
    return None


@dataclass(frozen=True, slots=True)
class Box:
    """A box: where it begins and ends in the text, and its content; ``end`` is None if it is never closed."""

    start: int
    end: int | None
    content: str


def last_answer(text: str) -> str | None:
    """The answer in the last box of a text, or None where there is none or it is never closed.

    Boxes with nothing but ``and``, ``or``, a comma or ``x =`` between them are parts of one answer, which are
    put together with commas. An empty box that follows ``within`` or ``in`` only repeats the instruction.
    """
    boxes = [
        box
        for box in boxes_of(text)
        if box.content or not _ECHO.search(text, max(0, box.start - 20), box.start)
    ]
    if not boxes or boxes[-1].end is None:
        return None
    first = len(boxes) - 1
    while first > 0 and _are_parts(text, boxes[first - 1], boxes[first]):
        first -= 1
    return ", ".join(dict.fromkeys(box.content for box in boxes[first:]))


def _are_parts(text: str, box: Box, following: Box) -> bool:
    if box.end is None or not box.end <= following.start <= box.end + MAX_JOINT:
        return False
    between = text[box.end : following.start]
    return bool(_JOINT.fullmatch(between) and _SEPARATOR.search(between))


def boxes_of(text: str) -> list[Box]:
    """All boxes in the order in which they begin, unless a box of that text cannot be told from its words."""
    boxes: list[Box] = []
    open_braces: list[tuple[int, int | None]] = []  # where the content begins, and the box if it is one
    for token in _TOKEN.finditer(text):
        if token[1] or token[0] == "{":
            open_braces.append((token.end(), token.start() if token[1] else None))
        elif token[0] == "}":
            if open_braces:
                begin, start = open_braces.pop()
                if start is not None:
                    boxes.append(Box(start, token.end(), text[begin : token.start()].strip()))
        elif token[0].rstrip().endswith("box") or token[0].rstrip().endswith("boxed"):
            boxes += _without_braces(text, token)
    boxes += [Box(start, None, "") for _, start in open_braces if start is not None]
    return sorted(boxes, key=lambda box: box.start)


def _without_braces(text: str, command: re.Match[str]) -> list[Box]:
    """The box of ``\\boxed 2`` or ``\\boxed\\frac12``, up to the end of the formula, else its first term."""
    content = _TO_END_OF_MATH.match(text, command.end())
    if content is None or _PLAIN_WORD.search(content[1]):
        content = _FIRST_TERM.match(text, command.end())
    if content is None:
        return []
    answer = content[content.lastindex or 0]
    return [Box(command.start(), command.end() + len(answer), answer.strip().rstrip(".,"))]
