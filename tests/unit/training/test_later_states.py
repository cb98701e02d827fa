"""Later states of a trajectory, which soft targets may be those of."""

from contextlib import nullcontext
from unittest.mock import Mock

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from hypothesis import given
from hypothesis import strategies as st
from training_helpers import config

from t3d.errors import InputError
from t3d.training.ignored import check_training_fields
from t3d.training.noising import later_noise_mask, trajectory_noise_mask
from t3d.training.scoring import refuse_sharding
from t3d.training.states import TrajectoryCollator, TrajectoryDataset
from t3d.trajectory import Trajectory

RATIOS = (1.0, 0.75, 0.5, 0.25)
MASK, VOCAB = 250, 300
NAIVE = {"objective": "cross_entropy", "path_weight": 0.0, "block_size": 4, "soft_target_weight": 0.5}
LATER = NAIVE | {"soft_target_context": "later_state"}


@pytest.mark.parametrize(
    ("steps", "ratio", "ratios", "masked"),
    [
        ([2, 4, 1, 3], 1.0, RATIOS, [1, 1, 0, 1]),
        ([2, 4, 1, 3], 0.75, RATIOS, [0, 1, 0, 1]),
        ([2, 4, 1, 3], 1.0, (1.0, 0.25), [0, 1, 0, 0]),
        ([2, 4, 1, 3], 0.5, (1.0, 0.5), [0, 1, 0, 0]),  # no lower ratio: one denoising step
        ([2, 4, 1, 3], 1.0, (), [1, 1, 0, 1]),  # of visited states: one denoising step
        ([2, 4, 1, 3], 0.25, RATIOS, [0, 0, 0, 0]),  # its last token
        ([1, 1, 2, 2], 1.0, RATIOS, [0, 0, 1, 1]),  # 0.75 would be the same state
        ([1, 1, 2, 2], 0.5, RATIOS, [0, 0, 0, 0]),
        ([5, 5, 5, 5], 1.0, RATIOS, [0, 0, 0, 0]),  # one step for the block
    ],
)
def test_a_later_state_by_hand(steps, ratio, ratios, masked):
    step, valid = torch.tensor([[steps]]), torch.ones(1, 1, 4, dtype=torch.bool)
    ratio = torch.tensor([[ratio]], dtype=torch.float64)
    state = trajectory_noise_mask(step, valid, ratio)
    assert later_noise_mask(state, step, valid, ratio, ratios).int().tolist() == [[masked]]


@given(
    st.lists(st.tuples(st.integers(1, 5), st.booleans()), min_size=1, max_size=8),
    st.sampled_from(RATIOS),
    st.sets(st.sampled_from(RATIOS)),
)
def test_a_later_state_is_one_that_the_trajectory_visits_behind_a_commit(tokens, ratio, ratios):
    """It has the masks of all steps from one on that is behind the state's; without one it has none."""
    step, valid = (torch.tensor([[values]]) for values in zip(*tokens, strict=True))
    ratio_RK = torch.tensor([[ratio]], dtype=torch.float64)
    state = trajectory_noise_mask(step, valid, ratio_RK)
    later = later_noise_mask(state, step, valid, ratio_RK, tuple(ratios))
    shown = {step[0, 0, place].item() for place in (state & ~later)[0, 0].nonzero()[:, 0]}
    kept = {step[0, 0, place].item() for place in later[0, 0].nonzero()[:, 0]}
    assert not (later & ~state).any() and bool(shown) == bool(state.any())
    assert not kept or max(shown) < min(kept)
    lower = [one for one in ratios if one < ratio]
    if lower and kept:
        assert later.sum() <= trajectory_noise_mask(step, valid, ratio_RK * 0 + max(lower)).sum()


