"""Which records a preset takes, and what is said where none can be learnt from."""

import dataclasses

import pytest

from t3d.decoding.params import DecodeParams
from t3d.errors import InputError
from t3d.interchange.solutions import SOURCES
from t3d.interchange.validate import own_problems
from t3d.models.sdar import SDARConfig
from t3d.tasks.mini.tokenizer import build_tokenizer
from t3d.training.config import T3DConfig
from t3d.training.presets import PRESETS, SOLUTION_PRESETS
from t3d.training.selection import check_source, check_trajectories, select_trajectories
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
    decode_params=DecodeParams().record(),
)
SOLUTION = dataclasses.replace(ROLLOUT, decode_params={"source": SOURCES[0]})
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


TOKENIZER = build_tokenizer(["how many apples are left now?"])
MASK = TOKENIZER.mask_token_id


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"response_ids": (5, -1, 7, 8)}, r"ids of trajectory 'a'='-1 is negative'"),
        ({"prompt_ids": (1, 2, -5, 4)}, r"ids of trajectory 'a'='-5 is negative'"),
        ({"response_ids": (5, 6, MASK, 8)}, r"response_ids of trajectory 'a'='the mask token"),
        ({"prompt_ids": ()}, r"prompt_ids of trajectory 'a'='empty'"),
        ({"terminal_complete": False}, r"terminal_complete of trajectory 'a'='says cut"),
        ({"decode_params": {"block_size": 8}}, r"block_size of trajectory 'a'='4, but decode_params has 8"),
    ],
)
def test_training_refuses_what_validation_refuses(changes, message):
    good = dataclasses.replace(ROLLOUT, mask_token_id=MASK)
    check_trajectories([good], TOKENIZER, 4)
    broken = dataclasses.replace(good, **changes)
    assert list(own_problems(broken))
    with pytest.raises(InputError, match=message):
        check_trajectories([dataclasses.replace(good, id="b"), broken], TOKENIZER, 4)


def test_a_prompt_with_the_mask_token_is_left_out_and_counted(tmp_path):
    args = T3DConfig(output_dir=str(tmp_path), use_cpu=True, block_size=4)
    model_config = SDARConfig(vocab_size=16, max_position_embeddings=64)
    masked = dataclasses.replace(ROLLOUT, id="b", prompt_ids=(1, 0, 3, 4))
    selection = select_trajectories([ROLLOUT, masked], args, model_config)
    assert selection.kept == (ROLLOUT,)
    assert selection.report() == "left out of 2 trajectories: 1 with the mask token in the prompt (b)"
    assert selection.counts()["masked_prompt"] == 1
