"""Left-to-right decoding inside blocks, and drafts that one forward checks: the rules, without a model.

n tokens are committed, and s is the start of the block that position n is in. *Open* tokens are those at s to
n - 1, a prompt's tail included; the *draft* d are K tokens for n to n + K - 1, none of them beyond the block.
One forward reads, each token at its own position:

1. *closed* blocks, those before s. What is kept of a block is its whole reading, in which every token sees
   its block (``context="block"``), or the causal one;
2. *open and draft*, causally: each sees what is closed, and these up to itself;
3. the *copy*, where open and draft fill the block: the same once more, each sees all of it, as the block will
   be read when it is closed. Without drafts, or where context is causal, there is none;
4. *check masks* c_j for j = 0 to K, at n + j: c_j sees what is closed, the open tokens, d_0 to d_(j-1) and
   itself; beyond the block it sees the copy in place of open and draft;
5. *draft groups* g_j: masks from n + j to the end of that block. Each sees what c_j sees, and its group.

Position n + j is drawn from c_j. The longest prefix of the draft that equals its draws is accepted, and the
draw behind it is committed too. No draw depends on a draft, so the tokens are those of K = 0, which is
``left_to_right``. The next draft is what the group of the last draw says of the positions behind it. A model
that predicts the next token (``predicts="next"``) needs no check masks: the token before gives the logits.

Q tokens read besides the closed ones: the *scratch*. J checks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from t3d.decoding.params import Context, DecodeParams

Predicts = Literal["self", "next"]
"""Whose token the logits of a position are: its own, as of a block-diffusion model, or the one behind it."""
_MASK = -1


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Scratch:
    """Items 2 to 5 of a forward, side by side; all of them see all closed tokens.

    M places where logits are asked for: c_0 to c_K, then each draft group from its second mask on.
    """

    source_Q: np.ndarray
    """Which of the open and draft tokens each is; -1 for a mask."""
    offset_Q: np.ndarray
    """Its position, counted from the start of the block."""
    sees_QQ: np.ndarray
    """Which of the others it sees."""
    place_M: np.ndarray
    """Where these logits are; -1 is the last closed token."""
    drawn_offset_M: np.ndarray
    """The position that is drawn from them, counted from the start of the block."""
    drafts: dict[int, slice]
    """Which of them draft behind c_j, for each j that is drafted behind."""
    filled: int
    """Open and draft tokens: the first of Q."""
    has_copy: bool
    """Whether as many behind these are their copy; all others are masks."""
    first_drafting: int
    """The first mask of a draft group; so are all behind it."""

    def __len__(self) -> int:
        return len(self.source_Q)

    def ids(self, open_and_draft: Sequence[int], mask_token_id: int) -> np.ndarray:
        """The tokens that are read."""
        return np.array([*open_and_draft, mask_token_id])[self.source_Q]


@lru_cache(maxsize=4096)
def scratch_of(
    num_open: int,
    num_draft: int,
    block_size: int,
    context: Context,
    groups: tuple[int, ...],
    predicts: Predicts = "self",
) -> Scratch:
    """Items 2 to 5 for so many open and draft tokens, with draft groups g_j for these j."""
    filled = num_open + num_draft
    assert num_open < block_size and filled <= block_size, "a draft ends with its block"
    has_copy = context == "block" and filled == block_size and num_draft > 0
    source, offset = [*range(filled)] * (1 + has_copy), [*range(filled)] * (1 + has_copy)
    size = len(source) + _num_masks(num_open, num_draft, block_size, groups)
    size -= (num_draft + 1) * (predicts == "next")
    sees_QQ = np.zeros((size, size), dtype=bool)
    sees_QQ[:filled, :filled] = np.tri(filled, dtype=bool)  # 2
    sees_QQ[filled : len(source), filled : len(source)] = True  # 3

    def add_masks(j: int, count: int) -> range:
        """Masks from n + j on that see what c_j sees, and each other."""
        own = slice(len(source), len(source) + count)
        is_beyond = has_copy and j == num_draft
        sees_QQ[own, filled : 2 * filled] = is_beyond
        sees_QQ[own, : num_open + j] = not is_beyond
        sees_QQ[own, own] = True
        source.extend([_MASK] * count)
        offset.extend(range(num_open + j, num_open + j + count))
        return range(own.start, own.stop)

    if predicts == "self":
        place = [add_masks(j, 1).start for j in range(num_draft + 1)]  # 4
    else:
        place = [num_open + j - 1 for j in range(num_draft)]
        place.append(filled * (1 + has_copy) - 1)
    first_drafting = len(source)
    drawn_offset, drafts = [num_open + j for j in range(num_draft + 1)], dict[int, slice]()
    for j in groups:
        masks = add_masks(j, group_length(num_open + j, block_size))[1:]  # 5
        drafts[j] = slice(len(place), len(place) + len(masks))
        place += masks
        drawn_offset += offset[masks.start : masks.stop]
    source_Q, offset_Q, place_M, drawn_offset_M = (
        np.array(values, dtype=np.int64) for values in (source, offset, place, drawn_offset)
    )
    return Scratch(
        source_Q=source_Q,
        offset_Q=offset_Q,
        sees_QQ=sees_QQ,
        place_M=place_M,
        drawn_offset_M=drawn_offset_M,
        drafts=drafts,
        filled=filled,
        has_copy=has_copy,
        first_drafting=first_drafting,
    )


def _num_masks(num_open: int, num_draft: int, block_size: int, groups: Sequence[int]) -> int:
    """Check masks and those of draft groups."""
    return num_draft + 1 + sum(group_length(num_open + j, block_size) for j in groups)


def group_length(offset: int, block_size: int) -> int:
    """Positions from here to the end of the block that this one is in."""
    return block_size - offset % block_size


def num_to_draft(num_committed: int, end: int, params: DecodeParams) -> int:
    """Most tokens worth drafting behind the committed ones: K. ``end`` is where the response is cut.

    The check of K tokens commits up to K + 1 of them, so a draft leaves one position to it.
    """
    if params.remasking != "self_speculative":
        return 0
    room = max(0, min(group_length(num_committed, params.block_size), end - num_committed - 1))
    return min(room, params.max_draft_tokens) if params.max_draft_tokens else room


def groups_to_run(num_committed: int, num_draft: int, end: int, params: DecodeParams) -> tuple[int, ...]:
    """The j whose draft group is read: of ``draft_groups``, those behind which there is something to draft.

    Of "auto", which chooses among those of "all" (:mod:`t3d.decoding.draft_costs`), all that may be read.
    What the group of j drafts begins behind its first mask, which is at the position that is drawn from c_j.
    """
    size = params.block_size
    chosen = (num_draft,) if params.draft_groups == "last" else range(num_draft + 1)
    return tuple(
        j
        for j in chosen
        if group_length(num_committed + j, size) > 1 and num_to_draft(num_committed + j + 1, end, params) > 0
    )


def num_accepted(draft: Sequence[int], drawn: Sequence[int]) -> int:
    """Length of the common prefix of the draft and what was drawn at its positions: a."""
    pairs = zip(draft, drawn, strict=False)
    return next((place for place, (ours, theirs) in enumerate(pairs) if ours != theirs), len(draft))


@lru_cache(maxsize=64)
def most_masks(params: DecodeParams) -> int:
    """Most masks that a forward of one request reads."""
    size, end = params.block_size, 3 * params.block_size  # an end that cuts nothing
    longest = ((num_open, num_to_draft(num_open, end, params)) for num_open in range(size))
    return max(_num_masks(*counts, size, groups_to_run(*counts, end, params)) for counts in longest)


def num_drafted_behind(
    accepted: int, num_committed: int, num_draft: int, end: int, params: DecodeParams
) -> int:
    """Length of the draft that a forward makes, of whose own ``num_draft`` tokens so many were accepted."""
    if accepted not in groups_to_run(num_committed, num_draft, end, params):
        return 0
    drawn_at = num_committed + accepted
    length = group_length(drawn_at, params.block_size) - 1  # its first mask is at the position of the draw
    return min(length, num_to_draft(drawn_at + 1, end, params))
