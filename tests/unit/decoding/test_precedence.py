"""Who says how to decode: what is given, then the checkpoint, then the defaults."""

import dataclasses

import pytest

from t3d.decoding.params import DecodeParams
from t3d.decoding.precedence import OWN_FIELDS, check_used, resolve_params
from t3d.errors import InputError
from t3d.predicts import OF_NEXT

STUDENT = {"block_size": 8, "steps_per_block": 2, "temperature": 0.0}


def test_given_settings_win_over_the_checkpoints_and_these_over_the_defaults():
    assert resolve_params({}) == DecodeParams()
    assert resolve_params(STUDENT) == DecodeParams(**STUDENT)
    given = {"temperature": 0.7, "steps_per_block": 4, "seed": 3}
    assert resolve_params(STUDENT, given) == DecodeParams(block_size=8, **given)
    assert resolve_params({}, given) == DecodeParams(**given)


def test_a_given_value_that_is_the_default_wins_too():
    assert resolve_params(STUDENT, {"block_size": 4, "temperature": 0.1}) == DecodeParams()


def test_a_block_size_alone_is_decoded_at_full_steps():
    assert resolve_params({"block_size": 16}) == DecodeParams(block_size=16, steps_per_block=16)


def test_steps_of_the_checkpoint_count_for_its_own_block_size_only():
    assert resolve_params(STUDENT, {"block_size": 8}).steps_per_block == 2
    assert resolve_params(STUDENT, {"block_size": 4}).steps_per_block == DecodeParams.steps_per_block
    given = {"block_size": 16, "steps_per_block": 8}
    assert resolve_params({"block_size": 4}, given) == DecodeParams(**given)


def test_tokens_per_step_say_the_steps_of_the_checkpoints_blocks():
    """And a static strategy, whatever the checkpoint's own."""
    own = {"block_size": 8, "remasking": "low_confidence_dynamic", "confidence_threshold": 0.8}
    found = resolve_params(own, {"tokens_per_step": 4})
    assert (found.block_size, found.steps_per_block) == (8, 2)
    assert (found.remasking, found.confidence_threshold) == ("low_confidence_static", 0.8)
    assert resolve_params(own, {"tokens_per_step": 4, "block_size": 16}).steps_per_block == 4
    assert resolve_params({}, {"tokens_per_step": 2}) == DecodeParams(steps_per_block=2)


def test_what_a_request_asks_is_no_setting_of_a_checkpoint():
    fields = {item.name for item in dataclasses.fields(DecodeParams)}
    assert fields - set(OWN_FIELDS) == {"max_new_tokens", "seed", "n", "stop"}


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (
            {"blocksize": 8},
            "blocksize=8: unknown in block_diffusion of the checkpoint's generation_config.json",
        ),
        ({"seed": 1}, "seed=1: unknown in"),
        ({"block_size": "8"}, "block_size='8': not a whole number, in .* or its config.json"),
        ({"block_size": True}, "block_size=True: not a whole number"),
        ({"block_size": 0}, "block_size=0: not positive, in"),
        (
            {"steps_per_block": 9, "block_size": 8},
            "steps_per_block=9: exceeds block_size=8.* in block_diffusion",
        ),
        ({"temperature": -1}, "temperature=-1.0: not a number of 0 or more, in|temperature=-1: "),
        ({"remasking": "best"}, "remasking='best': not one of"),
    ],
)
def test_settings_of_a_checkpoint_that_cannot_be_used_are_named_with_their_file(own, message):
    with pytest.raises(InputError, match=message):
        resolve_params(own)


def test_given_settings_that_do_not_fit_the_checkpoints_are_refused():
    with pytest.raises(InputError, match="steps_per_block=9: exceeds block_size=8"):
        resolve_params(STUDENT, {"steps_per_block": 9})


