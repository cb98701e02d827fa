"""What responses say: their texts as they grow, and where a stop text ends them."""

import dataclasses
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from transformers import PreTrainedTokenizerBase

from t3d.decoding.completion import BlockUpdate, Completion
from t3d.problems.prompts import token_text

_PART = "\ufffd"
"""What a character is decoded to whose bytes are not all there yet."""


@dataclasses.dataclass(frozen=True, slots=True)
class StopTexts:
    """Texts at the first of which a response ends."""

    texts: Sequence[str]
    tokenizer: PreTrainedTokenizerBase

    def num_kept(self, token_ids: Sequence[int]) -> int | None:
        """How many of a response's tokens it takes to write a stop text; None where they hold none."""

        def has_stop(count: int) -> bool:
            text = token_text(self.tokenizer, token_ids[:count]).rstrip(_PART)
            return any(stop in text for stop in self.texts)

        if not has_stop(len(token_ids)):
            return None
        return bisect_left(range(len(token_ids)), True, key=has_stop)


def with_text(completion: Completion, tokenizer: PreTrainedTokenizerBase) -> Completion:
    """The completion with its visible text, which a stop text is no part of."""
    text = token_text(tokenizer, completion.visible_ids)
    return dataclasses.replace(completion, text=_before_stops(text, completion.params.stop))


def _before_stops(text: str, stops: Sequence[str]) -> str:
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    return text[: min(places, default=len(text))]


def told_updates(updates: Iterator[BlockUpdate], tokenizer: PreTrainedTokenizerBase) -> Iterator[BlockUpdate]:
    """An engine's updates with their texts; what may be the beginning of a stop text is held back."""
    visible: dict[str, list[int]] = {}
    told: dict[str, str] = {}
    for update in updates:
        completion, before = update.completion, told.get(update.id, "")
        if not update.is_committed:
            so_far = [*visible.get(update.id, ()), *update.token_ids[: update.num_visible]]
            text = _before_stops(_draft_text(so_far, tokenizer), update.stop)
            yield dataclasses.replace(update, text=text[len(before) :])
            continue
        if completion is None:
            so_far = visible.setdefault(update.id, [])
            so_far += [token for token in update.token_ids if token is not None]
            text = token_text(tokenizer, so_far).rstrip(_PART)
            told[update.id] = text = text[: len(text) - _num_held(text, update.stop)]
        else:
            completion = with_text(completion, tokenizer)
            text = completion.text
            visible.pop(update.id, None)  # where jobs keep coming, nothing may stay of those that have ended
            told.pop(update.id, None)
        yield dataclasses.replace(update, text=text[len(before) :], completion=completion)


def _num_held(text: str, stops: Sequence[str]) -> int:
    """Length of the longest end of the text with which a stop text begins."""
    longest = 0
    for stop in stops:
        first = max(0, len(text) - len(stop) + 1)
        while (first := text.find(stop[0], first)) >= 0 and not stop.startswith(text[first:]):
            first += 1
        longest = max(longest, len(text) - first if first >= 0 else 0)
    return longest


def _draft_text(token_ids: Sequence[int | None], tokenizer: PreTrainedTokenizerBase) -> str:
    """The text of tokens of which some are still masked."""
    text = ""
    for is_masked, run in groupby(token_ids, key=lambda token: token is None):
        tokens: list[Any] = list(run)  # together: a character may take several tokens
        text += "░" * len(tokens) if is_masked else token_text(tokenizer, tokens)
    return text