def record(index):
    """Eleven tokens behind a prompt of five, the last two behind the stop, each in a step of its own."""
    local = [(3 * place) % 4 for place in range(5, 16)]
    return Trajectory(
        id=str(index),
        prompt_ids=tuple(range(1, 6)),
        response_ids=tuple(range(100 + 20 * index, 111 + 20 * index)),
        step_map=tuple(
            4 * (place // 4 - 1) + 1 + rank for place, rank in zip(range(5, 16), local, strict=True)
        ),
        visible_length=9,
        finish_reason="stop",
        block_size=4,
        mask_token_id=MASK,
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"state_source": "trajectory", "mask_ratio_power": 0.0, "random_token_prob": 0.4},
        {"state_source": "trajectory", "random_token_prob": 0.4, "random_token_rule": "exact_count"},
        {"state_source": "on_policy", "mask_ratio_power": 0.0, "random_token_prob": 0.0},
        {"state_source": "trajectory", "mask_ratio_power": 0.0, "max_length": 24},
    ],
)
def test_the_asked_batch_is_the_student_s_with_tokens_in_the_place_of_some_masks(tmp_path, fields):
    """Those are the trajectory's own; what it says at all other places, random tokens too, is what was there.

    Soft are the positions that are left of those of loss, in each block where something was shown.
    """
    args, data = config(tmp_path, **LATER | fields), [record(index) for index in range(4)]
    collate = TrajectoryCollator(
        config=args, pad_token_id=0, mask_token_id=MASK, vocab_size=VOCAB, told_predicts="self"
    )
    dataset, num_shown, num_kept = TrajectoryDataset(data, args), 0, 0
    for epoch in range(6):
        dataset.set_epoch(epoch)
        batch = collate([dataset[index] for index in range(4)])
        asked = batch["soft_targets"]
        assert asked.keys() == {"input_ids", "is_soft"}
        mine, its = batch["input_ids"].flatten(), asked["input_ids"].flatten()
        changed = mine != its
        assert batch["is_noisy"].flatten()[changed].all()
        at, soft = batch["loss_positions"], asked["is_soft"]
        assert torch.equal(its[at][~soft], batch["labels"][~soft])
        assert torch.equal(its[at][soft], mine[at][soft])
        assert (its[changed] >= 100).all() and (its[changed] < 180).all(), "no prompt, no mask"
        num_shown, num_kept = num_shown + int((~soft).sum()), num_kept + int(soft.sum())
    assert num_shown > 0 and num_kept > 0


REFUSED = {
    "random masks": (
        LATER | {"state_source": "random_mask"},
        "soft_target_context='later_state': state_source='random_mask' has no order of commits",
    ),
    "late commits visible": (
        LATER | {"state_order": "released"},
        "soft_target_context='later_state': with state_order='released' .* Fix: use state_order='trajectory'",
    ),
    "what it says already": (
        NAIVE | {"soft_target_context": "state", "soft_target_source": "student"},
        "soft_target_context='state': with soft_target_source='student' .* Fix: use 'later_state'",
    ),
    "another objective": (
        {"soft_target_weight": 0.5, "soft_target_context": "later_state"},
        "soft_target_weight=0.5: a term of the cross-entropy",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_settings_that_contradict_each_other_are_refused(tmp_path, name):
    fields, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        config(tmp_path, **fields)


@pytest.mark.parametrize("kind", ["FSDP", "DEEPSPEED", "MULTI_CPU"])
def test_a_student_that_processes_share_is_not_asked(tmp_path, kind):
    processes = Mock(spec=Accelerator, distributed_type=DistributedType(kind))
    refuse_sharding(processes, config(tmp_path, **LATER))
    args = config(tmp_path, **LATER | {"soft_target_source": "student"})
    message = f"distributed='{kind}': it would shard the student, which soft_target_source='student' asks"
    with nullcontext() if kind == "MULTI_CPU" else pytest.raises(InputError, match=message):
        refuse_sharding(processes, args)


@pytest.mark.parametrize("field", [{"soft_target_source": "student"}, {"soft_target_context": "later_state"}])
def test_without_a_weight_they_are_refused_as_without_effect(tmp_path, field):
    args = config(tmp_path, **NAIVE | {"soft_target_weight": 0.0, "random_token_prob": 0.0} | field)
    (name,) = field
    with pytest.raises(InputError, match=f"{name}='.*': ignored: soft_target_weight=0"):
        check_training_fields(args)
