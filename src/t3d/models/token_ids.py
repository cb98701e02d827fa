"""A tokenizer and the token ids that it, the config and the embedding have to agree on."""

import hashlib
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from t3d.errors import InputError


@dataclass(frozen=True, kw_only=True)
class LoadedTokenizer:
    """A checkpoint's tokenizer and token ids, without its weights."""

    tokenizer: PreTrainedTokenizerBase
    mask_token_id: int
    stop_token_ids: tuple[int, ...]
    vocab_size: int
    """Rows of the network's embedding, which may be more than the tokenizer names."""

    @property
    def tokenizer_hash(self) -> str:
        """SHA-256 of the tokenizer's whole definition."""
        return tokenizer_hash(self.tokenizer)


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of a fast tokenizer's whole definition."""
    return hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()


def token_of_another_id(theirs: PreTrainedTokenizerBase, ours: PreTrainedTokenizerBase) -> str | None:
    """A token of theirs that ours does not have under the same id; None: there is none."""
    if tokenizer_hash(theirs) == tokenizer_hash(ours):
        return None
    known = ours.get_vocab()
    unlike = (token for token, index in theirs.get_vocab().items() if known.get(token) != index)
    return next(unlike, None)


def with_ids(
    source: str, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, stops: tuple[int, ...]
) -> LoadedTokenizer:
    """A tokenizer with the ids that it and the config name. Raises InputError if they contradict."""
    size = config.vocab_size
    check_vocabulary(source, tokenizer, size)
    own, configured = tokenizer.mask_token_id, getattr(config, "mask_token_id", None)
    if own is None and configured is None:
        fix = "set mask_token in tokenizer_config.json or mask_token_id in config.json"
        raise InputError("model", source, "neither tokenizer nor config names a mask token", fix)
    mask: Any = configured if own is None else own
    is_id = isinstance(mask, int) and not isinstance(mask, bool) and 0 <= mask < size
    for holds, value, problem in (
        (
            configured in (None, mask),
            configured,
            f"the tokenizer's mask token {tokenizer.mask_token!r} is {own}",
        ),
        (is_id, mask, f"no token id: the model has rows for 0 to {size - 1}"),
        (mask not in stops, mask, "a stop token too, so that no response could ever be finished"),
    ):
        if not holds:
            fix = "correct mask_token_id in its config.json, or mask_token in its tokenizer_config.json"
            raise InputError("mask_token_id", value, f"of model {source!r}: {problem}", fix)
    return LoadedTokenizer(tokenizer=tokenizer, mask_token_id=mask, stop_token_ids=stops, vocab_size=size)


def check_vocabulary(source: str, tokenizer: PreTrainedTokenizerBase, size: int) -> None:
    """Every id of the tokenizer has a row. Fewer names than rows are usual."""
    token, highest = max(tokenizer.get_vocab().items(), key=itemgetter(1))
    if highest >= size:
        problem = (
            f"its token {token!r} has id {highest}, but model {source!r} has rows for 0 to {size - 1} only"
        )
        fix = "give the tokenizer that the model was trained with, or resize the model's embedding"
        raise InputError("tokenizer", tokenizer.name_or_path, problem, fix)


def union_of_stops(
    source: str, declared: int | list[int] | None, tokenizer: PreTrainedTokenizerBase
) -> tuple[int, ...]:
    """Ids that end a response: the declared ones and the tokenizer's. Raises InputError without any."""
    ids = declared if isinstance(declared, list) else [declared]
    named: set[Any] = {*ids, tokenizer.eos_token_id} - {None}
    if not named:
        raise InputError(
            "model", source, "no end-of-sequence token", "set eos_token_id in generation_config.json"
        )
    return tuple(sorted(named))
