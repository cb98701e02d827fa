r"""Where the program of a response is: the rules in use, side by side.

| rule | prompt styles | the program | fence never closed |
|---|---|---|---|
| ``opencompass`` | ``sdar``, ``plain`` | first fenced block of any language, else the text | to the end |
| ``dllm_rl`` | ``released``, ``paper`` | last ```` ```python ```` block | none |

Sources: OpenCompass's ``humaneval_postprocess_v2`` and ``MBPPEvaluator``; dLLM-RL's ``extract_code``. Fences
of ``opencompass`` are Markdown's: a pair within a line, or a fence that stands deeper, closes nothing, and a
fence may be indented with its block or name its language in any way. OpenCompass itself reads neither these
nor an unclosed one.
"""

import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import Literal

CodeRule = Literal["opencompass", "dllm_rl"]

MAX_CLOSING_INDENT = 3
"""Columns that a closing fence may stand deeper than its opening one, as in Markdown."""
_FENCE = re.compile("`{3,}")
_PYTHON_BLOCK = re.compile(r"```python(.*?)```", re.DOTALL)
_STATEMENT = re.compile(
    r"^[ \t]*(?:(?:async )?def \w|class \w|import \w|from [\w.]+ import\b|return\b|\w+[ \t]*=[^=])",
    re.MULTILINE,
)
"""Without a line like that a text is no program that could pass tests."""
_DEFINITION = re.compile(r"^(?:async )?def ", re.MULTILINE)
_RETURN = re.compile(r"^return\b", re.MULTILINE)


@dataclass(frozen=True, kw_only=True, slots=True)
class FencedBlock:
    """A fenced block: its language in small letters, the text before it, and the code, without the fence's
    own indentation."""

    language: str
    before: str
    code: str
    is_closed: bool


def find_program(response: str, rule: CodeRule, *, prefix: str, is_completion: bool) -> str | None:
    """The program of a response, or None.

    ``prefix`` is how the released prompts begin the answer, which ``dllm_rl`` reads. ``is_completion``: the
    question is the beginning of a function; otherwise it may ask for ``[BEGIN]`` and ``[DONE]``.
    """
    if rule == "dllm_rl":
        return last_python_block(response, prefix)
    code = first_program(response) if is_completion else marked_program(response)
    return None if code is None else _outdented(code)


def first_program(text: str) -> str | None:
    """The first fenced block, else the text; None where there is no program."""
    blocks = fenced_blocks(text)
    return _program_of(text, blocks[0] if blocks else None)


def marked_program(text: str) -> str | None:
    """What stands between ``[BEGIN]`` and ``[DONE]``, else the first block in Python, else the first one,
    else the text; None where there is no program."""
    _, begin, marked = text.partition("[BEGIN]")
    blocks = fenced_blocks(text)
    if begin and ("[DONE]" in marked or not blocks):
        return first_program(marked.partition("[DONE]")[0])
    in_python = [block for block in blocks if block.language == "python"]
    return _program_of(text, next(iter([*in_python, *blocks]), None))


def _program_of(text: str, block: FencedBlock | None) -> str | None:
    if block is None:
        return _without_empty_edges(text) if _STATEMENT.search(text) else None
    if not block.is_closed and not block.language and _STATEMENT.search(block.before):
        return _without_empty_edges(block.before)  # the fence closes what the prompt has opened
    return _without_empty_edges(block.code)


def _without_empty_edges(code: str) -> str | None:
    return re.sub(r"\A(?:[^\S\n]*\n)+", "", code).rstrip() or None


def _outdented(code: str) -> str:
    """An indented program at the margin; a function's body, which goes on with the question, as it is."""
    outdented = "\n".join(_without_indent(code.split("\n"), _indent_of(code)))
    is_body = _RETURN.search(outdented) or not _DEFINITION.search(outdented)
    return code if is_body else outdented


def fenced_blocks(text: str) -> list[FencedBlock]:
    """All fenced blocks in their order; the last one reaches to the end of the text where nothing closes it.

    A line with an odd number of fences opens a block, or closes it. Shorter fences than the opening one, and
    those that Markdown finds too deep, close only where no other line does.
    """
    lines = text.split("\n")
    fences = {index: found for index, line in enumerate(lines) if len(found := _FENCE.findall(line)) % 2 == 1}
    odd = list(fences)
    closings: dict[tuple[int, int], list[int]] = {}
    for position, (index, found) in enumerate(fences.items()):
        closings.setdefault(_closing(lines[index], found[0]), []).append(position)
    blocks: list[FencedBlock] = []
    start = position = 0
    while position < len(odd):
        begin = odd[position]
        deepest = len(_indent_of(lines[begin])) + MAX_CLOSING_INDENT
        closing = _closing_position(closings, position, deepest, len(fences[begin][-1]))
        if closing is None and position + 1 < len(odd):
            closing = position + 1
        end = len(lines) if closing is None else odd[closing]
        *_, ticks = _FENCE.finditer(lines[begin])
        code = [
            *lines[begin + 1 : end],
            *(_FENCE.split(line, maxsplit=1)[0] for line in lines[end : end + 1]),
        ]
        block = FencedBlock(
            language=next(iter(lines[begin][ticks.end() :].lower().split()), ""),
            before="\n".join([*lines[start:begin], lines[begin][: ticks.start()]]),
            code="\n".join(_without_indent(code, _indent_of(lines[begin]))),
            is_closed=closing is not None,
        )
        blocks.append(block)
        start, position = end + 1, len(odd) if closing is None else closing + 1
    return blocks


def _closing(line: str, first: str) -> tuple[int, int]:
    """What counts of a line that may close a block: columns before its first fence, and the fence's length.

    A fence behind other text closes at any depth.
    """
    return (len(_indent_of(line)) if line.lstrip().startswith(first) else 0), len(first)


def _closing_position(
    closings: dict[tuple[int, int], list[int]], position: int, deepest: int, num_ticks: int
) -> int | None:
    """Which of the lines with an odd number of fences, by :func:`_closing`, is the first to close a block."""
    return min(
        (
            places[bisect_right(places, position)]
            for (indent, length), places in closings.items()
            if indent <= deepest and length >= num_ticks and places[-1] > position
        ),
        default=None,
    )


def _without_indent(lines: list[str], indent: str) -> list[str]:
    """The lines without an indentation that all of them have, empty ones aside."""
    if not all(line.startswith(indent) for line in lines if line.strip()):
        return lines
    return [line.removeprefix(indent) for line in lines]


def _indent_of(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


def last_python_block(response: str, prefix: str) -> str | None:
    """The last closed ```` ```python ```` block, else that of prefix and response together.

    So whole answers and continuations of the prefix are both read. dLLM-RL itself reads the latter only, and
    of an answer that begins anew it runs what the prefix holds.
    """
    blocks = _PYTHON_BLOCK.findall(response)
    if not blocks and response.partition("```")[0].strip():
        blocks = _PYTHON_BLOCK.findall(prefix + response)
    return blocks[-1].strip() or None if blocks else None
