"""Settings that could only fail later, or teach nothing, are refused where they are made."""

import math

import pytest

from t3d.errors import InputError
from t3d.training.config import T3DConfig
from t3d.training.config_checks import refusal, warmup_covers_run

NAN = math.nan


def config(folder, **fields) -> T3DConfig:
    return T3DConfig(output_dir=str(folder), use_cpu=True, **fields)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(
            (name, value)
            for name in ("learning_rate", "num_train_epochs")
            for value in (-1, 0, NAN, math.inf)
        ),
        *((name, NAN) for name in ("ddo_alpha", "ddo_beta", "path_weight", "entropy_weight")),
        *((name, -1) for name in ("warmup_steps", "weight_decay", "max_grad_norm", "adam_epsilon")),
        *((name, value) for name in ("adam_beta1", "adam_beta2", "lora_dropout") for value in (-0.1, 1, NAN)),
        *(("seed", value) for value in (-1, 2**32)),
        ("entropy_temperature", NAN),
        ("random_token_prob", NAN),
        ("gradient_accumulation_steps", 0),
        ("per_device_train_batch_size", 0),
    ],
)
def test_numbers_that_no_training_can_use_are_refused(tmp_path, field, value):
    with pytest.raises(InputError, match=rf"^{field}={value!r}: .*Fix: use "):
        config(tmp_path, **{field: value})


def test_the_largest_seed_and_boundary_values_are_taken(tmp_path):
    made = config(tmp_path, seed=2**32 - 1, path_weight=0.0, weight_decay=0.0, max_grad_norm=0.0)
    assert made.seed == 2**32 - 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"optim": "adamw_torsh"}, "optim='adamw_torsh': refused by transformers (adamw_torsh is not"),
        ({"lr_scheduler_type": "nope"}, "lr_scheduler_type='nope': refused by transformers (nope is not"),
        ({"save_strategy": "stesp"}, "save_strategy='stesp': refused by transformers (stesp is not"),
        ({"lr_scheduler_type": "warmup_stable_decay"}, "do not fit warmup_stable_decay"),
        (
            {"lr_scheduler_kwargs": {"floor": 1}},
            "lr_scheduler_kwargs={'floor': 1}: do not fit cosine_with_min",
        ),
        ({"save_steps": 1.5}, "save_steps=1.5: refused by transformers (--save_steps must be an integer"),
        (
            {"lr_scheduler_type": "greedy"},
            "refused by transformers (lr_scheduler_type greedy requires an eval",
        ),
        ({"fp16": True, "bf16": True}, "fp16=True: refused by transformers (At most one of"),
    ],
)
def test_what_transformers_does_not_know_is_refused_under_its_name(tmp_path, fields, message):
    with pytest.raises(InputError) as caught:
        config(tmp_path, **fields)
    assert message in str(caught.value)


def test_a_refusal_that_names_no_setting_keeps_its_text(tmp_path):
    error = refusal(config(tmp_path), TypeError("no idea.\nsecond line"))
    assert str(error).startswith("TrainingArguments='TypeError': no idea. Fix: ")


@pytest.mark.parametrize(
    ("fields", "covers"),
    [
        ({"max_steps": 1, "warmup_steps": 1}, True),
        ({"max_steps": 20}, True),  # 20 is the default
        ({"max_steps": 21}, False),
        ({"max_steps": 1, "warmup_steps": 0}, False),
        ({"max_steps": 10, "warmup_steps": 0.5}, False),  # a share of the run
        ({"max_steps": 1, "warmup_steps": 0.5}, True),
        ({"max_steps": 1, "lr_scheduler_type": "constant"}, False),
        ({"num_train_epochs": 1}, False),  # not known yet
    ],
)
def test_a_warm_up_of_the_whole_run_is_found(tmp_path, fields, covers):
    assert warmup_covers_run(config(tmp_path, **fields)) is covers
