"""Settings of decoding."""

import dataclasses

import pytest

from t3d.decoding.params import DecodeParams
from t3d.errors import InputError


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
    fields = {"block_size": 4, "steps_per_block": 4} | {field: value}
    if isinstance(value, str):  # the runtime type checker would refuse them first
        params = object.__new__(DecodeParams)
        for name, default in (dataclasses.asdict(DecodeParams()) | fields).items():
            object.__setattr__(params, name, default)
        check = params.__post_init__
    else:

        def check():
            return DecodeParams(**fields)

    with pytest.raises(InputError) as caught:
        check()
    assert (caught.value.field, caught.value.value) == (field, value)


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
