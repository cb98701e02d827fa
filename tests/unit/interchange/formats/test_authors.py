"""The released code's format: what it holds comes back, what does not fit is dropped with its reason."""

import pytest
from format_helpers import PROMPT, make, reasons, settings, visible_part
from hypothesis import given
from strategies import TOKENIZER, encode, trajectory_fields

from t3d.errors import InputError
from t3d.interchange.formats.assemble import DropReason
from t3d.interchange.formats.authors import export_drop, record_of_trajectory, trajectories_of_record
from t3d.trajectory import Trajectory

ANSWER = " 7 apples<|im_end|>"
STEPS = [1, 2, 2][: len(encode(ANSWER))]


def read(record, **changes):
    return list(trajectories_of_record(record, "file/0", "record 0 of file", settings(16, **changes)))


def record(**changes):
    return {"question": "how many?", "prompt": PROMPT, "full_output": [ANSWER], "step_map": [STEPS]} | changes


@given(fields=trajectory_fields())
def test_the_visible_answer_survives_the_round_trip(fields):
    """Not held: filler after the stop, block size, mask id, decoding settings, task, teacher, hashes."""
    trajectory = Trajectory(**fields)
    written = record_of_trajectory(trajectory, 0, TOKENIZER)
    back = list(trajectories_of_record(written, "x", "record 0", settings(trajectory.block_size)))
    assert back == [visible_part(trajectory)]


def test_the_record_is_the_released_one():
    written = record_of_trajectory(make(), 0, TOKENIZER)
    assert written["prompt"] == PROMPT
    assert written["question"] == "how many?"
    assert written["full_output"] == [ANSWER]
    assert written["step_map"] == [list(make().step_map[: make().visible_length])]
    assert written["response_length"] == [make().visible_length]


def test_the_released_training_makes_the_teachers_prompt_of_the_question():
    """It renders ``question`` with the chat template and ignores ``prompt`` (self_ddo_sdar_full.py)."""
    written = record_of_trajectory(make(), 0, TOKENIZER)
    chat = [{"role": "user", "content": written["question"]}]
    rendered = TOKENIZER.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    assert encode(rendered) == make().prompt_ids


@pytest.mark.parametrize(
    "prompt",
    [
        "how many?",
        "<|im_start|>system\nBe short.<|im_end|>\n" + PROMPT,
        PROMPT + "so<|im_end|>\n<|im_start|>user\nso?<|im_end|>\n<|im_start|>assistant\n",
        PROMPT + " the answer is",
    ],
)
def test_a_prompt_that_no_question_gives_is_dropped(prompt):
    """No template, a system's turn, two turns, an answer that has begun."""
    other = make(prompt_ids=encode(prompt), block_size=64, terminal_complete=False)
    drop = export_drop(other, TOKENIZER)
    assert drop is not None and drop.reason == DropReason.NO_QUESTION
    assert export_drop(make(), TOKENIZER) is None


def test_a_released_prompt_lacks_its_last_line_break_and_has_a_question():
    released = make(prompt_ids=encode(PROMPT[:-1]), block_size=64, terminal_complete=False)
    assert record_of_trajectory(released, 0, TOKENIZER)["question"] == "how many?"


def test_a_number_as_id_is_its_text():
    assert [outcome.id for outcome in read(record(id=7))] == ["7"]


@pytest.mark.parametrize("missing", [None, [None]])
def test_an_output_without_a_step_map_is_dropped_with_its_reason(missing):
    assert reasons(read(record(step_map=missing))) == [DropReason.NO_STEPS]
    both = record(full_output=[ANSWER, ANSWER], step_map=[None, STEPS])
    assert reasons(read(both)) == [DropReason.NO_STEPS, None]


def test_several_outputs_become_several_trajectories():
    outcomes = read(record(full_output=[ANSWER, " so"], step_map=[STEPS, [1]]))
    assert [outcome.id for outcome in outcomes] == ["file/0/0", "file/0/1"]
    assert outcomes[0].response_ids == encode(ANSWER)
    assert outcomes[1].response_ids == encode(" so")
    assert outcomes[0].prompt_ids == outcomes[1].prompt_ids == encode(PROMPT)
    assert [outcome.finish_reason for outcome in outcomes] == ["stop", "length"]


@pytest.mark.parametrize(
    "renamed",
    [
        {"answer": [ANSWER], "step_map": [STEPS]},
        {"answer": ANSWER, "step_map": [STEPS]},
        {"answer": ANSWER, "step_map": STEPS},
    ],
)
def test_renamed_outputs_are_read_as_a_list_or_one_text(renamed):
    assert read({"prompt": PROMPT, **renamed}) == read(record())


def test_full_output_wins_over_an_answer_that_is_the_gold_one():
    assert read(record(answer="7")) == read(record())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"step_map": [[*STEPS, 3]]}, DropReason.LENGTH_MISMATCH),
        ({"step_map": [STEPS[:-1]]}, DropReason.LENGTH_MISMATCH),
        ({"full_output": [" 7 \ufffd<|im_end|>"]}, DropReason.TEXT_CHANGED),
        ({"prompt": "\ufffd"}, DropReason.TEXT_CHANGED),
        ({"step_map": [[0, *STEPS[1:]]]}, DropReason.NEVER_SET),
        ({"full_output": [""], "step_map": [""]}, DropReason.EMPTY_RESPONSE),
        ({"prompt": ""}, DropReason.EMPTY_PROMPT),
    ],
)
def test_an_output_that_does_not_fit_is_dropped_with_its_reason(changes, reason):
    assert reasons(read(record(**changes))) == [reason]


def test_steps_that_fall_between_blocks_are_dropped_at_that_block_size_only():
    falling = record(step_map=[list(range(len(STEPS), 0, -1))])
    where = "record 0"
    assert reasons(trajectories_of_record(falling, "x", where, settings(1))) == [DropReason.STEPS_FALL]
    assert reasons(trajectories_of_record(falling, "x", where, settings(64))) == [None]


def test_a_dropped_output_leaves_the_others():
    outcomes = read(record(full_output=["", ANSWER], step_map=["", STEPS]))
    assert reasons(outcomes) == [DropReason.EMPTY_RESPONSE, None]


@pytest.mark.parametrize(
    ("broken", "field"),
    [
        ({"full_output": [ANSWER], "step_map": [STEPS]}, "prompt"),
        ({"prompt": PROMPT, "step_map": [STEPS]}, "full_output"),
        ({"prompt": PROMPT, "full_output": [ANSWER]}, "step_map"),
        (record(prompt=3), "prompt"),
        (record(prompt="\ud800"), "prompt"),
        (record(full_output=7), "full_output"),
        (record(full_output=[7]), "full_output"),
        (record(step_map="1 2"), "step_map"),
        (record(step_map=STEPS), "step_map"),
        (record(step_map=[["1"] * len(STEPS)]), "step_map"),
        (record(step_map=[[True] * len(STEPS)]), "step_map"),
        (record(step_map=[[2**40] * len(STEPS)]), "step_map"),
        (record(step_map=[STEPS, STEPS]), "step_map"),
        (record(id=7.5), "id"),
    ],
)
def test_a_record_of_another_shape_names_the_field_and_the_record(broken, field):
    with pytest.raises(InputError, match="record 0 of file") as caught:
        read(broken)
    assert caught.value.field == field
    assert len(str(caught.value)) < 300


def test_text_needs_a_tokenizer():
    with pytest.raises(InputError, match="tokenizer"):
        read(record(), tokenizer=None)
