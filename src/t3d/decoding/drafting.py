"""Rows of the engine that are decoded left to right, with drafts or without.

Their rules are in :mod:`t3d.decoding.self_speculation`. Behind the closed columns of a slot lie, in this
order, a block for the copy, a block for open and draft tokens, and the masks. So a copy of which every token
was right is the closed block already, where it has to be, and an open token is read once and stays until its
block closes. Where context is causal, open and draft tokens come first: what is read stays for good.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from t3d.attention.slots import ScratchSpan
from t3d.decoding.completion import DecodeRequest, num_positions_needed
from t3d.decoding.draft_costs import chosen_drafts, share_right
from t3d.decoding.params import Context, DecodeParams
from t3d.decoding.self_speculation import (
    Scratch,
    most_masks,
    num_accepted,
    num_to_draft,
    scratch_of_params,
)


class Checked(NamedTuple):
    """What a forward made of one row's draft."""

    num_drafted: int
    num_accepted: int
    """How many of them were right, those behind a stop token included."""


class Progress(NamedTuple):
    """What a forward added to a row."""

    num_new: int
    """Tokens committed: the first ones drawn."""
    num_written: int
    """Columns of closed blocks that need not be read again."""
    checked: Checked


class Reading(NamedTuple):
    """The part of a scratch that no earlier forward has read; columns count from the start of the block."""

    token_Q: np.ndarray
    """Which tokens of the scratch."""
    column_Q: np.ndarray
    sees_QN: np.ndarray
    place_M: np.ndarray
    """Where logits are asked for, among these tokens."""


@lru_cache(maxsize=4096)
def reading_of(scratch: Scratch, num_read: int, block_size: int, context: Context) -> Reading:
    """What is read of a scratch when so many open tokens are read already."""
    first_open, filled = _first_open_column(block_size, context), scratch.filled
    num_copied = filled if scratch.has_copy else 0
    num_masks = len(scratch) - filled - num_copied
    column_Q = np.concatenate(
        [
            first_open + np.arange(filled),
            np.arange(num_copied),
            first_open + max(block_size, filled) + np.arange(num_masks),
        ]
    )
    sees_QN = np.zeros((len(scratch), int(column_Q.max(initial=-1)) + 1), dtype=bool)
    sees_QN[:, column_Q] = scratch.sees_QQ
    token_Q = np.arange(num_read, len(scratch))
    return Reading(token_Q, column_Q[token_Q], sees_QN[token_Q], scratch.place_M - num_read)


def _first_open_column(block_size: int, context: Context) -> int:
    return block_size if context == "block" else 0


