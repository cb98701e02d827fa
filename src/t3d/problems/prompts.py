"""The one function that renders a problem's prompt for rollout, training and evaluation."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from t3d.problems.problem import Problem
from t3d.problems.prompt_styles import PromptKind, PromptStyle, released_prompt, user_turn


def problem_ids(
    tokenizer: PreTrainedTokenizerBase,
    problem: Problem,
    *,
    style: PromptStyle = "plain",
    kind: PromptKind = "math",
) -> list[int]:
    """Token ids of a problem's prompt; rollout, training and evaluation all take them from here.

    Raises InputError where a style has no prompt of that kind.
    """
    if style == "released":
        return token_ids(tokenizer, released_prompt(problem.question, kind, problem.prefix))
    return prompt_ids(tokenizer, user_turn(problem.question, style, kind))


def prompt_ids(tokenizer: PreTrainedTokenizerBase, question: str) -> list[int]:
    """Token ids of a user turn followed by the opening of the assistant's turn.

    Uses the tokenizer's chat template and adds nothing to the question.
    """
    return chat_ids(tokenizer, [{"role": "user", "content": question}])


def chat_ids(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]]) -> list[int]:
    """Token ids of a chat, followed by the opening of the assistant's turn (the tokenizer's template)."""
    return token_ids(tokenizer, _chat_text(tokenizer, messages))


def _chat_text(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]]) -> str:
    chat: Any = [dict(message) for message in messages]
    return str(tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False))


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
    return tokenizer.encode(text, add_special_tokens=False)


def token_text(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], *, skip_special_tokens: bool = True
) -> str:
    """Text of token ids."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens))
