"""Which records a preset takes, and what is said where none can be learnt from."""

import dataclasses

import pytest

from t3d.decoding.params import DecodeParams
from t3d.errors import InputError
from t3d.interchange.solutions import SOURCE
from t3d.models.sdar import SDARConfig
from t3d.training.config import T3DConfig
from t3d.training.presets import PRESETS, SOLUTION_PRESETS
from t3d.training.selection import check_source, select_trajectories
from t3d.trajectory import Trajectory

ROLLOUT = Trajectory(
    id="a",
    prompt_ids=(1, 2, 3, 4),
    response_ids=(5, 6, 7, 8),
    step_map=(1, 2, 3, 4),
    visible_length=4,
    finish_reason="length",
    block_size=4,
    mask_token_id=0,
    decode_params=dataclasses.asdict(DecodeParams()),
)
SOLUTION = dataclasses.replace(ROLLOUT, decode_params=dict(SOURCE))
IMPORTED = dataclasses.replace(ROLLOUT, decode_params={"steps_per_block": 4})


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_takes_solutions_or_rollouts_not_both(preset):
    own, other = (SOLUTION, ROLLOUT) if preset in SOLUTION_PRESETS else (ROLLOUT, SOLUTION)
    check_source([own, IMPORTED], preset)
    with pytest.raises(InputError, match=rf"preset='{preset}': .* trajectory 'a' is a .*Fix: train on"):
        check_source([IMPORTED, other], preset)


@pytest.mark.parametrize(
    ("max_length", "max_positions", "trajectory", "message"),
    [
        (5, 64, ROLLOUT, r"max_length=5: nothing to train on.*1 too long \(a\)\. Fix: raise it"),
        (None, 6, ROLLOUT, r"trajectories=1: nothing to train on.*1 too long \(a\)\. Fix: roll out again"),
        (
            None,
            64,
            dataclasses.replace(ROLLOUT, visible_length=1, finish_reason="stop"),
            r"trajectories=1: nothing to train on.*1 empty \(a\)\. Fix: roll out again",
        ),
    ],
)
def test_what_leaves_nothing_to_train_on_is_named(tmp_path, max_length, max_positions, trajectory, message):
    args = T3DConfig(output_dir=str(tmp_path), use_cpu=True, block_size=4, max_length=max_length)
    model_config = SDARConfig(vocab_size=16, max_position_embeddings=max_positions)
    with pytest.raises(InputError, match=message):
        select_trajectories([trajectory], args, model_config)
