r"""Where the boxed answer of a text is: the rules in use, side by side.

Of nested boxes all take the inner one.

| rule | whose | opens with | last box never closed | edges |
|---|---|---|---|---|
| ``last_opened_box`` | mini tasks, prompt files, data sources | ``\boxed{`` | None | stripped |
| ``last_opened_box_verbatim`` | the released code and grader ``legacy`` | ``\boxed{`` | None | kept |
| ``last_closed_box`` | grader ``math_verify`` | also ``\boxed {`` | the one before | stripped |
"""

import re

_OPENING = "\\boxed{"
_BRACES = re.compile(r"\\boxed\s*\{|[{}]")


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


def last_closed_box(text: str) -> str | None:
    """Content of the last ``\\boxed{...}`` whose braces are balanced, or None; of nested ones the inner."""
    open_braces: list[tuple[int, bool]] = []
    begin, end = -1, -1
    for brace in _BRACES.finditer(text):
        if brace.group() != "}":
            open_braces.append((brace.end(), brace.group() != "{"))
        elif open_braces:
            start, is_boxed = open_braces.pop()
            if is_boxed and start > begin:
                begin, end = start, brace.start()
    return None if begin < 0 else text[begin:end].strip()
