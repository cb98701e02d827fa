"""Two decodings of one prompt part at a tie, or the GPU check fails: benchmarks/differences.py."""

import importlib
import math
from dataclasses import replace
from pathlib import Path

import pytest

from t3d.counter_rng import counter_uniform
from t3d.decoding.completion import Completion, DecodeRequest
from t3d.decoding.params import DecodeParams
from t3d.decoding.specification import decode_left_to_right

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
PARAMS = DecodeParams(temperature=0.0)


@pytest.fixture(scope="module", autouse=True)
def _benchmarks_can_be_imported():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield


def completion(tokens, steps, logprobs, params=PARAMS):
    return Completion(
        id="0",
        prompt_ids=(1,),
        response_ids=tokens,
        step_map=steps,
        logprobs=logprobs,
        visible_length=len(tokens),
        finish_reason="length",
        num_denoising_steps=max(steps),
        params=params,
        mask_token_id=9,
    )


OURS = completion((5, 6, 7, 8), (1, 2, 2, 3), (-0.1, -0.2, -0.3, -0.4))


@pytest.mark.parametrize(
    ("theirs", "gap"),
    [
        (OURS, None),
        (replace(OURS, logprobs=(-0.5, -0.6, -0.7, -0.8)), None),
        # another token at the second step, and all after it: the gap is that of the second step
        (completion((5, 6, 3, 4), (1, 2, 2, 3), (-0.1, -0.2, -0.31, -9.0)), 0.01),
        # two places change their steps: at the first of them place 0 is committed here, place 3 there
        (completion((5, 6, 7, 8), (3, 2, 2, 1), (-0.1, -0.2, -0.3, -0.4)), 0.3),
    ],
)
def test_the_gap_is_that_of_the_first_step_that_differs(theirs, gap):
    found = importlib.import_module("differences").first_parting(OURS, theirs)
    assert found == (None if gap is None else pytest.approx(gap))


def test_a_threshold_that_one_of_them_passes_is_the_tie():
    params = replace(PARAMS, remasking="low_confidence_dynamic", confidence_threshold=0.9)
    ours = completion((5, 6), (1, 1), (-0.01, math.log(0.9) + 0.002), params)
    theirs = completion((5, 6), (1, 2), (-0.01, math.log(0.9) - 0.001), params)
    assert importlib.import_module("differences").first_parting(ours, theirs) == pytest.approx(0.002)


def compared(theirs, dtype, ours=OURS):
    return importlib.import_module("gpu_decoding_checks").compared("B4", dtype, [ours, ours], [ours, theirs])


def test_a_response_may_part_at_a_tie_of_its_dtype_only():
    other = completion((5, 6, 3, 4), (1, 2, 2, 3), (-0.1, -0.2, -0.31, -9.0))
    row = compared(other, "bfloat16")
    assert row["ok"] and row["equal responses"] == 1 and row["token agreement"] == 6 / 8
    row = compared(other, "float32")
    assert not row["ok"] and row["why"] == "B4 in float32: 1 of 2 responses differ, gap 0.01"
    assert compared(OURS, "float32")["ok"]


def test_sampled_responses_are_equal_in_float32_and_not_judged_in_bfloat16():
    ours = replace(OURS, params=replace(PARAMS, temperature=1.0))
    other = replace(ours, response_ids=(5, 6, 7, 4), logprobs=(-0.1, -0.2, -0.3, -0.4))
    assert not compared(other, "float32", ours)["ok"]
    assert "ok" not in compared(other, "bfloat16", ours)


@pytest.mark.parametrize("fields", [{"block_size": 4}, {"block_size": 1, "context": "causal", "top_k": 9}])
def test_the_distance_of_a_draw_is_how_far_its_uniform_has_to_move(exact_model, monkeypatch, fields):
    """Moved by a little more than that the specification draws the other token, and by a little less not."""
    differences = importlib.import_module("differences")
    request = DecodeRequest(id="a", prompt_ids=(3, 1, 4))
    params = DecodeParams(remasking="left_to_right", temperature=1.0, max_new_tokens=6, **fields)

    def decoded(moved=0.0):
        def uniform(*key):
            at = (key[2] == len(request.prompt_ids) + 4).double()
            return counter_uniform(*key) + moved * at

        monkeypatch.setattr("t3d.decoding.specification.counter_uniform", uniform)
        how = {"mask_token_id": 37, "stop_token_ids": ()}
        return decode_left_to_right(exact_model, request, params, **how)

    ours, found = decoded(), set()
    for moved in (-0.3, -0.1, -0.01, 0.01, 0.1, 0.3):
        theirs = decoded(moved)
        if theirs.response_ids == ours.response_ids:
            continue
        assert theirs.response_ids[:4] == ours.response_ids[:4]
        distance = differences.distance_of_draw(exact_model, request, ours, theirs)
        assert 0 < distance <= abs(moved)
        sign = math.copysign(1, moved)
        assert decoded(sign * (distance + 1e-7)).response_ids[4] == theirs.response_ids[4]
        assert decoded(sign * (distance - 1e-7)).response_ids[4] != theirs.response_ids[4]
        found.add(theirs.response_ids[4])
    assert found
    assert math.isnan(differences.distance_of_draw(exact_model, request, ours, ours))
