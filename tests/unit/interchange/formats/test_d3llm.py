"""d3LLM's format: states to steps and back, and states that no decoding can produce."""

import dataclasses

import pytest
from format_helpers import make, reasons, settings
from hypothesis import given
from strategies import MASK_ID, STOP_IDS, TOKENIZER, trajectory_fields

from t3d.errors import InputError
from t3d.interchange.formats.assemble import DropReason
from t3d.interchange.formats.d3llm import export_drop, record_of_trajectory, trajectories_of_record
from t3d.trajectory import Trajectory

M, STOP = MASK_ID, STOP_IDS[0]
STATES = [[1, 2, M, 6, M, M], [1, 2, 5, 6, M, M], [1, 2, 5, 6, 7, STOP]]
"""Prompt 1 2, then blocks of two: step 1 sets the second token, 2 the first, 3 the last two."""


def record(**changes):
    fields = {"idx": 7, "prompt_ids": [1, 2], "trajectory": STATES, "final_output": STATES[-1]}
    return fields | changes


def read(record, block_size=2, **changes):
    found = settings(block_size, **changes)
    return list(trajectories_of_record(record, "file/0", "record 0 of file", found))


@given(fields=trajectory_fields())
def test_the_whole_response_survives_the_round_trip(fields):
    """Not held: block size, mask id, decoding settings, task, teacher, hashes; an answer cut by a length
    limit inside its last block; steps before the first commit. The strategy draws none of these."""
    trajectory = Trajectory(**fields)
    written = record_of_trajectory(trajectory, 3, TOKENIZER)
    assert read(written, trajectory.block_size) == [trajectory]
    assert len(written["trajectory"]) == trajectory.num_denoising_steps


def test_states_become_steps_by_hand():
    (trajectory,) = read(record())
    assert trajectory.step_map == (2, 1, 3, 3)
    assert trajectory.response_ids == (5, 6, 7, STOP)
    assert (trajectory.visible_length, trajectory.finish_reason) == (4, "stop")
    assert trajectory.terminal_complete


def test_a_leading_masked_state_is_the_one_before_the_first_step():
    assert read(record(trajectory=[[1, 2, M, M, M, M], *STATES])) == read(record())


def test_the_short_form_of_the_generator_has_the_step_of_each_token():
    """``[steps, 0 for the prompt; tokens]``, as its option trajectory_one_step writes."""
    assert read(record(trajectory=[[0, 0, 2, 1, 3, 3], STATES[2]])) == read(record())


def test_the_generator_for_dream_does_not_write_the_states():
    without = record()
    del without["trajectory"]
    assert reasons(read(without)) == [DropReason.NO_STEPS]


def test_a_record_that_ends_inside_its_block_says_so():
    (trajectory,) = read(record(), block_size=4)
    assert not trajectory.terminal_complete


def test_the_answer_ends_at_the_first_stop_and_the_filler_stays():
    states = [[1, 2, STOP, 9, M, M], [1, 2, STOP, 9, 8, STOP]]
    (trajectory,) = read(record(trajectory=states, final_output=states[-1]))
    assert (trajectory.visible_length, trajectory.finish_reason) == (1, "stop")
    assert trajectory.response_ids == (STOP, 9, 8, STOP)


def test_exported_states_by_hand():
    trajectory = make(
        prompt_ids=(1, 2),
        response_ids=(5, 6, 7, STOP),
        step_map=(2, 1, 3, 3),
        visible_length=4,
        block_size=2,
    )
    written = record_of_trajectory(trajectory, 7, TOKENIZER)
    assert written["trajectory"] == STATES
    assert written["final_output"] == STATES[-1]
    assert (written["idx"], written["prompt_ids"]) == (7, [1, 2])
    assert written["llm_answer"] is written["gt_answer"] is written["is_correct"] is None


def test_the_id_is_the_records_own_or_the_files_name_and_idx():
    assert [outcome.id for outcome in read(record())] == ["file/7"]
    assert [outcome.id for outcome in read(record(id="mine"))] == ["mine"]
    without = record()
    del without["idx"]
    assert [outcome.id for outcome in read(without)] == ["file/0"]


