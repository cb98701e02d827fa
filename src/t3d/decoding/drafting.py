"""Rows of the engine that are decoded left to right, with drafts or without.

Their rules are in :mod:`t3d.decoding.self_speculation`.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from t3d.decoding.completion import DecodeRequest, num_positions_needed
from t3d.decoding.params import DecodeParams
from t3d.decoding.self_speculation import (
    Scratch,
    groups_to_run,
    num_accepted,
    num_to_draft,
    scratch_of,
    widest_scratch,
)


class Checked(NamedTuple):
    """What a forward made of one row's draft."""

    num_drafted: int
    num_accepted: int
    """How many of them were right, those behind a stop token included."""


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
    draft: list[int] = field(default_factory=list)
    num_drafted: int = 0
    num_accepted: int = 0
    has_ended: bool = False

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

    def scratch(self) -> Scratch:
        """What its next forward reads besides the closed tokens."""
        num_draft, size = len(self.draft), self.params.block_size
        groups = groups_to_run(self.num_tokens, num_draft, self.end, self.params)
        return scratch_of(len(self.open_ids), num_draft, size, self.params.context, groups)

    def commit(self, drawn: Sequence[int], stop_token_ids: Collection[int]) -> tuple[int, Checked]:
        """Take what was drawn at the places of its scratch; how many, the first ones, are committed now."""
        scratch, start = self.scratch(), self.block_start
        checked = Checked(len(self.draft), num_accepted(self.draft, drawn))
        new = list(drawn[: checked.num_accepted + 1])
        stop = next((place for place, token in enumerate(new) if token in stop_token_ids), len(new))
        new = new[: stop + 1]
        self.num_drafted += checked.num_drafted
        self.num_accepted += min(checked.num_accepted, len(new))
        self.num_tokens += len(new)
        self.has_ended = new[-1] in stop_token_ids or self.num_tokens == self.end
        self.open_ids = (self.open_ids + new)[self.block_start - start :]
        drafted = scratch.drafts.get(checked.num_accepted, slice(0))
        self.draft = list(drawn[drafted])[: num_to_draft(self.num_tokens, self.end, self.params)]
        return len(new), checked


def num_columns_needed(request: DecodeRequest, params: DecodeParams) -> int:
    """Columns of a request's slot: its positions or, behind its last closed block, its widest scratch."""
    num_positions = num_positions_needed(request, params)
    if not params.is_left_to_right:
        return num_positions
    return num_positions - params.block_size + widest_scratch(params)
