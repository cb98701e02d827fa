"""Settings by label: every block size with every axis, and refusals."""

import dataclasses

import pytest

from t3d.decoding.params import DecodeParams
from t3d.decoding.settings import decoding_settings, static_setting
from t3d.errors import InputError
from t3d.predicts import OF_NEXT

SHARED = DecodeParams(max_new_tokens=4, temperature=1.0)
BLOCK_OF_4 = {"block_sizes": (4,), "shared": SHARED}


def test_every_block_size_meets_every_other_axis():
    found = decoding_settings(
        block_sizes=(4, 8),
        tokens_per_step=(2,),
        dynamic=(0.9, 0.95),
        entropy_bounds=(0.2,),
        shared=dataclasses.replace(SHARED, remasking="sequential", seed=3),
    )
    endings = ("T2", "dynamic", "dynamic-0.95", "entropy-0.2")
    assert list(found) == [f"B{size}-{ending}" for size in (4, 8) for ending in endings]
    assert {params.seed for params in found.values()} == {3}
    assert found["B8-T2"].steps_per_block == 4 and found["B8-T2"].remasking == "sequential"
    dynamic = found["B8-dynamic-0.95"]
    assert (dynamic.remasking, dynamic.confidence_threshold) == ("low_confidence_dynamic", 0.95)
    assert dynamic.steps_per_block == 8
    assert (found["B4-entropy-0.2"].remasking, found["B4-entropy-0.2"].entropy_bound) == (
        "entropy_bounded",
        0.2,
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"block_sizes": (4, 6), "tokens_per_step": (4,)}, "tokens_per_step=4: does not divide block_size=6"),
        ({"tokens_per_step": (8,)}, "tokens_per_step=8: does not divide block_size=4"),
        ({"tokens_per_step": (0,)}, "tokens_per_step=0: not positive"),
        ({"block_sizes": (0,)}, "block_size=0: not positive"),
        ({"dynamic": (1.5,)}, "confidence_threshold=1.5: not in"),
        ({"dynamic": (float("nan"),)}, "confidence_threshold=nan: not in"),
        ({"entropy_bounds": (-0.1,)}, "entropy_bound=-0.1: not a number of 0 or more"),
        ({"block_sizes": ()}, "no setting to evaluate"),
    ],
)
def test_a_setting_that_cannot_be_is_named(fields, message):
    with pytest.raises(InputError, match=message):
        decoding_settings(**BLOCK_OF_4 | {"tokens_per_step": (1,)} | fields)


def test_settings_left_to_right_by_label():
    """What is said of drafts holds for them alone, and confidence for the others alone."""
    shared = dataclasses.replace(SHARED, confidence="sampled", draft_groups="all", max_draft_tokens=3)
    names = ("left_to_right", "self_speculative")
    found = decoding_settings(block_sizes=(4, 8), tokens_per_step=(2,), left_to_right=names, shared=shared)
    endings = ("T2", "left-to-right", "self-speculative-all")
    assert list(found) == [f"B{size}-{ending}" for size in (4, 8) for ending in endings]
    static = DecodeParams(block_size=8, confidence="sampled", max_new_tokens=4, temperature=1.0)
    assert found["B8-T2"] == static
    drafts = DecodeParams(
        block_size=8,
        steps_per_block=8,
        remasking="self_speculative",
        draft_groups="all",
        max_draft_tokens=3,
        max_new_tokens=4,
        temperature=1.0,
    )
    assert found["B8-self-speculative-all"] == drafts
    plain = {"remasking": "left_to_right", "draft_groups": "last", "max_draft_tokens": 0}
    assert found["B8-left-to-right"] == dataclasses.replace(drafts, **plain)
    assert list(decoding_settings(**BLOCK_OF_4, left_to_right=names)) == [
        "B4-left-to-right",
        "B4-self-speculative",
    ]
    shared = dataclasses.replace(SHARED, draft_groups="auto", confidence_threshold=0.5, entropy_bound=0.5)
    found = decoding_settings(block_sizes=(4,), left_to_right=names[1:], shared=shared)
    assert list(found) == ["B4-self-speculative-auto"]


@pytest.mark.parametrize("remasking", ["low_confidence_dynamic", "entropy_bounded", "random"])
def test_a_strategy_that_no_setting_would_use_is_refused(remasking):
    shared = dataclasses.replace(SHARED, remasking=remasking)
    with pytest.raises(InputError, match=f"remasking='{remasking}'"):
        decoding_settings(block_sizes=(4,), dynamic=(0.9,), shared=shared)


@pytest.mark.parametrize(
    ("field", "settings"),
    [
        ("block_size=\\(8,\\)", {"block_sizes": (8,), "tokens_per_step": (1,)}),
        ("tokens_per_step=1", {"block_sizes": (1,), "tokens_per_step": (1,)}),
        ("dynamic=0.9", {"block_sizes": (1,), "dynamic": (0.9,)}),
        ("entropy_bounds=0.2", {"block_sizes": (1,), "entropy_bounds": (0.2,)}),
    ],
)
def test_what_an_autoregressive_model_has_not_is_named_as_it_was_given(field, settings):
    shared = DecodeParams(**OF_NEXT)
    with pytest.raises(InputError, match=f"^{field}: of an autoregressive model"):
        decoding_settings(**settings, shared=shared)


def test_a_label_with_zeros_in_front_is_that_without():
    """It was a KeyError."""
    shared = DecodeParams(max_new_tokens=8)
    assert static_setting("rollout_settings", "B08-T04", shared) == static_setting(
        "rollout_settings", "B8-T4", shared
    )


def test_a_label_may_say_the_temperature_too():
    shared = DecodeParams(temperature=0.0, max_new_tokens=8)
    plain = static_setting("rollout_settings", "B8-T4", shared)
    drawn = static_setting("rollout_settings", "B8-T4-temperature-0.7", shared)
    assert plain.temperature == 0 and drawn == dataclasses.replace(plain, temperature=0.7)
    for wrong in ("B8-T4-temperature-", "B8-T4-temperature-1e3", "B8-T4-0.7"):
        with pytest.raises(InputError, match=f"rollout_settings='{wrong}': no block size and tokens"):
            static_setting("rollout_settings", wrong, shared)
