"""What decoding takes and gives."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t3d.decoding.completion import Completion, DecodeRequest, check_request
from t3d.decoding.params import DecodeParams
from t3d.errors import InputError
from t3d.trajectory import visible_length


@pytest.mark.parametrize(
    ("ids", "stops", "limit", "length", "reason"),
    [
        ([1, 2, 3, 4], [9], 8, 4, "length"),
        ([1, 2, 3, 4], [9], 3, 3, "length"),
        ([1, 9, 3, 4], [9], 8, 2, "stop"),
        ([9, 9, 3, 4], [9], 8, 1, "stop"),
        ([1, 2, 9, 8], [8, 9], 8, 3, "stop"),
        ([1, 2, 9, 4], [9], 3, 3, "stop"),
        ([1, 2, 9, 4], [9], 2, 2, "length"),
        ([1, 2, 3, 4], [], 4, 4, "length"),
    ],
)
def test_visible_length_by_hand(ids, stops, limit, length, reason):
    """The first stop token is visible; one past the limit does not count."""
    assert visible_length(ids, stops, limit) == (length, reason)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12), st.sets(st.integers(0, 5)), st.integers(1, 14))
def test_the_answer_ends_after_its_first_stop_token(ids, stops, limit):
    length, reason = visible_length(ids, sorted(stops), limit)
    assert 1 <= length <= min(limit, len(ids))
    assert not stops & set(ids[: length - 1])
    assert reason == ("stop" if ids[length - 1] in stops else "length")
    if reason == "length":
        assert length == min(limit, len(ids))


def test_a_completion_counts_its_forwards_and_cuts_its_answer():
    completion = Completion(
        id="a",
        prompt_ids=(1,),
        response_ids=(2, 3, 4),
        step_map=(1, 2, 3),
        visible_length=2,
        finish_reason="stop",
        num_denoising_steps=3,
        num_commit_forwards=1,
        params=DecodeParams(),
        mask_token_id=37,
    )
    assert completion.visible_ids == (2, 3)
    assert completion.num_forwards == 4


def test_an_empty_prompt_is_refused():
    with pytest.raises(InputError, match="empty prompt"):
        check_request(DecodeRequest(id="a", prompt_ids=()), DecodeParams(), 100)


@pytest.mark.parametrize(("new_tokens", "fits"), [(10, True), (11, True), (12, False)])
def test_the_last_block_must_fit_whole(new_tokens, fits):
    """5 prompt tokens, blocks of 4, 16 positions: up to 11 new tokens; 12 would need 20 positions."""
    request, params = DecodeRequest(id="a", prompt_ids=(1,) * 5), DecodeParams(max_new_tokens=new_tokens)
    if fits:
        check_request(request, params, 16)
    else:
        with pytest.raises(InputError, match=r"'a' has 5 prompt tokens and would need 20 positions.*has 16"):
            check_request(request, params, 16)
