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
``left_to_right``. The next draft is what the group of the last draw says of the positions behind it. A
forward whose logits are not all numbers is read again with K = 0 and without groups, and so are all that come
after it: what a token holds that is not a number reaches those it is hidden from, too.

An autoregressive model (``predicts="next"``) is decoded in blocks of one token, with causal context: nothing
is open, all that is committed is closed. Every position, a mask too, gives the logits of the one behind it.
So there are no check masks: c_j is the token at n + j - 1. A draft may be as long as one likes: D. A group is
D masks from n + j on, which draft n + j + 1 to n + j + D.

Q tokens read besides the closed ones: the *scratch*. J checks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from t3d.decoding.params import Context, DecodeParams
from t3d.predicts import Predicts

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
    draft_room: int = 0,
) -> Scratch:
    """Items 2 to 5 for so many open and draft tokens, with draft groups g_j for these j.

    ``draft_room``: D, where the model predicts the next token.
    """
    filled = num_open + num_draft
    is_next = predicts == "next"
    assert num_open < block_size and (is_next or filled <= block_size), "a draft ends with its block"
    has_copy = context == "block" and filled == block_size and num_draft > 0
    source, offset = [*range(filled)] * (1 + has_copy), [*range(filled)] * (1 + has_copy)
    lengths = {j: draft_room if is_next else group_length(num_open + j, block_size) for j in groups}
    size = len(source) + sum(lengths.values()) + (0 if is_next else num_draft + 1)
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

    place = [j - 1 if is_next else add_masks(j, 1).start for j in range(num_draft + 1)]  # 4
    first_drafting = len(source)
    drawn_offset, drafts = [num_open + j for j in range(num_draft + 1)], dict[int, slice]()
    for j, length in lengths.items():
        masks = add_masks(j, length) if is_next else add_masks(j, length)[1:]  # 5
        drafts[j] = slice(len(place), len(place) + len(masks))
        place += masks
        drawn_offset += [where + is_next for where in offset[masks.start : masks.stop]]
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


def scratch_of_params(
    num_open: int, num_draft: int, groups: tuple[int, ...], params: DecodeParams
) -> Scratch:
    """The same by what is set."""
    return scratch_of(
        num_open,
        num_draft,
        params.block_size,
        params.context,
        groups,
        params.predicts,
        params.draft_room if params.predicts == "next" else 0,
    )


def group_length(offset: int, block_size: int) -> int:
    """Positions from here to the end of the block that this one is in."""
    return block_size - offset % block_size


def num_to_draft(num_committed: int, end: int, params: DecodeParams) -> int:
    """Most tokens worth drafting behind the committed ones: K. ``end`` is where the response is cut.

    The check of K tokens commits up to K + 1 of them, so a draft leaves one position to it.
    """
    if params.remasking != "self_speculative":
        return 0
    room = params.draft_room
    if params.predicts == "self":
        room = min(room, group_length(num_committed, params.block_size))
    return max(0, min(room, end - num_committed - 1))


def groups_to_run(num_committed: int, num_draft: int, end: int, params: DecodeParams) -> tuple[int, ...]:
    """The j whose draft group is read: of ``draft_groups``, those behind which there is something to draft.

    Of "auto", which chooses among those of "all" (:mod:`t3d.decoding.draft_costs`), all that may be read.
    What the group of j drafts begins behind the position that is drawn from c_j.
    """
    chosen = (num_draft,) if params.draft_groups == "last" else range(num_draft + 1)
    return tuple(j for j in chosen if num_drafted_behind_draw(num_committed + j, end, params) > 0)


def num_group_masks(drawn_at: int, params: DecodeParams) -> int:
    """Masks of a group behind the draw at a position."""
    is_next = params.predicts == "next"
    return params.draft_room if is_next else group_length(drawn_at, params.block_size)


def num_drafted_behind_draw(drawn_at: int, end: int, params: DecodeParams) -> int:
    """Tokens that a group drafts behind the draw at a position, where its first mask is."""
    spared = int(params.predicts == "self")  # the first mask is at the position of the draw
    return min(num_group_masks(drawn_at, params) - spared, num_to_draft(drawn_at + 1, end, params))


def num_accepted(draft: Sequence[int], drawn: Sequence[int]) -> int:
    """Length of the common prefix of the draft and what was drawn at its positions: a."""
    pairs = zip(draft, drawn, strict=False)
    return next((place for place, (ours, theirs) in enumerate(pairs) if ours != theirs), len(draft))


@lru_cache(maxsize=64)
def most_masks(params: DecodeParams) -> int:
    """Most masks that a forward of one request reads."""
    end = 3 * (params.block_size + params.draft_room)  # an end that cuts nothing
    return max(_num_masks(num_open, end, params) for num_open in range(params.block_size))


def _num_masks(num_open: int, end: int, params: DecodeParams) -> int:
    num_draft = num_to_draft(num_open, end, params)
    groups = groups_to_run(num_open, num_draft, end, params)
    scratch = scratch_of_params(num_open, num_draft, groups, params)
    return len(scratch) - scratch.filled * (1 + scratch.has_copy)


def num_drafted_behind(
    accepted: int, num_committed: int, num_draft: int, end: int, params: DecodeParams
) -> int:
    """Length of the draft that a forward makes, of whose own ``num_draft`` tokens so many were accepted."""
    if accepted not in groups_to_run(num_committed, num_draft, end, params):
        return 0
    drawn_at = num_committed + accepted
    return num_drafted_behind_draw(drawn_at, end, params)
