"""Settings of decoding."""

import dataclasses
import json
from typing import get_type_hints

import numpy as np
import pytest

from t3d.decoding.params import DecodeParams
from t3d.errors import InputError

WHOLE = [name for name, kind in get_type_hints(DecodeParams).items() if kind is int]


def check(field, value):
    """What DecodeParams do of such a value; the runtime type checker would refuse some first."""
    params = object.__new__(DecodeParams)
    for name, default in (dataclasses.asdict(DecodeParams()) | {field: value}).items():
        object.__setattr__(params, name, default)
    params.__post_init__(None)
    return params


def test_defaults_are_the_papers_full_step_decoding():
    """Table 1: block size 4, 4 steps, temperature 0.1, no filter; recipe 1.1."""
    params = DecodeParams()
    assert (params.block_size, params.steps_per_block) == (4, 4)
    assert params.remasking == "low_confidence_static"
    assert (params.temperature, params.top_k, params.top_p) == (0.1, 0, 1.0)
    assert params.confidence == "model"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("block_size", 0),
        ("steps_per_block", 0),
        ("steps_per_block", 5),
        ("remasking", "high_confidence"),
        ("confidence", "entropy"),
        ("temperature", -0.1),
        ("temperature", 1e-300),
        ("temperature", 9e-7),
        ("temperature", 1e300),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("max_new_tokens", 0),
        ("confidence_threshold", -0.1),
        ("confidence_threshold", 1.1),
        ("max_draft_tokens", -1),
        ("context", "whole"),
        ("draft_groups", "first"),
    ],
)
def test_a_bad_value_is_named(field, value):
    with pytest.raises(InputError) as caught:
        check(field, value)
    assert (caught.value.field, caught.value.value) == (field, value)


@pytest.mark.parametrize("value", [2.5, 4.0, True, "4", None, float("nan")], ids=repr)
@pytest.mark.parametrize("field", WHOLE)
def test_a_count_that_is_no_whole_number_is_refused(field, value):
    with pytest.raises(
        InputError, match=rf"^{field}={value!r}: not a whole number. Fix: use for example 8.$"
    ):
        check(field, value)


@pytest.mark.parametrize("field", WHOLE)
def test_whole_numbers_of_numpy_are_counts_that_can_be_written(field):
    record = check(field, np.int64(4)).record()
    assert record == DecodeParams(**{field: 4}).record() and json.loads(json.dumps(record)) == record


@pytest.mark.parametrize("value", ["1", None, True], ids=repr)
@pytest.mark.parametrize("field", ["temperature", "top_p", "confidence_threshold", "entropy_bound"])
def test_what_is_no_number_is_refused(field, value):
    with pytest.raises(InputError, match=rf"^{field}={value!r}: not a number"):
        check(field, value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("field", ["temperature", "top_p", "confidence_threshold"])
def test_values_that_are_not_finite_are_refused(field, value):
    """``--temperature inf`` would turn the masked-out logits into not-a-number."""
    with pytest.raises(InputError):
        DecodeParams(**{field: value})


def test_the_sampled_confidence_of_greedy_decoding_is_refused():
    """It would be 1 everywhere, so that the lowest positions always won."""
    with pytest.raises(InputError, match="always 1 at temperature=0"):
        DecodeParams(temperature=0.0, confidence="sampled")


@pytest.mark.parametrize("remasking", ["left_to_right", "self_speculative"])
def test_strategies_that_go_by_position_have_no_number_of_steps(remasking):
    """The default and the block size, which say nothing, are taken, whatever the block size."""
    for size, steps in ((2, 4), (8, 4), (8, 8)):
        params = DecodeParams(remasking=remasking, block_size=size, steps_per_block=steps)
        assert params.is_left_to_right and params.schedule == ()
    with pytest.raises(
        InputError,
        match=f"steps_per_block=2: remasking='{remasking}' has no number of steps. Fix: leave it out",
    ):
        DecodeParams(remasking=remasking, block_size=8, steps_per_block=2)


@pytest.mark.parametrize("remasking", ["left_to_right", "self_speculative"])
@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("confidence", "sampled", "goes by position. Fix: leave it out, or change the other"),
        ("confidence_threshold", 0.5, "has no threshold. Fix: leave it out, or decode by low_confidence_dyn"),
        ("entropy_bound", 0.5, "has no bound. Fix: leave it out, or decode by entropy_bounded"),
    ],
)
def test_strategies_that_go_by_position_have_no_confidence(remasking, field, value, problem):
    """Their defaults say nothing, and are taken."""
    params = DecodeParams(remasking=remasking, **{field: getattr(DecodeParams, field)})
    assert params == DecodeParams(remasking=remasking)
    with pytest.raises(InputError, match=f"^{field}={value!r}: ignored: remasking='{remasking}' {problem}"):
        DecodeParams(remasking=remasking, **{field: value})


