"""One answer as it grows: its tokens and its text, up to a stop text."""

from collections.abc import Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from t3d.decoding.completion import BlockUpdate
from t3d.decoding.jobs import Job
from t3d.problems.prompts import token_text


class News(NamedTuple):
    """What an answer has that it had not when it was last asked."""

    text: str
    tokens: slice
    """Which of its tokens."""


class Choice:
    """The answer to one job. It has ended when it has a ``finish_reason`` or an ``error``."""

    def __init__(self, job: Job, stops: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> None:
        self.job, self.stops, self.tokenizer = job, stops, tokenizer
        self.token_ids: list[int] = []
        self.logprobs: list[float] = []
        self.step_map: list[int] = []
        self.text = ""
        self.finish_reason: str | None = None
        self.error = ""
        self.num_forwards = 0
        self._told_text = self._told_tokens = 0

    @property
    def has_ended(self) -> bool:
        """Whether nothing more comes."""
        return self.finish_reason is not None or bool(self.error)

    def add(self, update: BlockUpdate) -> None:
        """Take in the next block, a committed one."""
        completion, before = update.completion, len(self.token_ids)
        if completion is not None and completion.error:
            self.error = completion.error
            return
        self.token_ids += [token for token in update.token_ids if token is not None]
        self.logprobs += update.logprobs
        self.step_map += update.step_map
        self.text += update.text
        if completion is not None:
            self._keep(completion.visible_length)
            self.finish_reason = str(completion.finish_reason)
        self.num_forwards = max(self.step_map, default=0) if completion is None else completion.num_forwards
        self._cut(before)

    def _keep(self, count: int) -> None:
        for values in (self.token_ids, self.logprobs, self.step_map):
            del values[count:]

    def _cut(self, before: int) -> None:
        """End before the first stop text; of the tokens, those it takes to write that text are kept."""
        places = [place for stop in self.stops if (place := self.text.find(stop)) >= 0]
        if not places:
            return
        self.text, self.finish_reason = self.text[: min(places)], "stop"
        for count in range(before + 1, len(self.token_ids)):
            text = token_text(self.tokenizer, self.token_ids[:count])
            if any(stop in text for stop in self.stops):
                self._keep(count)
                return

    def news(self) -> News | None:
        """What can be told now, if anything; the beginning of what may become a stop text cannot yet."""
        held = 0 if self.has_ended else max((_overlap(self.text, stop) for stop in self.stops), default=0)
        end = max(self._told_text, len(self.text) - held)
        if end == self._told_text and not self.has_ended:
            return None
        news = News(self.text[self._told_text : end], slice(self._told_tokens, len(self.token_ids)))
        self._told_text, self._told_tokens = end, len(self.token_ids)
        return news


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of the text with which the stop text begins, less than all of it."""
    return next((size for size in range(len(stop) - 1, 0, -1) if text.endswith(stop[:size])), 0)
