"""Which drafts pay (``draft_groups="auto"``): how much of a draft is checked, and where the next one is made.

All costs are in positions read. A forward costs F of them besides its own, and its n rows share them; the
fewer rows, the more a token is worth that saves a forward. How sure the model was of a drafted token when it
drafted it is taken for the chance that it is right: of 5,286 drafted tokens behind right ones, of the bundled
teacher and of a drafter, those at 0.9 or more were right in 99.9 %, those from 0.7 to 0.9 in 88 %, those
below in 55 % (docs/LOG.md). Nothing here depends on time, and no token on what is chosen here.
"""

from collections.abc import Sequence

from t3d.decoding.params import DecodeParams
from t3d.decoding.self_speculation import groups_to_run, num_group_masks

FORWARD_COST = 100
"""F on the CPU of docs/LOG.md with the bundled teacher: 73 to 155, fitted over batches of 1 to 64."""
_READ_AND_CHECK = {"self": 2, "next": 1}
"""Positions that a token costs where nothing is drafted, and that one more token of a draft costs: its own,
and its check mask where the model predicts a mask's own token."""
_USUAL_POSITIONS, _USUAL_TOKENS = 20, 3
"""What a row of a forward with drafts reads and commits, about."""
_PRIOR_RIGHT, _PRIOR_DRAFTED = 7, 10
"""What a request is taken to have drafted before it has drafted any."""


def token_value(num_rows: int, forward_cost: int = FORWARD_COST) -> float:
    """What a token costs that was not drafted: drawn alone, or in a usual forward with drafts."""
    share = forward_cost / num_rows
    return min(share + _READ_AND_CHECK["self"], (share + _USUAL_POSITIONS) / _USUAL_TOKENS)


def share_right(num_accepted: int, num_drafted: int) -> float:
    """Which share of further drafted tokens of a request to expect to be right."""
    return (num_accepted + _PRIOR_RIGHT) / (num_drafted + _PRIOR_DRAFTED)


def chosen_drafts(
    num_committed: int,
    end: int,
    params: DecodeParams,
    draft: Sequence[int],
    chances: Sequence[float],
    share_right: float,
    value: float,
) -> tuple[list[int], tuple[int, ...]]:
    """What to check of a draft, and the j whose draft group to read, by ``draft_groups``.

    "last" and "all" check the whole draft. "auto" goes by the ``chances`` of each drafted token to be right
    if those before it are, by ``share_right`` of what groups draft (:func:`share_right`) and by the ``value``
    of a token (:func:`token_value`): a token of a draft pays if it is right often enough for its own position
    and its check mask, a group if the forward is likely to end with it.
    """
    if params.draft_groups != "auto":
        return list(draft), groups_to_run(num_committed, len(draft), end, params)
    cost, survivals = _READ_AND_CHECK[params.predicts], [1.0]
    for chance in chances:
        if survivals[-1] * chance * value < cost:
            break
        survivals.append(survivals[-1] * chance)
    num_draft, gain = len(survivals) - 1, share_right * value - cost
    survivals.append(0.0)
    groups = groups_to_run(num_committed, num_draft, end, params) if gain > 0 else ()
    lengths = {j: num_group_masks(num_committed + j, params) for j in groups}
    spared = int(params.predicts == "self")  # the first mask drafts nothing
    return list(draft[:num_draft]), tuple(
        j for j in groups if (survivals[j] - survivals[j + 1]) * (lengths[j] - spared) * gain >= lengths[j]
    )
