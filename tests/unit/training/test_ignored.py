"""Settings of training that others leave without effect."""

import pytest

from t3d.errors import InputError
from t3d.training.config import T3DConfig
from t3d.training.ignored import check_training_fields
from t3d.training.presets import PRESETS, preset_fields


@pytest.mark.parametrize(
    ("preset", "fields"),
    [
        ("naive_td", {"ddo_beta": 0.7}),
        ("naive_td", {"refresh_every": 7}),
        ("naive_td", {"path_reduction": "sum"}),
        ("t3d", {"path_tokens_per_level": 8}),
        ("t3d", {"entropy_weight": 1.0}),
        ("t3d", {"loss_normaliser": "response_tokens"}),
        ("t3d", {"mask_prob_range": (0.1, 0.9)}),
        ("t3d", {"lora_alpha": 8.0}),
        ("redi", {"mask_ratio_power": 1.0}),
        ("ddo", {"random_token_rule": "exact_count"}),
    ],
)
def test_a_setting_without_effect_is_refused(tmp_path, preset, fields):
    config = T3DConfig(output_dir=str(tmp_path), use_cpu=True, **(preset_fields(preset) | fields))
    (name,) = fields
    with pytest.raises(InputError, match=f"{name}=.*: ignored: ") as caught:
        check_training_fields(fields, config)
    assert caught.value.field == name


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_s_own_effective_settings_pass(tmp_path, preset):
    fields = preset_fields(preset)
    config = T3DConfig(output_dir=str(tmp_path), use_cpu=True, **fields)
    check_training_fields([name for name in fields if name != "state_order"], config)
