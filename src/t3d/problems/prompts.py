"""The one function that renders a problem's prompt for rollout, training and evaluation."""

import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from t3d.errors import InputError
from t3d.problems.problem import Problem
from t3d.problems.prompt_styles import PromptKind, PromptStyle, released_prompt, user_turn

_ENCODING = threading.Lock()
"""Whether a special token's name is text is a setting of the tokenizer, which every call makes its own."""
TEMPLATE_SECONDS = 10.0
"""What a chat template may take; it is anyone's code."""
_FILE_OF_TEMPLATES = "<template>"
"""Under which name Jinja compiles them."""
_OF_TEMPLATES = (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError)
_OF_TEMPLATES += (RecursionError, MemoryError, TimeoutError)
"""What they raise."""


def problem_ids(
    tokenizer: PreTrainedTokenizerBase,
    problem: Problem,
    *,
    style: PromptStyle = "plain",
    kind: PromptKind = "math",
) -> list[int]:
    """Token ids of a problem's prompt; rollout, training and evaluation all take them from here.

    A special token's name in what is said is text. Raises InputError where that cannot be, and where a style
    has no prompt of that kind.
    """
    try:
        if style != "released":
            turns = [*problem.turns, ("user", user_turn(problem.question, style, kind))]
            return chat_ids(tokenizer, [{"role": role, "content": text} for role, text in turns])
        if problem.turns:
            problem_text = f"problem {problem.id!r} has several turns, and this prompt is one"
            raise InputError("prompt_style", style, problem_text, "use plain, or give prompts of one turn")
        prefix = problem.prefix
        said = [problem.question] if prefix is None else [problem.question, prefix]
        return _ids_of_said(
            tokenizer, said, lambda texts: released_prompt(texts[0], kind, texts[1] if texts[1:] else None)
        )
    except SpecialTokenError as error:
        fix = "take it out of what is said, or leave the problem out"
        problem_text = f"problem {problem.id!r} has a special token that its tokenizer cannot write as text"
        raise InputError("question", error.token, problem_text, fix) from error


def prompt_ids(tokenizer: PreTrainedTokenizerBase, question: str) -> list[int]:
    """Token ids of a user turn followed by the opening of the assistant's turn.

    Uses the tokenizer's chat template and adds nothing to the question.
    """
    return chat_ids(tokenizer, [{"role": "user", "content": question}])


def chat_ids(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]]) -> list[int]:
    """Token ids of a chat, followed by the opening of the assistant's turn (the tokenizer's template).

    A special token's name in a message is text: it becomes no mask, stop token or turn of its own. Raises
    SpecialTokenError, an InputError, where the tokenizer cannot do that.
    """

    said = [message["content"] for message in messages]
    if not all(isinstance(text, str) for text in said):  # a template of its own kind, say of parts
        return token_ids(tokenizer, _chat_text(tokenizer, messages))

    def rendered(contents: Sequence[str]) -> str:
        chat = [{**message, "content": text} for message, text in zip(messages, contents, strict=True)]
        return _chat_text(tokenizer, chat)

    return _ids_of_said(tokenizer, said, rendered)


def said_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a text alone, in which a special token's name is text, as in a message of a chat.

    Raises SpecialTokenError where the tokenizer cannot do that.
    """
    return _ids_of_said(tokenizer, [text], lambda texts: texts[0])


class SpecialTokenError(InputError):
    """A message has the name of a special token that cannot be told from the token."""

    def __init__(self, token: str) -> None:
        self.token = token
        super().__init__(
            "content", token, "a special token that the tokenizer cannot write as text", "drop it"
        )


def _ids_of_said(
    tokenizer: PreTrainedTokenizerBase, said: Sequence[str], render: Callable[[Sequence[str]], str]
) -> list[int]:
    """Token ids of ``render(said)``, in which names of special tokens are text where they are said."""
    special = _special_ids(tokenizer)
    names = [name for name in sorted(special, key=len, reverse=True) if any(name in text for text in said)]
    if not names:
        return token_ids(tokenizer, render(said))
    used = set("".join(said))
    mark = next((chr(code) for code in range(0xE000, 0xF8FF) if chr(code) not in used), None)
    if mark is None:
        problem = "all characters of Unicode's private area beside a special token's name"
        raise InputError("content", names[0], problem, "drop some of them")
    for index, name in enumerate(names):
        said = [text.replace(name, f"{mark}{index}{mark}") for text in said]
    ids: list[int] = []
    for place, piece in enumerate(render(said).split(mark)):  # every other piece is the number of a name
        ids += token_ids(tokenizer, piece) if place % 2 == 0 else _plain_ids(tokenizer, names[int(piece)])
    return ids


def _plain_ids(tokenizer: PreTrainedTokenizerBase, name: str) -> list[int]:
    """Token ids of a special token's name as text."""
    with _ENCODING:
        ids = tokenizer.encode(name, add_special_tokens=False, split_special_tokens=True)
    if set(ids).intersection(_special_ids(tokenizer).values()):
        raise SpecialTokenError(name)
    return ids


def _special_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Ids by name of the tokens that are marked as special, those without a role of the tokenizer's too."""
    marked = {str(token): number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return marked | dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))


@contextmanager
def _time_limit(seconds: float) -> Generator[None]:
    """End a template of loops within loops by a TimeoutError in this thread, unless a debugger traces it."""
    if sys.gettrace() is not None:
        yield
        return
    end = time.monotonic() + seconds

    def at_line(frame: FrameType, event: str, argument: object) -> Any:
        del frame, event, argument
        if time.monotonic() > end:
            raise TimeoutError(f"takes more than {seconds:g} seconds")
        return at_line

    def at_call(frame: FrameType, event: str, argument: object) -> Any:
        del event, argument
        return at_line if frame.f_code.co_filename == _FILE_OF_TEMPLATES else None

    sys.settrace(at_call)
    try:
        yield
    finally:
        sys.settrace(None)


def _chat_text(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]]) -> str:
    chat: Any = [dict(message) for message in messages]
    try:
        with _time_limit(TEMPLATE_SECONDS):
            return str(tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False))
    except _OF_TEMPLATES as error:
        said = " ".join(str(error).split())[:200] or type(error).__name__
        problem = f"cannot put these messages ({said})"
        fix = "mend chat_template of the tokenizer, or leave out what it refuses"
        raise InputError("chat_template", tokenizer.name_or_path, problem, fix) from error


def question_of_prompt(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str | None:
    """The user's message of a prompt of one turn, or None.

    It is proven: put into the tokenizer's chat template again it gives the prompt's text, but for the line
    break at the end that the released prompts lack, and no special token is in it, so it is one turn.
    """
    text, mark = token_text(tokenizer, ids, skip_special_tokens=False), "?!?"
    before, found, after = _chat_text(tokenizer, [{"role": "user", "content": mark}]).partition(mark)
    end = after if text.endswith(after) else after.removesuffix("\n")
    if not (found and text.startswith(before) and text.endswith(end) and len(text) > len(before) + len(end)):
        return None
    question = text[len(before) : len(text) - len(end)]
    if set(tokenizer.all_special_ids).intersection(token_ids(tokenizer, question)):
        return None
    rendered = _chat_text(tokenizer, [{"role": "user", "content": question}])
    return question if rendered.removesuffix("\n") == text.removesuffix("\n") else None


def token_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a text; special tokens written in it are recognised, none is added."""
    with _ENCODING:
        return tokenizer.encode(text, add_special_tokens=False)


def token_text(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], *, skip_special_tokens: bool = True
) -> str:
    """Text of token ids."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens))
