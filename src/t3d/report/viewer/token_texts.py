"""Texts of tokens, with the tokenizer that the records name where it is at hand."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from t3d.errors import InputError
from t3d.model_choice import BUNDLED_MODELS
from t3d.models.loading import load_tokenizer
from t3d.models.token_ids import tokenizer_hash
from t3d.problems.prompts import token_text
from t3d.report.viewer.shown import Shown

_BROKEN = "\ufffd"
"""What a tokenizer writes for a part of a character."""
_MOST_PARTS = 4
"""A character has at most so many bytes; what is none by then stays as the tokenizer writes it."""


@dataclass
class Tokenizers:
    """The tokenizer of a record: that of ``model``, else what the record names, if it is a folder or bundled.

    A hub id that a file names is not followed; give it as ``model``.
    """

    model: str | None = None
    notes: list[str] = field(default_factory=list)
    """Why records are shown as ids, a line for each tokenizer that is missing."""
    _found: dict[tuple[str, str], PreTrainedTokenizerBase | None] = field(default_factory=dict)

    def of(self, shown: Shown) -> PreTrainedTokenizerBase | None:
        """None where none is at hand. Raises InputError if ``model`` has another than the record's."""
        named = shown.model, shown.tokenizer_hash
        if named not in self._found:
            self._found[named] = self._given(*named) if self.model is not None else self._named(*named)
        return self._found[named]

    def _given(self, _: str, wanted: str) -> PreTrainedTokenizerBase:
        assert self.model is not None
        tokenizer = load_tokenizer(self.model).tokenizer
        if wanted not in ("", tokenizer_hash(tokenizer)):
            problem = f"its tokenizer is not that of the records ({wanted[:12]})"
            raise InputError("model", self.model, problem, "give the model that the records are of")
        return tokenizer

    def _named(self, model: str, wanted: str) -> PreTrainedTokenizerBase | None:
        """The record's own; a bundled one where it is proven to be the same."""
        at_hand = [name for name in (model, *BUNDLED_MODELS) if name in BUNDLED_MODELS or _is_model(name)]
        for name in at_hand:
            try:
                tokenizer = load_tokenizer(name).tokenizer
            except InputError:
                continue  # a folder that was overwritten since
            if tokenizer_hash(tokenizer) == wanted or (not wanted and name == model):
                return tokenizer
        named = repr(model) if model else "unnamed"
        self.notes.append(f"the tokenizer ({named}) is not at hand: token ids are shown; give --model")
        return None


def _is_model(name: str) -> bool:
    return bool(name) and (Path(name) / "config.json").is_file()


@dataclass
class TokenTable:
    """Texts of tokens, each once; rows hold their places. A token that is part of a character has more."""

    texts: list[str] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    _places: dict[tuple[int, str], int] = field(default_factory=dict)
    _alone: dict[tuple[int, int], str] = field(default_factory=dict)
    """By tokenizer and token."""

    def row(self, tokenizer: PreTrainedTokenizerBase | None, ids: Sequence[int]) -> list[int]:
        """Places of these tokens."""
        texts = [f"{token} " for token in ids] if tokenizer is None else self._texts(tokenizer, ids)
        return [self._place(token, text) for token, text in zip(ids, texts, strict=True)]

    def _place(self, token: int, text: str) -> int:
        place = self._places.setdefault((token, text), len(self.texts))
        if place == len(self.texts):
            self.texts.append(text)
            self.ids.append(token)
        return place

    def _texts(self, tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
        """Parts of a character are read together; its text stands at the last of them."""
        texts = [self._text(tokenizer, token) for token in ids]
        first: int | None = None
        for place, text in enumerate(texts):
            if _BROKEN not in text or (first is not None and place - first >= _MOST_PARTS):
                first = None
                continue
            first = place if first is None else first
            whole = token_text(tokenizer, ids[first : place + 1], skip_special_tokens=False)
            if _BROKEN not in whole:
                texts[first : place + 1] = ["" for _ in ids[first:place]] + [whole]
                first = None
        return texts

    def _text(self, tokenizer: PreTrainedTokenizerBase, token: int) -> str:
        """As it stands inside of a text: some tokenizers drop the blank in front of the first token."""
        key = id(tokenizer), token
        if key not in self._alone:
            once, twice = (token_text(tokenizer, [token] * n, skip_special_tokens=False) for n in (1, 2))
            self._alone[key] = twice[len(once) :] if twice.startswith(once) else once
        return self._alone[key]