def test_no_tokenizer_is_needed():
    assert reasons(read(record(), tokenizer=None)) == [None]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"final_output": [1, 2]}, DropReason.LENGTH_MISMATCH),
        ({"trajectory": [*STATES[:2], STATES[2][:-1]]}, DropReason.LENGTH_MISMATCH),
        ({"trajectory": [[1, 2]], "final_output": [1, 2]}, DropReason.EMPTY_RESPONSE),
        ({"prompt_ids": [1, 3]}, DropReason.PROMPT_MISMATCH),
        ({"trajectory": [[0, 0, 2, 0, 3, 3], STATES[2]]}, DropReason.PROMPT_MISMATCH),
        ({"trajectory": [[0, 0, 2, 1, 3, 3], [1, 2, 5, 6, 7, 9]]}, DropReason.PROMPT_MISMATCH),
        ({"trajectory": None}, DropReason.NO_STEPS),
        ({"trajectory": STATES[:2]}, DropReason.NEVER_SET),
        ({"trajectory": []}, DropReason.NEVER_SET),
        ({"trajectory": STATES[:2], "final_output": STATES[1]}, DropReason.NEVER_SET),
        ({"trajectory": [[1, 2, 4, 6, M, M], *STATES[1:]]}, DropReason.TOKEN_CHANGED),
        ({"trajectory": [STATES[1], STATES[0], STATES[2]]}, DropReason.TOKEN_CHANGED),
        ({"final_output": [1, 2, 5, 6, 7, 8]}, DropReason.TOKEN_CHANGED),
        ({"prompt_ids": [], "trajectory": [[M, 5], [4, 5]], "final_output": [4, 5]}, DropReason.EMPTY_PROMPT),
    ],
)
def test_states_that_no_decoding_produces_are_dropped_with_their_reason(changes, reason):
    assert reasons(read(record(**changes))) == [reason]


def test_blocks_that_count_from_the_response_fall_on_an_unaligned_prompt():
    """Prompt of 1 and blocks of two from the response: 2 1 | 4 3; the absolute grid cuts 2 | 1 4 | 3."""
    states = [[1, M, 6, M, M], [1, 5, 6, M, M], [1, 5, 6, M, 8], [1, 5, 6, 7, 8]]
    unaligned = record(prompt_ids=[1], trajectory=states, final_output=states[-1])
    assert reasons(read(unaligned)) == [DropReason.STEPS_FALL]
    (whole,) = read(unaligned, block_size=64)
    assert whole.step_map == (2, 1, 4, 3)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"prompt_ids": "1 2"}, "prompt_ids"),
        ({"trajectory": "x"}, "trajectory"),
        ({"trajectory": [STATES[0], 3]}, "trajectory"),
        ({"final_output": [1, 2.5]}, "final_output"),
        ({"idx": "7"}, "idx"),
    ],
)
def test_a_record_of_another_shape_names_the_field_and_the_record(changes, field):
    with pytest.raises(InputError, match="record 0 of file") as caught:
        read(record(**changes))
    assert caught.value.field == field


def test_a_first_step_is_refused_because_states_have_no_numbers():
    with pytest.raises(InputError, match=r"first_step=0.*leave it out"):
        read(record(), first_step=0)


@pytest.mark.parametrize("field", ["prompt_ids", "final_output"])
def test_a_missing_key_is_named(field):
    broken = record()
    del broken[field]
    with pytest.raises(InputError, match="missing") as caught:
        read(broken)
    assert caught.value.field == field


def test_a_response_with_the_mask_token_cannot_be_shown_as_states():
    trajectory = make()
    assert export_drop(trajectory, TOKENIZER) is None
    with_mask = dataclasses.replace(trajectory, response_ids=(M, *trajectory.response_ids[1:]))
    assert export_drop(with_mask, TOKENIZER).reason == DropReason.NEVER_SET
