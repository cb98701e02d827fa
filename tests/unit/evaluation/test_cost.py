import pytest

from t3d.decoding.completion import Completion
from t3d.decoding.params import DecodeParams
from t3d.evaluation.cost import decoding_cost, keep_rows, response_row
from t3d.evaluation.intervals import mean_interval, wilson_interval


def completion(ids, steps, commits, visible, num_steps, **more):
    return Completion(
        id="x",
        prompt_ids=(1,),
        response_ids=ids,
        step_map=steps,
        visible_length=visible,
        finish_reason="stop",
        num_denoising_steps=num_steps,
        num_commit_forwards=commits,
        mask_token_id=37,
        **{"params": DecodeParams()} | more,
    )


def test_wilson_interval_matches_published_values():
    """Newcombe (1998), table I: 81 of 263 gives 0.2553 to 0.3662; 0 of 20 gives 0 to 0.1611."""
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)


def test_mean_interval_by_hand():
    """Two tasks at 0.5 with n = 100: Wilson 0.5 +- 0.096170 each, so +- 0.096170 / sqrt(2)."""
    assert wilson_interval(50, 100) == pytest.approx((0.403830, 0.596170), abs=1e-5)
    assert mean_interval([0.5, 0.5], [100, 100]) == pytest.approx((0.5 - 0.068002, 0.5 + 0.068002), abs=1e-5)


@pytest.mark.parametrize("num_correct", [0, 37, 100])
def test_mean_interval_of_one_proportion_is_wilson_s(num_correct):
    assert mean_interval([num_correct / 100], [100]) == pytest.approx(wilson_interval(num_correct, 100))


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_mean_interval_is_not_empty_where_all_answers_agree(share):
    low, high = mean_interval([share] * 3, [100] * 3)
    assert 0 <= low <= share <= high <= 1
    assert high - low > 0.01


def test_cost_counts_commit_forwards_in_tokens_per_forward():
    """8 committed tokens in 4 steps and 1 commit: TokPS 2, TPF 8 / 5; 6 visible in 2 s: 3 tokens/s."""
    cost = decoding_cost([response_row(completion((1,) * 8, (1, 1, 2, 2, 3, 3, 4, 4), 1, 6, 4), 2.0)])
    assert cost["tokens_per_step"] == 2.0
    assert cost["tokens_per_forward"] == pytest.approx(1.6)
    assert cost["tokens_per_second"] == 3.0


def test_drafts_are_counted_where_a_strategy_makes_some():
    """5 of 8 drafts are in the responses; a response of one token has none, others have no such numbers."""
    drafting = {"params": DecodeParams(remasking="self_speculative")}
    drafted = completion(
        (1,) * 8, (1, 1, 1, 2, 2, 2, 3, 3), 0, 8, 3, num_drafted=8, num_accepted=5, **drafting
    )
    short = response_row(completion((1,), (1,), 0, 1, 1, **drafting), 1.0)
    plain = response_row(completion((1,), (1,), 0, 1, 1), 1.0)
    row = response_row(drafted, 2.0)
    assert (row["num_drafted"], row["num_accepted"], short["num_drafted"]) == (8, 5, 0)
    cost = decoding_cost([row, short])
    assert (cost["num_drafted"], cost["num_accepted"], cost["acceptance"]) == (8, 5, 5 / 8)
    assert not plain.keys() & {"num_drafted", "num_accepted"}
    assert (
        decoding_cost([plain]).keys()
        == decoding_cost([short]).keys()
        == cost.keys()
        - {
            "num_drafted",
            "num_accepted",
            "acceptance",
        }
    )


def test_seconds_of_responses_add_up_to_the_wall_time(monkeypatch):
    times = iter([10.0, 10.5, 12.0])
    monkeypatch.setattr("t3d.evaluation.cost.time.perf_counter", lambda: next(times))
    rows = []
    on_finish = keep_rows(rows.append)
    for _ in range(2):
        on_finish(completion((1,), (1,), 0, 1, 1))
    assert [row["seconds"] for row in rows] == [0.5, 1.5]
    assert decoding_cost(rows)["seconds"] == 2.0
