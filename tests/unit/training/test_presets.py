"""Presets and overrides: the values that the docs promise, and errors for unknown names."""

import inspect
import re

import pytest

from t3d.cli.train import Train
from t3d.errors import InputError
from t3d.training.config import T3DConfig
from t3d.training.preset_rounds import ROUNDS, preset_rollouts
from t3d.training.presets import PRESETS, override_text, parse_overrides, preset_fields


def build(name, tmp_path, **fields):
    return T3DConfig(output_dir=str(tmp_path), **(preset_fields(name) | fields))


def test_default_preset_has_the_documented_values(tmp_path):
    config = build("t3d", tmp_path)
    expected = {
        "ddo_alpha": 0.5,
        "ddo_beta": 0.1,
        "path_weight": 0.2,
        "log_ratio": "mean",
        "fake_source": "argmax",
        "mask_ratios": (1.0, 0.75, 0.5, 0.25),
        "mask_ratio_power": 8.0,
        "random_token_prob": 0.1,
        "refresh_every": 10,
        "grid_origin": "prompt",
        "state_order": "trajectory",
        "noise_refresh": "epoch",
    }
    assert {name: getattr(config, name) for name in expected} == expected


def test_paper_preset_is_eq_7_and_8_as_printed(tmp_path):
    """The expectation inside sigma, a sigma per state, the best reference where students are scored."""
    config = build("paper", tmp_path)
    assert (config.ddo_alpha, config.ddo_beta, config.log_ratio) == (1.0, 1.0, "state_sum")
    assert (config.fake_source, config.reference_choice) == ("expectation", "auto")
    assert (config.path_reduction, config.path_weighting) == ("sum", "linear")


def test_the_paper_preset_with_a_sample_in_the_place_of_the_expectation_is_kept(tmp_path):
    config, paper = build("paper-sampled", tmp_path), build("paper", tmp_path)
    assert (config.log_ratio, config.fake_source, config.reference_choice) == ("sum", "sample", "latest")
    for field in ("log_ratio", "fake_source", "reference_choice"):
        setattr(config, field, getattr(paper, field))
    assert config.to_dict() == paper.to_dict()


def test_every_preset_is_valid_and_an_unknown_one_is_named(tmp_path):
    for name in PRESETS:
        build(name, tmp_path)
    with pytest.raises(InputError, match="use one of t3d"):
        preset_fields("t4d")


@pytest.mark.parametrize(
    ("name", "objective", "has_path", "has_random_tokens"),
    [
        ("naive_td", "cross_entropy", False, False),
        ("naive_td_path", "cross_entropy", True, False),
        ("naive_td_random", "cross_entropy", False, True),
        ("naive_td_path_random", "cross_entropy", True, True),
        ("ddo", "t3d", False, False),
        ("ddo_path", "t3d", True, False),
        ("ddo_random", "t3d", False, True),
        ("t3d", "t3d", True, True),
    ],
)
def test_the_ablations_of_tables_5_to_7_differ_in_their_parts_only(
    tmp_path, name, objective, has_path, has_random_tokens
):
    """lambda = 0.2 "for all experiments" (D.1), p_rand = 0.1 (C.1); everything else is preset t3d."""
    config, default = build(name, tmp_path), build("t3d", tmp_path)
    assert config.objective == objective
    assert config.path_weight == (0.2 if has_path else 0.0)
    assert config.random_token_prob == (0.1 if has_random_tokens else 0.0)
    for field in ("objective", "path_weight", "random_token_prob"):
        setattr(config, field, getattr(default, field))
    assert config.to_dict() == default.to_dict()


def test_sft_and_redi_are_one_loss_on_different_data(tmp_path):
    """Apart from the pads, which are labels in SDAR's fine-tuning."""
    sft, redi = build("sft", tmp_path), build("redi", tmp_path)
    assert (sft.terminal_filler_loss, redi.terminal_filler_loss) == (True, False)
    redi.terminal_filler_loss = True
    assert sft.to_dict() == redi.to_dict()


def test_every_preset_stands_in_the_help_of_train():
    text = inspect.getsource(Train)
    assert [name for name in PRESETS if not re.search(rf"\b{name}\b", text)] == []


