"""Which tokens an adopted model takes as its mask and its pad: one that is there and unused, else a new one.

A token is *free* if it is special, has no role in the tokenizer or in a config, and does not stand in the
chat template. Being free is not enough to become the mask, since a special token may be one that a model
has learnt (``<|vision_start|>``): its name must say that nothing was ever written with it, as reserved
entries of a vocabulary do, or, at the end of the list, that it belongs to code corpora.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from transformers import AddedToken, PreTrainedTokenizerBase

from t3d.errors import InputError

NEW_MASK, NEW_PAD = "<|MASK|>", "<|PAD|>"
"""The first is SDAR's."""
_UNUSED = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"^\W*mask\W*$",
        r"reserved|unused|extra_id|placeholder",
        r"^\W*fim_pad\W*$",
        r"^\W*reponame\W*$",
        r"^\W*repo_name\W*$",
        r"^\W*gh_stars\W*$",
    )
)
"""Names of what may become the mask, best first; of equals the one with the lowest id."""
_PAD = re.compile(r"^\W*(pad|padding|finetune_right_pad_id|right_pad|left_pad)\W*$", re.IGNORECASE)
_END_OF_TEXT = re.compile(r"^\W*(endoftext|end_of_text|unk)\W*$", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenChoice:
    """A token by its text, and how it came to be chosen, in words."""

    token: str
    reason: str


def choose_mask(tokenizer: PreTrainedTokenizerBase, wanted: str | None, used: Collection[int]) -> TokenChoice:
    """``wanted``, the tokenizer's own mask token, an unused special one, or a new one, in this order.

    ``used`` are ids with a role (:func:`used_ids`). Raises InputError for a ``wanted`` that texts, the chat
    template or another role use.
    """
    if wanted is not None:
        return _wanted_mask(tokenizer, wanted, used)
    own = tokenizer.mask_token_id
    if own is not None and own not in used:
        return TokenChoice(token=str(tokenizer.mask_token), reason="the tokenizer's own")
    free = _free_tokens(tokenizer, used)
    for pattern in _UNUSED:
        for token in filter(pattern.search, free):
            return TokenChoice(token=token, reason="a special token that nothing uses")
    return TokenChoice(token=_new_name(tokenizer, NEW_MASK), reason="new")


def choose_pad(
    tokenizer: PreTrainedTokenizerBase, stops: Collection[int], mask: str, used: Collection[int]
) -> TokenChoice:
    """Its own pad if that is no stop and not the mask; else a token named as one, that of the text's end or
    of unknown words if it is no stop, a reserved one, or a new one."""
    own = tokenizer.pad_token_id
    if own is not None and own not in stops and tokenizer.pad_token != mask:
        return TokenChoice(token=str(tokenizer.pad_token), reason="the tokenizer's own")
    special = [token for token in _special_tokens(tokenizer).values() if token != mask]
    not_stops = [token for token in special if tokenizer.convert_tokens_to_ids(token) not in stops]
    free = [token for token in _free_tokens(tokenizer, used) if token != mask]
    candidates: tuple[tuple[re.Pattern[str], Iterable[str]], ...] = (
        (_PAD, not_stops),
        (_END_OF_TEXT, not_stops),
        (_UNUSED[1], free),
    )
    for pattern, tokens in candidates:
        for token in filter(pattern.search, tokens):
            return TokenChoice(token=token, reason="a special token that is no stop")
    return TokenChoice(token=_new_name(tokenizer, NEW_PAD), reason="new")


def used_ids(tokenizer: PreTrainedTokenizerBase, *configs: Mapping[str, Any]) -> set[int]:
    """Ids with a role besides the mask's: in the tokenizer, or as any ``..._token_id`` of these configs."""
    roles = {name: token for name, token in tokenizer.special_tokens_map.items() if name != "mask_token"}
    named = [token for token in roles.values() if isinstance(token, str)]
    found: list[Any] = [tokenizer.convert_tokens_to_ids(token) for token in named]
    for config in configs:
        for name, value in config.items():
            if name.endswith(("_token_id", "_token_ids")) and name != "mask_token_id":
                found += value if isinstance(value, list) else [value]
    return {value for value in found if isinstance(value, int)}


def assign(tokenizer: PreTrainedTokenizerBase, role: str, token: str) -> int:
    """Give a token the role (``mask_token``), added to the vocabulary where it is new; its id."""
    tokenizer.add_special_tokens({role: AddedToken(token, special=True, normalized=False)})
    found: Any = tokenizer.convert_tokens_to_ids(token)
    return found


def _wanted_mask(tokenizer: PreTrainedTokenizerBase, wanted: str, used: Collection[int]) -> TokenChoice:
    if not wanted or wanted != wanted.strip():
        raise InputError(
            "mask_token", wanted, "empty, or with spaces around it", f"use for example {NEW_MASK}"
        )
    if wanted not in tokenizer.get_vocab():
        return TokenChoice(token=wanted, reason="new, as asked for")
    fix = f"name a special token that nothing uses, or one that is not there yet, such as {NEW_MASK}"
    if wanted not in (token.content for token in tokenizer.added_tokens_decoder.values()):
        raise InputError("mask_token", wanted, "an ordinary token of the vocabulary, which texts have", fix)
    if tokenizer.convert_tokens_to_ids(wanted) in used:
        raise InputError(
            "mask_token", wanted, "has another role (stop, start, pad, unknown) in this model", fix
        )
    if wanted in _template(tokenizer):
        raise InputError("mask_token", wanted, "stands in the chat template", fix)
    return TokenChoice(token=wanted, reason="as asked for")


def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """Texts of special tokens by id, in order."""
    added = sorted(tokenizer.added_tokens_decoder.items())
    return {number: token.content for number, token in added if token.special}


def _free_tokens(tokenizer: PreTrainedTokenizerBase, used: Collection[int]) -> list[str]:
    template = _template(tokenizer)
    special = _special_tokens(tokenizer).items()
    return [token for number, token in special if number not in used and token not in template]


def _template(tokenizer: PreTrainedTokenizerBase) -> str:
    """The text of all its chat templates: a tokenizer may have several, by name."""
    found: Any = tokenizer.chat_template
    return "\n".join(map(str, found.values())) if isinstance(found, dict) else str(found or "")


def _new_name(tokenizer: PreTrainedTokenizerBase, name: str) -> str:
    """``name``, with as many underscores as make it new."""
    while name in tokenizer.get_vocab():
        name = f"{name[:-2]}_{name[-2:]}"
    return name
