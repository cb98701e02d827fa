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
    chat: Any = [dict(message) for message in messages]
    return token_ids(
        tokenizer, str(tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False))
    )


def token_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a text; special tokens written in it are recognised, none is added."""
    return tokenizer.encode(text, add_special_tokens=False)


def token_text(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], *, skip_special_tokens: bool = True
) -> str:
    """Text of token ids."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens))
