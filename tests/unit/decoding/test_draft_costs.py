"""Which drafts pay: by hand, and in order of what a token is worth."""

import pytest

from t3d.decoding.completion import DecodeRequest
from t3d.decoding.draft_costs import chosen_drafts, share_right, token_value
from t3d.decoding.drafting import Drafting
from t3d.decoding.params import DecodeParams

PARAMS = DecodeParams(block_size=8, remasking="self_speculative", draft_groups="auto", max_new_tokens=64)


def choose(chances, value, *, num_committed=17, end=81, right=0.7, **fields):
    """By default one token of a block of 8 is known."""
    params = DecodeParams(**{name: getattr(PARAMS, name) for name in PARAMS.__dataclass_fields__} | fields)
    draft = list(range(len(chances)))
    kept, groups = chosen_drafts(num_committed, end, params, draft, chances, right, value)
    assert kept == draft[: len(kept)]
    return len(kept), groups


def test_the_value_of_a_token_by_hand():
    """Alone 120 + 2, with drafts (120 + 20) / 3; shared by 60 rows, 2 + 2 is less than 22 / 3."""
    assert token_value(1, 120) == pytest.approx(140 / 3)
    assert token_value(60, 120) == 4.0
    values = [token_value(num_rows) for num_rows in range(1, 100)]
    assert values == sorted(values, reverse=True)


def test_the_share_that_is_right_is_learnt():
    assert share_right(0, 0) == 0.7
    assert share_right(30, 30) > 0.9 > 0.2 > share_right(0, 30)


def test_a_request_whose_drafts_were_wrong_drafts_less_than_one_whose_were_right():
    """By what the request itself has seen; the same tokens are worth as much to either."""
    groups = {}
    for num_accepted in (0, 30):
        request = DecodeRequest(id="r", prompt_ids=tuple(range(17)))
        own = Drafting.of_request(request, PARAMS)
        own.num_drafted, own.num_accepted = 30, num_accepted
        own.arrange(6.0)
        groups[num_accepted] = own.scratch.drafts
    assert not groups[0] and groups[30]


def test_behind_a_sure_draft_the_next_one_is_made_and_behind_an_unsure_token_too():
    """7 tokens fill the block, so the group of the last begins the next one."""
    assert choose([1.0] * 7, 40) == (7, (7,))
    assert choose([1.0, 1.0, 0.5, 1.0, 1.0, 1.0, 1.0], 40) == (7, (2, 7))
    assert choose([], 40) == (0, (0,))


def test_what_is_hardly_reached_is_not_checked():
    """Survival .5, .25, .125, ...: a token pays while that times 20 is at least 2, the third is the last."""
    assert choose([0.5] * 7, 20)[0] == 3
    assert choose([0.5] * 7, 1000)[0] == 7


def test_a_group_pays_by_its_length_and_its_chance_by_hand():
    """Of d_0 the chance to be wrong is .2; its group has 7 masks and drafts 6: .2 x 6 x (.7 v - 2) >= 7."""
    least = (7 / (0.2 * 6) + 2) / 0.7
    assert 0 in choose([0.8, *[1.0] * 6], least + 0.01)[1]
    assert 0 not in choose([0.8, *[1.0] * 6], least - 0.01)[1]
    assert 0 not in choose([0.8, *[1.0] * 6], least + 0.01, right=0.5)[1]


@pytest.mark.parametrize("right", [0.0, 0.7])
def test_nothing_is_drafted_where_a_token_is_worth_little_or_drafts_were_wrong(right):
    assert choose([], 2.5 if right else 100.0, right=right) == (0, ())


def test_no_group_where_nothing_is_left_to_draft():
    """At the last position of the response, or of a block."""
    assert choose([], 1e6, num_committed=80) == (0, ())
    assert choose([], 1e6, num_committed=23) == (0, ())