def test_params_are_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        DecodeParams().seed = 1


@pytest.mark.parametrize(("tokens", "steps"), [(1, 8), (2, 4), (8, 1)])
def test_tokens_per_step_say_the_steps(tokens, steps):
    said = DecodeParams(block_size=8, tokens_per_step=tokens)
    assert said == DecodeParams(block_size=8, steps_per_block=steps)
    assert said.record() == DecodeParams(block_size=8, steps_per_block=steps).record()
    assert dataclasses.replace(said, seed=1).steps_per_block == steps


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tokens_per_step": 3}, "tokens_per_step=3: does not divide block_size=4. Fix: use divisors of 4."),
        ({"tokens_per_step": 8}, "tokens_per_step=8: does not divide"),
        ({"tokens_per_step": 0}, "tokens_per_step=0: not positive"),
        ({"tokens_per_step": 2, "steps_per_block": 2}, "tokens_per_step=2: steps_per_block says the same"),
        ({"tokens_per_step": 1, "remasking": "left_to_right"}, "tokens_per_step=1: .* no number of steps"),
        ({"tokens_per_step": 1, "block_size": 0}, "block_size=0: not positive"),
        ({"n": 0}, "n=0: not positive"),
        ({"n": 2, "temperature": 0.0}, "n=2: all samples of a prompt are the same at temperature=0"),
        ({"n": 2, "top_k": 1}, "n=2: all samples of a prompt are the same at top_k=1"),
        ({"stop": [""]}, "stop='': not a text, or an empty one"),
        ({"stop": ""}, "stop='': not a text, or an empty one"),
    ],
)
def test_what_n_stop_and_tokens_per_step_cannot_be_is_named(fields, message):
    with pytest.raises(InputError, match=f"^{message}"):
        DecodeParams(**fields)


def test_greedy_samples_differ_where_the_order_is_drawn():
    assert DecodeParams(n=2, temperature=0.0, remasking="random").n == 2


def test_a_single_stop_text_may_stand_alone():
    assert DecodeParams(stop="###") == DecodeParams(stop=["###"]) == DecodeParams(stop=("###",))
    assert hash(DecodeParams(stop=["###"])) == hash(DecodeParams(stop=("###",)))


def test_a_record_says_what_was_set_and_of_new_fields_nothing_else():
    """A run that was recorded before there were ``n`` and ``stop`` is the same run."""
    before = {
        "block_size": 4,
        "steps_per_block": 4,
        "remasking": "low_confidence_static",
        "confidence_threshold": 0.9,
        "entropy_bound": 0.1,
        "predicts": "self",
        "context": "block",
        "draft_groups": "last",
        "max_draft_tokens": 0,
        "confidence": "model",
        "temperature": 0.1,
        "top_k": 0,
        "top_p": 1.0,
        "max_new_tokens": 256,
        "seed": 0,
    }
    assert DecodeParams().record() == before
    said = DecodeParams(n=2, stop=["\n\n"]).record()
    assert said == before | {"n": 2, "stop": ["\n\n"]}
    assert DecodeParams(**json.loads(json.dumps(said))) == DecodeParams(n=2, stop=["\n\n"])