@pytest.mark.parametrize(
    "own",
    [
        {"remasking": "low_confidence_dynamic", "confidence_threshold": 0.8},
        {"remasking": "entropy_bounded", "entropy_bound": 0.3},
        {"confidence": "sampled"},
    ],
)
def test_thresholds_of_the_checkpoint_do_not_count_for_a_strategy_without_them(own):
    for remasking in ("left_to_right", "self_speculative"):
        assert resolve_params(own, {"remasking": remasking}) == DecodeParams(remasking=remasking)
    assert resolve_params(own) == DecodeParams(**own)


def test_a_threshold_that_means_nothing_is_refused_with_the_file_that_says_it():
    own = {"remasking": "self_speculative", "confidence_threshold": 0.8}
    with pytest.raises(
        InputError, match=r"confidence_threshold=0.8: ignored: .*has no threshold, in block_di"
    ):
        resolve_params(own)


def test_steps_of_the_checkpoint_do_not_count_for_a_strategy_without_steps():
    params = resolve_params(STUDENT, {"remasking": "self_speculative"})
    assert params == DecodeParams(block_size=8, temperature=0.0, remasking="self_speculative")
    with pytest.raises(InputError, match="steps_per_block=2: remasking='left_to_right' has no number"):
        resolve_params(STUDENT, {"remasking": "left_to_right", "steps_per_block": 2})


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (
            {"remasking": "left_to_right", "confidence": "sampled"},
            "confidence='sampled': ignored: .*position",
        ),
        ({"remasking": "self_speculative", "confidence_threshold": 0.5}, "has no threshold"),
        ({"remasking": "self_speculative", "entropy_bound": 0.5}, "has no bound"),
        ({"remasking": "left_to_right", "max_draft_tokens": 2}, "max_draft_tokens=2: .*drafts nothing"),
        ({"remasking": "left_to_right", "draft_groups": "all"}, "drafts nothing"),
        ({"remasking": "sequential", "draft_groups": "all"}, "drafts nothing"),
        ({"context": "causal"}, "context='causal': .*'low_confidence_static' reads every block whole"),
        ({"confidence_threshold": DecodeParams.confidence_threshold}, "=0.9: .* has no threshold"),
        ({"temperature": 0.0, "top_k": DecodeParams.top_k}, "top_k=0: .*temperature=0 draws nothing"),
    ],
)
def test_settings_without_meaning_for_the_strategy_are_refused(given, problem):
    with pytest.raises(InputError, match=problem):
        check_used(given, resolve_params({}, given))


def test_settings_of_drafts_and_context_are_taken_where_they_mean_something():
    for given in (
        {"remasking": "self_speculative", "max_draft_tokens": 2, "draft_groups": "all", "context": "causal"},
        {"remasking": "left_to_right", "context": "causal"},
    ):
        check_used(given, resolve_params({}, given))


@pytest.mark.parametrize(
    ("name", "value", "strategy"),
    [
        ("draft_groups", "all", "self_speculative"),
        ("max_draft_tokens", 3, "self_speculative"),
        ("confidence_threshold", 0.8, "low_confidence_dynamic"),
        ("entropy_bound", 0.2, "entropy_bounded"),
    ],
)
def test_a_setting_without_effect_names_the_strategy_that_uses_it(name, value, strategy):
    with pytest.raises(InputError, match=rf"{name}=.*ignored: .* or decode by {strategy} \(t3d eval: --"):
        check_used({name: value}, DecodeParams(**{name: value}))
    check_used({name: value}, DecodeParams(**{name: value}, remasking=strategy))


@pytest.mark.parametrize(("own", "asked"), [({}, "next"), (OF_NEXT, "self")])
def test_what_a_model_predicts_can_be_said_but_not_chosen(own, asked):
    told = own.get("predicts", "self")
    assert resolve_params(own, {"predicts": told}).predicts == told
    with pytest.raises(InputError, match=f"predicts='{asked}': of the model, not a choice.*leave it out"):
        resolve_params(own, {"predicts": asked})
