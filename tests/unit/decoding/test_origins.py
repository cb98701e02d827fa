"""A response's steps tell which of its tokens were accepted drafts, and why the others were drawn."""

import math
import random
from collections import Counter

import pytest

from t3d.decoding.completion import Completion, DecodeRequest
from t3d.decoding.drafting import Drafting
from t3d.decoding.origins import origins
from t3d.decoding.params import DecodeParams
from t3d.trajectory import visible_length

STOP = 9


def decoded(params: DecodeParams, num_prompt: int, draw: random.Random, breaks_at: int = 0):
    """A response of random draws, without a model, and the origins that its forwards know.

    Numbers of the forward ``breaks_at`` are none."""
    request = DecodeRequest(id="a", prompt_ids=(1,) * num_prompt)
    own, tokens, steps, told = Drafting.of_request(request, params), [], [], []
    stops, step = draw.choice((0.2, 4)), 0
    while not own.has_ended:
        own.arrange(draw.choice((3.0, 30.0)))
        step += 1
        if step == breaks_at:
            own.draft_no_more()
            continue
        drawn = [draw.choices((1, 2, STOP), (8, 2, stops))[0] for _ in own.scratch.drawn_offset_M]
        logprobs = [math.log(draw.choice((0.3, 0.9))) for _ in drawn]
        progress = own.commit(drawn, logprobs, {STOP})
        drafted, accepted = progress.checked
        tokens += drawn[: progress.num_new]
        steps += [step] * progress.num_new
        draws = "undrafted" if not drafted else "bonus" if accepted == drafted else "correction"
        told += (["accepted"] * accepted + [draws])[: progress.num_new]
    length, reason = visible_length(tokens, (STOP,), params.max_new_tokens)
    completion = Completion(
        id="a",
        prompt_ids=request.prompt_ids,
        response_ids=tuple(tokens),
        step_map=tuple(steps),
        visible_length=length,
        finish_reason=reason,
        num_drafted=own.num_drafted,
        num_accepted=own.num_accepted,
        params=params,
        mask_token_id=0,
    )
    return completion, tuple(told)


@pytest.mark.parametrize("groups", ["last", "all"])
@pytest.mark.parametrize("most", [0, pytest.param(2, marks=pytest.mark.many_inputs)])
@pytest.mark.parametrize("context", ["block", "causal"])
def test_origins_are_what_the_forwards_knew(groups, most, context):
    """Responses cut in an accepted draft by a stop token, and by the length, are among them."""
    draw, seen = random.Random(0), Counter()
    for number in range(300):
        params = DecodeParams(
            block_size=draw.choice((2, 4, 8)),
            remasking="self_speculative",
            draft_groups=groups,
            max_draft_tokens=most,
            context=context,
            max_new_tokens=1 + number % 20,
        )
        completion, told = decoded(params, draw.randint(1, 9), draw)
        assert origins(completion) == told
        seen.update(told)
        seen[completion.finish_reason, told[-1]] += 1
    assert min(seen[origin] for origin in ("accepted", "correction", "bonus", "undrafted")) > 20
    assert seen["stop", "accepted"] and seen["stop", "correction"] and seen["length", "bonus"]
    assert not seen["length", "accepted"], "a draft leaves the last position to the draw"


@pytest.mark.parametrize("groups", ["last", "all"])
def test_origins_are_known_behind_a_forward_whose_numbers_are_none(groups):
    draw, seen = random.Random(3), Counter()
    for number in range(60):
        params = DecodeParams(
            block_size=8, remasking="self_speculative", draft_groups=groups, max_new_tokens=20
        )
        completion, told = decoded(params, draw.randint(1, 9), draw, breaks_at=1 + number % 3)
        assert origins(completion) == told
        seen.update(told)
    assert min(seen[origin] for origin in ("accepted", "correction", "undrafted")) > 5


@pytest.mark.parametrize("context", ["block", "causal"])
def test_drafts_that_depend_on_the_batch_are_accepted_or_not(context):
    draw, seen = random.Random(2), Counter()
    for _ in range(100):
        params = DecodeParams(
            block_size=8,
            remasking="self_speculative",
            draft_groups="auto",
            context=context,
            max_new_tokens=19,
        )
        completion, told = decoded(params, draw.randint(1, 9), draw)
        expected = tuple(one if one == "accepted" else "drawn" for one in told)
        assert origins(completion) == expected
        seen.update(expected)
    assert min(seen["accepted"], seen["drawn"]) > 20


def test_left_to_right_drafts_nothing():
    params = DecodeParams(remasking="left_to_right", max_new_tokens=6)
    completion, _ = decoded(params, 3, random.Random(1))
    assert set(origins(completion)) == {"undrafted"}