def test_overrides_are_parsed_and_unknown_ones_named():
    parsed = parse_overrides(["log_ratio=sum", "path_weight=0.5", "mask_ratios=[1.0, 0.5]"])
    assert parsed == {"log_ratio": "sum", "path_weight": 0.5, "mask_ratios": (1.0, 0.5)}
    with pytest.raises(InputError, match="did you mean 'log_ratio'"):
        parse_overrides(["log_ration=sum"])
    with pytest.raises(InputError, match="not a setting"):
        parse_overrides(["nothing"])
    with pytest.raises(InputError, match=r"override='log_ratio': has no value\. Fix: write log_ratio=VALUE"):
        parse_overrides(["log_ratio"])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("path_weight=0.00001", 1e-5),
        ("path_weight=1e-05", 1e-5),  # a text to YAML 1.1
        ("path_weight=1.5e1", 15.0),
        ("path_weight=-1E+2", -100.0),
        ("path_weight=1", 1.0),
        ("max_steps=3", 3),
        ("complementary_states=true", True),
        ("max_length=null", None),
        ("max_length=64", 64),
        ("mask_ratios=[1, 1e-1]", (1.0, 0.1)),
        ("mask_prob_range=[0.1, 0.9]", (0.1, 0.9)),
        ("lora_target_modules=[q_proj]", ("q_proj",)),
        ("report_to=[tensorboard]", ["tensorboard"]),
        ("lr_scheduler_kwargs={min_lr_rate: 0.2}", {"min_lr_rate": 0.2}),
        ("state_scope=token", "token"),
    ],
)
def test_an_override_has_its_fields_type_and_reads_the_same_when_written(text, value):
    name = text.split("=")[0]
    (found,) = parse_overrides([text]).values()
    assert (found, type(found)) == (value, type(value))
    assert parse_overrides([override_text(name, found)]) == {name: found}


@pytest.mark.parametrize(
    ("text", "takes"),
    [
        ("path_weight=abc", "a number"),
        ("path_weight=", "a number"),
        ("path_weight=true", "a number"),
        ("path_weight='4'", "a number"),
        ("path_weight=2020-01-01", "a number"),
        ("path_weight=nan", "a number"),
        ("path_weight=.inf", "a number"),
        ("max_steps=1.5", "a whole number"),
        ("max_steps=true", "a whole number"),
        ("max_steps='4'", "a whole number"),
        ("max_steps=4.0", "a whole number"),
        ("complementary_states=1", "true or false"),
        ("max_length=long", "a whole number or null"),
        ("parallelism_config={tp_sice: 2}", "ParallelismConfig or null"),
        ("mask_ratios=1.0", "a list, each item a number"),
        ("mask_ratios=[a]", "a list, each item a number"),
        ("mask_ratios=[1", "a list, each item a number"),
        ("mask_prob_range=[0.1]", "a list, each item a number"),
        ("log_ratio=median", "one of mean, sum, state_sum"),
    ],
)
def test_an_override_of_another_type_is_refused_with_what_the_field_takes(text, takes):
    with pytest.raises(InputError) as refused:
        parse_overrides([text])
    name = text.split("=")[0]
    assert str(refused.value) == f"override={text!r}: {name} takes {takes}. Fix: write {name}= with {takes}."


@pytest.mark.parametrize("fields", [{"path_positions": "all"}, {"path_weighting": "nested_prefix"}])
def test_reductions_that_would_misweigh_the_path_term_are_refused(tmp_path, fields):
    with pytest.raises(InputError, match="path_reduction"):
        build("t3d", tmp_path, **fields)


def test_any_learning_rate_schedule_can_be_chosen(tmp_path):
    assert build("t3d", tmp_path).lr_scheduler_kwargs == {"min_lr_rate": 0.1}
    assert not build("t3d", tmp_path, lr_scheduler_type="linear").lr_scheduler_kwargs


def test_t3d_plus_is_t3d_by_cross_entropy_with_the_teachers_word_where_it_disagrees():
    """As docs/checkpoint.md writes it, and as the study of it was run."""
    told = ["random_token_prob=0.05", "soft_target_weight=1", "soft_target_below=0.1"]
    assert preset_fields("t3d-plus") == preset_fields("naive_td_path_random") | parse_overrides(told)
    assert preset_rollouts("t3d-plus", 3) == ()


@pytest.mark.parametrize(
    ("num_rounds", "settings"),
    [(1, ("B4-T1",)), (2, ("B4-T1", "B8-T4")), (4, ("B4-T1", "B8-T4", "B8-T4", "B8-T4"))],
)
def test_further_rounds_roll_out_like_the_last(num_rounds, settings, monkeypatch):
    monkeypatch.setitem(ROUNDS, "a", {"num_rounds": 2, "rollout_settings": ("B4-T1", "B8-T4")})
    assert preset_rollouts("a", num_rounds) == settings
