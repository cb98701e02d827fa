"""dLLM-RL's format: what it holds comes back, a missing step map means from left to right."""

import pytest
from format_helpers import PROMPT, make, reasons, settings, visible_part
from hypothesis import given
from strategies import TOKENIZER, encode, trajectory_fields

from t3d.errors import InputError
from t3d.interchange.formats.assemble import DropReason
from t3d.interchange.formats.dllm_rl import record_of_trajectory, trajectories_of_record
from t3d.trajectory import Trajectory

ANSWER = " 7 apples<|im_end|>"
COUNT = len(encode(ANSWER))


def read(record, block_size=16, **changes):
    found = settings(block_size, **changes)
    return list(trajectories_of_record(record, "file/0", "record 0 of file", found))


@given(fields=trajectory_fields())
def test_the_visible_answer_survives_the_round_trip(fields):
    """Not held: filler after the stop, block size, mask id, decoding settings, task, teacher, hashes."""
    trajectory = Trajectory(**fields)
    written = record_of_trajectory(trajectory, 0, TOKENIZER)
    back = trajectories_of_record(written, "x", "record 0", settings(trajectory.block_size))
    assert list(back) == [visible_part(trajectory)]


def test_the_record_has_one_flat_step_map_and_no_invented_reward():
    assert record_of_trajectory(make(), 0, TOKENIZER) == {
        "id": "a",
        "prompt": PROMPT,
        "response": ANSWER,
        "step_map": list(make().step_map[:COUNT]),
    }


@pytest.mark.parametrize("first_step", [0, 1])
@pytest.mark.parametrize("said", [{}, {"step_map": None}])
def test_a_missing_step_map_means_left_to_right(first_step, said):
    record = {"prompt": PROMPT, "response": ANSWER, "reward": 1.0, **said}
    (trajectory,) = read(record, block_size=2, first_step=first_step)
    assert trajectory.step_map == tuple(range(1, COUNT + 1))
    assert trajectory.id == "file/0"


def test_steps_counted_from_zero_are_shifted_only_on_request():
    record = {"prompt": PROMPT, "response": ANSWER, "step_map": list(range(COUNT))}
    assert reasons(read(record)) == [DropReason.NEVER_SET]
    (trajectory,) = read(record, first_step=0)
    assert trajectory.step_map == tuple(range(1, COUNT + 1))
    assert reasons(read(record | {"step_map": [-1, *range(1, COUNT)]}, first_step=0)) == [
        DropReason.NEVER_SET
    ]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"step_map": []}, DropReason.LENGTH_MISMATCH),
        ({"step_map": [1] * (COUNT + 1)}, DropReason.LENGTH_MISMATCH),
        ({"response": ""}, DropReason.EMPTY_RESPONSE),
        ({"response": "\ufffd"}, DropReason.TEXT_CHANGED),
        ({"prompt": ""}, DropReason.EMPTY_PROMPT),
    ],
)
def test_a_record_that_does_not_fit_is_dropped_with_its_reason(changes, reason):
    assert reasons(read({"prompt": PROMPT, "response": ANSWER, "step_map": [1] * COUNT} | changes)) == [
        reason
    ]


@pytest.mark.parametrize(
    ("broken", "field"),
    [
        ({"response": ANSWER}, "prompt"),
        ({"prompt": PROMPT}, "response"),
        ({"prompt": PROMPT, "response": [ANSWER]}, "response"),
        ({"prompt": PROMPT, "response": ANSWER, "step_map": [[1] * COUNT]}, "step_map"),
    ],
)
def test_a_record_of_another_shape_names_the_field_and_the_record(broken, field):
    with pytest.raises(InputError, match="record 0 of file") as caught:
        read(broken)
    assert caught.value.field == field
