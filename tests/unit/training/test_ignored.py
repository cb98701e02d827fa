"""Settings of training that others leave without effect."""

import pytest

from t3d.errors import InputError
from t3d.training.config import T3DConfig
from t3d.training.ignored import check_training_fields
from t3d.training.presets import PRESETS, preset_fields
from t3d.training.trainer import T3DTrainer


@pytest.fixture
def config(tmp_path):
    """A preset with other fields over it, as a user of Python writes it."""

    def make(preset, **fields):
        return T3DConfig(output_dir=str(tmp_path), use_cpu=True, **(preset_fields(preset) | fields))

    return make


@pytest.mark.parametrize(
    ("preset", "fields"),
    [
        ("naive_td", {"ddo_beta": 0.7}),
        ("naive_td", {"ddo_beta": 1.0}),  # what preset paper has
        ("naive_td", {"refresh_every": 7}),
        ("naive_td", {"reference_placement": "cpu"}),
        ("naive_td", {"path_reduction": "sum"}),
        ("naive_td", {"path_weighting": "nested_prefix", "path_reduction": "sum"}),  # two of released
        ("t3d", {"path_tokens_per_level": 8}),
        ("t3d", {"entropy_weight": 1.0}),
        ("t3d", {"loss_normaliser": "response_tokens"}),
        ("t3d", {"mask_prob_range": (0.1, 0.9)}),
        ("t3d", {"lora_alpha": 8.0}),
        ("redi", {"mask_ratio_power": 1.0}),
        ("ddo", {"random_token_rule": "exact_count"}),
        ("paper", {"refresh_every": 7, "objective": "cross_entropy"}),
    ],
)
def test_a_setting_without_effect_is_refused_by_the_check_and_by_the_trainer(
    config, tiny_model, tiny_tokenizer, preset, fields
):
    settings = config(preset, **fields)
    for give in (check_training_fields, lambda args: T3DTrainer(tiny_model, args, [], tiny_tokenizer)):
        with pytest.raises(InputError, match=r"=.*: ignored: .* Fix: leave it out") as caught:
            give(settings)
        assert caught.value.field in fields


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_s_own_settings_pass(config, preset):
    check_training_fields(config(preset))


@pytest.mark.parametrize(
    ("preset", "fields"),
    [
        ("paper", {"objective": "cross_entropy"}),
        ("paper", {"path_weight": 0.0}),
        ("released", {"random_token_prob": 0.0, "path_weight": 0.0}),
        ("sft", {"objective": "t3d"}),
        ("sft_dllm_rl", {"mask_prob_range": (0.2, 0.4)}),
        ("redi_random_start", {"random_token_prob": 0.0}),
        ("dparallel", {"objective": "cross_entropy", "entropy_weight": 2.0}),
        ("t3d", {"objective": "cross_entropy", "ddo_beta": 0.1}),  # the default, whoever wrote it
        ("t3d", {"ddo_beta": 0.7, "refresh_every": 2, "reference_placement": "cpu"}),
        ("t3d", {"lora_rank": 4, "lora_alpha": 8.0}),
    ],
)
def test_what_a_preset_says_passes_where_another_field_leaves_it_without_effect(config, preset, fields):
    check_training_fields(config(preset, **fields))
