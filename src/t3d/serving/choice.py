"""One answer as it grows: its tokens and its text."""

from collections.abc import Sequence
from typing import NamedTuple

from t3d.decoding.completion import BlockUpdate
from t3d.decoding.jobs import Job


class Draft(NamedTuple):
    """What may follow the text that was told: held back text, and a block that is not committed yet."""

    text: str
    """Masks as "░"."""
    start: int
    """Index in the answer of the first of its tokens."""
    token_ids: Sequence[int | None]
    """Of the block; None where still masked."""
    step_map: Sequence[int | None]


class News(NamedTuple):
    """What an answer has that it had not when it was last asked."""

    text: str
    tokens: slice
    """Which of its tokens."""
    draft: Draft | None = None
    """Comes without text or tokens; the next draft or text takes its place."""


class Choice:
    """The answer to one job. It has ended when it has a ``finish_reason`` or an ``error``."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.token_ids: list[int] = []
        self.logprobs: list[float] = []
        self.step_map: list[int] = []
        self.text = ""
        self.finish_reason: str | None = None
        self.error = ""
        self.num_forwards = 0
        self._told_text = self._told_tokens = 0
        self._draft: Draft | None = None

    @property
    def has_ended(self) -> bool:
        """Whether nothing more comes."""
        return self.finish_reason is not None or bool(self.error)

    def add(self, update: BlockUpdate) -> None:
        """Take in the next block, or a draft of it."""
        completion = update.completion
        self._draft = None if update.is_committed else _draft_of(update)
        if self._draft is not None:
            return
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

    def _keep(self, count: int) -> None:
        for values in (self.token_ids, self.logprobs, self.step_map):
            del values[count:]

    def news(self) -> News | None:
        """What can be told now, if anything; tokens whose text is held back wait for it."""
        if self._draft is not None:
            nothing_new = slice(self._told_tokens, self._told_tokens)
            return News("", nothing_new, self._draft)
        if self._told_text == len(self.text) and not self.has_ended:
            return None
        news = News(self.text[self._told_text :], slice(self._told_tokens, len(self.token_ids)))
        self._told_text, self._told_tokens = len(self.text), len(self.token_ids)
        return news


def _draft_of(update: BlockUpdate) -> Draft:
    tokens = update.token_ids[: update.num_visible]
    steps = [None if token is None else step for token, step in zip(tokens, update.step_map, strict=False)]
    return Draft(update.text, update.response_start, tokens, steps)