@dataclass(slots=True, kw_only=True)
class Drafting:
    """What such a row has besides its tokens."""

    params: DecodeParams
    num_tokens: int
    """Committed ones, the prompt included."""
    open_ids: list[int]
    """Those of them in the block that is not finished."""
    end: int
    """Where the response is cut, if no stop token comes first."""
    num_read: int = 0
    """Open tokens whose keys and values are in the slot."""
    draft: list[int] = field(default_factory=list)
    """What its next forward checks; less, if :meth:`arrange` finds that it does not pay."""
    chances: list[float] = field(default_factory=list)
    """How sure the model was of each token of the draft when it drafted it."""
    scratch: Scratch = field(init=False)
    """What the forward that was arranged last reads besides the closed tokens, or has read already."""
    reading: Reading = field(init=False)
    """What of it is read."""
    may_draft: bool = field(init=False)
    """Whether it drafts at all, or no more."""
    num_drafted: int = 0
    num_accepted: int = 0
    has_ended: bool = False

    def __post_init__(self) -> None:
        self.may_draft = self.params.remasking == "self_speculative"

    @classmethod
    def of_request(cls, request: DecodeRequest, params: DecodeParams) -> "Drafting":
        """That of a request before its first forward."""
        length = len(request.prompt_ids)
        return cls(
            params=params,
            num_tokens=length,
            open_ids=list(request.prompt_ids[length // params.block_size * params.block_size :]),
            end=length + params.max_new_tokens,
        )

    @property
    def block_start(self) -> int:
        """Start of the block with the position that comes next."""
        return self.num_tokens // self.params.block_size * self.params.block_size

    @property
    def num_kept_columns(self) -> int:
        """Columns behind the closed blocks that its next forward relies on."""
        return _first_open_column(self.params.block_size, self.params.context) + self.num_read

    def propose(self, draft: list[int], chances: list[float]) -> None:
        """Let the next forward check this draft."""
        self.draft, self.chances = draft, chances

    def draft_no_more(self) -> None:
        """Read the same again, all open tokens too, without a draft or draft groups.

        That is for numbers of a forward that are none: no mask hides a token whose own are none from those
        read beside it, as a weight of zero times NaN is NaN. What is not a number then is the base's.
        """
        self.may_draft, self.num_read = False, 0

    def arrange(self, value: float) -> None:
        """Settle what the next forward reads. ``value`` is what a token is worth in it, in positions."""
        size, context = self.params.block_size, self.params.context
        right = share_right(self.num_accepted, self.num_drafted)
        self.draft, groups = chosen_drafts(
            self.num_tokens, self.end, self.params, self.draft, self.chances, right, value
        )
        if not self.may_draft:
            self.draft, groups = [], ()
        self.scratch = scratch_of_params(len(self.open_ids), len(self.draft), groups, self.params)
        self.reading = reading_of(self.scratch, self.num_read, size, context)

    def span(self) -> ScratchSpan:
        """How the attention sees what is read."""
        reading, start = self.reading, self.block_start
        return ScratchSpan(
            position_Q=start + self.scratch.offset_Q[reading.token_Q],
            column_Q=start + reading.column_Q,
            sees_QN=reading.sees_QN,
        )

    def ids(self, mask_token_id: int) -> np.ndarray:
        """The tokens that are read."""
        return self.scratch.ids([*self.open_ids, *self.draft], mask_token_id)[self.reading.token_Q]

    def commit(
        self, drawn: Sequence[int], logprobs: Sequence[float], stop_token_ids: Collection[int]
    ) -> Progress:
        """Take what was drawn at the places of its scratch, and how likely the model found it."""
        scratch, start, num_open = self.scratch, self.block_start, len(self.open_ids)
        checked = Checked(len(self.draft), num_accepted(self.draft, drawn))
        new = list(drawn[: checked.num_accepted + 1])
        stop = next((place for place, token in enumerate(new) if token in stop_token_ids), len(new))
        new = new[: stop + 1]
        self.num_drafted += checked.num_drafted
        self.num_accepted += checked.num_accepted
        self.num_tokens += len(new)
        self.has_ended = new[-1] in stop_token_ids or self.num_tokens == self.end
        num_closed, num_right = self.block_start - start, num_open + checked.num_accepted
        self.open_ids = (self.open_ids + new)[num_closed:]
        self.num_read = 0 if num_closed else num_right  # the last token, newly drawn, is not read yet
        num_written = min(num_closed, num_right)
        if self.params.context == "block" and not (scratch.has_copy and num_right == scratch.filled):
            num_written = 0
        drafted = scratch.drafts.get(checked.num_accepted, slice(0))
        num_draft = num_to_draft(self.num_tokens, self.end, self.params)
        chances = [math.exp(logprob) for logprob in logprobs[drafted][:num_draft]]
        self.propose(list(drawn[drafted])[:num_draft], chances)
        return Progress(len(new), num_written, checked)


def num_columns_needed(request: DecodeRequest, params: DecodeParams) -> int:
    """Columns of a request's slot: its positions or, behind its last closed block, its widest scratch."""
    num_positions = num_positions_needed(request, params)
    if not params.is_left_to_right:
        return num_positions
    return num_positions + _first_open_column(params.block_size, params.context) + most_masks(params)
