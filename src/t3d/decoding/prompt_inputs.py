"""What a caller may give as prompts, and the token ids of each."""

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

from transformers import PreTrainedTokenizerBase

from t3d.errors import InputError
from t3d.problems.prompts import chat_ids, token_ids

Chat = Sequence[Mapping[str, Any]]
"""Messages with a role and a content each."""
Prompt = str | Chat | Sequence[int]
"""A text as it is, a chat for the tokenizer's template, or token ids."""
_MESSAGE = 'give messages such as {"role": "user", "content": "..."}'


def is_one_prompt(prompts: Any) -> bool:
    """Whether this is a text, a chat or a list of token ids rather than several of them."""
    if isinstance(prompts, str) or not isinstance(prompts, Sequence):
        return True
    return len(prompts) > 0 and isinstance(prompts[0], (Mapping, Integral))


def ids_of_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Any, vocab_size: int) -> Sequence[int]:
    """Token ids of a prompt. Raises InputError for what is none."""
    if isinstance(prompt, str):
        return token_ids(tokenizer, prompt)
    if not isinstance(prompt, Sequence):
        fix = "give texts, chats (lists of messages) or lists of token ids"
        raise InputError("prompts", prompt, "not a prompt", fix)
    if len(prompt) and isinstance(prompt[0], Mapping):
        for message in prompt:
            _check_message("prompts", message)
        return chat_ids(tokenizer, prompt)
    for token in prompt:
        if not isinstance(token, Integral) or not 0 <= token < vocab_size:
            raise InputError("prompts", token, "not a token id", f"use ids of 0 to {vocab_size - 1}")
    return [int(token) for token in prompt]


def conversations(tokenizer: PreTrainedTokenizerBase, messages: Any) -> list[Chat]:
    """One conversation, several, or a data set's column ``messages``, as a list of them.

    Raises InputError where the tokenizer has no chat template, and for what is no conversation.
    """
    if not tokenizer.chat_template:
        problem, fix = "the tokenizer has none", "use generate with texts or token ids, or give it one"
        raise InputError("chat_template", None, problem, fix)
    columns = getattr(messages, "column_names", None)
    if columns is not None:  # a data set of conversations
        if "messages" not in columns:
            problem, fix = "the data set has no such column", "rename_column one of these to messages"
            raise InputError("messages", columns, problem, fix)
        messages = list(messages["messages"])
    if isinstance(messages, (str, Mapping)) or not isinstance(messages, Sequence) or not messages:
        raise InputError("messages", messages, "neither a conversation nor a list of some", _MESSAGE)
    chats = [messages] if isinstance(messages[0], Mapping) else list(messages)
    for chat in chats:
        if isinstance(chat, (str, Mapping)) or not isinstance(chat, Sequence) or not chat:
            raise InputError("messages", chat, "not a conversation", _MESSAGE)
        for message in chat:
            _check_message("messages", message)
    return chats


def _check_message(field: str, message: Any) -> None:
    is_message = isinstance(message, Mapping) and isinstance(message.get("role"), str)
    if not is_message or message.get("content") is None:
        raise InputError(field, message, "not a message with a role and a content", _MESSAGE)
