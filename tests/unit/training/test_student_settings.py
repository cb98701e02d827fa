"""How a student decodes where nothing else is said."""

import dataclasses

import pytest

from t3d.errors import InputError
from t3d.training.student_settings import student_settings
from t3d.trajectory import Trajectory

RECORD = Trajectory(
    id="a",
    prompt_ids=(1,),
    response_ids=(2, 3, 4),
    step_map=(1, 2, 3),
    visible_length=3,
    finish_reason="length",
    block_size=4,
    mask_token_id=9,
)


def rolled(*temperatures):
    return [dataclasses.replace(RECORD, decode_params={"temperature": value}) for value in temperatures]


@pytest.mark.parametrize(("block_size", "steps"), [(8, 2), (4, 1), (16, 4), (6, 3), (3, 3), (1, 1)])
def test_a_student_decodes_in_few_steps_of_its_own_blocks(block_size, steps):
    found = student_settings([RECORD], block_size)
    assert found == {
        "block_size": block_size,
        "steps_per_block": steps,
        "remasking": "low_confidence_static",
    }


def test_tokens_per_step_or_a_threshold_may_be_chosen():
    assert student_settings([RECORD], 8, tokens_per_step=1)["steps_per_block"] == 8
    dynamic = student_settings([RECORD], 8, threshold=0.8)
    assert dynamic["remasking"] == "low_confidence_dynamic"
    assert (dynamic["steps_per_block"], dynamic["confidence_threshold"]) == (8, 0.8)
    with pytest.raises(InputError, match="tokens_per_step=3: does not divide block_size=8"):
        student_settings([RECORD], 8, tokens_per_step=3)
    with pytest.raises(InputError, match="confidence_threshold=2"):
        student_settings([RECORD], 8, threshold=2.0)


def test_the_temperature_is_that_of_the_rollouts_if_they_share_one():
    assert student_settings(rolled(0.0, 0.0), 8)["temperature"] == 0.0
    assert student_settings(rolled(0.7), 8)["temperature"] == 0.7
    assert "temperature" not in student_settings(rolled(0.0, 1.0), 8)
    assert "temperature" not in student_settings([RECORD, *rolled(1.0)], 8)
