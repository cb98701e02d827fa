"""Trajectories: their rules, step-map algebra, Parquet in and out."""

import dataclasses
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from t3d.errors import InputError
from t3d.trajectory import Trajectory, read_trajectories, write_trajectories

MASK = 37


def make(**changes):
    """Prompt of 6 on blocks of 4: the response's blocks are {2 tokens}, {4 tokens}."""
    fields = {
        "id": "a",
        "prompt_ids": (1, 2, 3, 4, 5, 6),
        "response_ids": (11, 12, 13, 14, 15, 16),
        "step_map": (2, 1, 4, 3, 4, 5),
        "visible_length": 5,
        "finish_reason": "stop",
        "block_size": 4,
        "mask_token_id": MASK,
    }
    return Trajectory(**(fields | changes))


# --- rules ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "field", "problem"),
    [
        ({"response_ids": ()}, "response_ids", "empty response"),
        ({"step_map": (1, 2, 3)}, "step_map", "6 response ids need as many steps"),
        ({"step_map": ()}, "step_map", "6 response ids need as many steps"),
        ({"step_map": (1, 0, 4, 3, 4, 5)}, "step_map", "steps count from 1"),
        ({"block_size": 0}, "block_size", "not positive"),
        ({"visible_length": 0}, "visible_length", "not in 1..6"),
        ({"visible_length": 7}, "visible_length", "not in 1..6"),
        ({"prompt_ids": (1, 2, 3, 4, 5)}, "response_ids", "terminal block of size 4 is not whole"),
        ({"step_map": (3, 4, 1, 2, 1, 2)}, "step_map", "fall from one block to the next"),
        ({"step_map": (1, 2, 3, 2, 3, 3)}, "step_map", "fall from one block to the next"),
    ],
)
def test_a_broken_rule_names_field_record_and_problem(changes, field, problem):
    with pytest.raises(InputError, match=problem) as caught:
        make(**changes)
    assert caught.value.field == f"{field} of trajectory 'a'"


def test_a_record_that_ends_inside_its_block_must_say_so():
    shorter = {"response_ids": (11, 12, 13), "step_map": (1, 2, 3), "visible_length": 3}
    assert make(**shorter, terminal_complete=False).num_denoising_steps == 3
    with pytest.raises(InputError, match="not whole"):
        make(**shorter)


def test_steps_may_fall_inside_a_block_and_repeat():
    assert make(step_map=(2, 1, 6, 5, 5, 3)).num_denoising_steps == 6


def test_trajectories_are_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        make().id = "b"


# --- step-map algebra ----------------------------------------------------------------------------


def test_states_by_hand():
    """Steps 2 1 | 4 3 4 5: x_t shows what was committed up to step t."""
    trajectory = make()
    m = MASK
    assert [trajectory.state_at(step) for step in range(6)] == [
        (m, m, m, m, m, m),
        (m, 12, m, m, m, m),
        (11, 12, m, m, m, m),
        (11, 12, m, 14, m, m),
        (11, 12, 13, 14, 15, m),
        (11, 12, 13, 14, 15, 16),
    ]
    assert trajectory.num_denoising_steps == 5


def test_blocks_of_an_unaligned_prompt_by_hand():
    """Prompt of 6: absolute blocks of 4 cut after 2 tokens, of 8 after 2, of 3 after 3, of 1 everywhere."""
    trajectory = make()
    ids = trajectory.response_ids
    assert trajectory.blocks(ids, 4) == [ids[:2], ids[2:6]]
    assert trajectory.blocks(ids, 8) == [ids[:2], ids[2:]]
    assert trajectory.blocks(ids, 3) == [ids[:3], ids[3:]]
    assert trajectory.blocks(ids, 1) == [(i,) for i in ids]
    assert trajectory.blocks(ids, 16) == [ids]
    assert trajectory.blocks(ids, 4, "response") == [ids[:4], ids[4:]]
    assert trajectory.blocks(ids, 8, "response") == [ids]


def test_local_steps_of_the_rollouts_own_blocks_by_hand():
    """Steps 2 1 | 4 3 4 5 become ranks 2 1 | 2 1 2 3."""
    assert make().local_steps() == (2, 1, 2, 1, 2, 3)
    assert make().local_steps(4) == (2, 1, 2, 1, 2, 3)


def test_local_steps_of_a_larger_student_block_by_hand():
    """Rollout blocks of 4, student blocks of 8, prompt of 5: its first block holds 3 response tokens.

    Response positions 5 6 7 | 8..15: steps (3 1 2) and (5 4 7 6  9 8 11 10), so ranks 1..3 and 1..8.
    """
    trajectory = make(
        prompt_ids=(1, 2, 3, 4, 5),
        response_ids=tuple(range(11)),
        step_map=(3, 1, 2, 5, 4, 7, 6, 9, 8, 11, 10),
    )
    assert trajectory.local_steps(8) == (3, 1, 2, 2, 1, 4, 3, 6, 5, 8, 7)


def test_local_steps_span_two_rollout_blocks_by_hand():
    """Prompt of 8, rollout blocks of 4 with two tokens per step, student blocks of 8: ranks 1..4."""
    trajectory = make(
        prompt_ids=(0,) * 8, response_ids=tuple(range(8)), step_map=(1, 2, 1, 2, 3, 3, 4, 4), visible_length=8
    )
    assert trajectory.local_steps() == (1, 2, 1, 2, 1, 1, 2, 2)
    assert trajectory.local_steps(8) == (1, 2, 1, 2, 3, 3, 4, 4)
    assert trajectory.local_steps(2) == (1, 2, 1, 2, 1, 1, 1, 1)


def test_local_steps_from_the_response_by_hand():
    """Blocks of 4 from the first response token: steps 2 1 4 3 | 4 5 become ranks 2 1 4 3 | 1 2."""
    assert make().local_steps(4, "response") == (2, 1, 4, 3, 1, 2)


# --- Parquet ---------------------------------------------------------------------------------------


@st.composite
def trajectory_fields(draw):
    """Fields, not the object: the runtime type checker may not run inside a hypothesis strategy."""
    block_size = draw(st.integers(1, 8))
    prompt = draw(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=10))
    complete = draw(st.booleans())
    count = draw(st.integers(1, 20))
    if complete:
        count += -(len(prompt) + count) % block_size
    step_map, first = [], 1
    for position in range(len(prompt), len(prompt) + count):
        if position % block_size == 0 and step_map:
            first = max(step_map) + 1
        step_map.append(first + draw(st.integers(0, 3)))
    scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
    return {
        "id": draw(st.text()),
        "prompt_ids": tuple(prompt),
        "response_ids": tuple(draw(st.lists(st.integers(0, 2**31 - 1), min_size=count, max_size=count))),
        "step_map": tuple(step_map),
        "visible_length": draw(st.integers(1, count)),
        "finish_reason": draw(st.sampled_from(["stop", "length"])),
        "block_size": block_size,
        "mask_token_id": draw(st.integers(0, 2**31 - 1)),
        "decode_params": draw(
            st.dictionaries(st.text(), scalars | st.lists(scalars, max_size=2), max_size=4)
        ),
        "terminal_complete": complete,
        "task": draw(st.text()),
        "teacher": draw(st.text()),
        "teacher_hash": draw(st.text()),
        "tokenizer_hash": draw(st.text()),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("parquet")


@given(rows=st.lists(trajectory_fields(), min_size=1, max_size=4))
def test_what_is_written_is_read(folder, rows):
    records = [Trajectory(**row) for row in rows]
    write_trajectories(folder / "a.parquet", records)
    assert read_trajectories(folder / "a.parquet") == records


@given(fields=trajectory_fields())
def test_states_start_masked_end_clean_and_grow(fields):
    record = Trajectory(**fields)
    states = [record.state_at(step) for step in range(record.num_denoising_steps + 1)]
    assert states[0] == (record.mask_token_id,) * len(record.response_ids)
    assert states[-1] == record.response_ids
    for index, step in enumerate(record.step_map):
        column = [state[index] for state in states]
        assert column == [record.mask_token_id] * step + [record.response_ids[index]] * (len(states) - step)


@given(
    fields=trajectory_fields(), block_size=st.integers(1, 9), origin=st.sampled_from(["prompt", "response"])
)
def test_local_steps_are_dense_ranks_of_each_block(fields, block_size, origin):
    """Brute force: 1 + the number of smaller distinct steps in the token's own block."""
    record = Trajectory(**fields)
    start = len(record.prompt_ids)
    shift = start if origin == "prompt" else 0
    block = [(shift + index) // block_size for index in range(len(record.step_map))]
    expected = []
    for index, step in enumerate(record.step_map):
        mates = {other for other, its in zip(record.step_map, block, strict=True) if its == block[index]}
        expected.append(1 + sum(other < step for other in mates))
    assert record.local_steps(block_size, origin) == tuple(expected)
    pieces = record.blocks(record.response_ids, block_size, origin)
    assert [len(piece) for piece in pieces] == [block.count(number) for number in sorted(set(block))]
    assert sum(pieces, ()) == record.response_ids


def test_a_parent_folder_is_made(tmp_path):
    write_trajectories(tmp_path / "x" / "y" / "a.parquet", [make()])
    assert read_trajectories(str(tmp_path / "x" / "y" / "a.parquet")) == [make()]


def test_a_failed_write_keeps_the_old_file_and_leaves_no_partial_one(tmp_path):
    path = tmp_path / "a.parquet"
    write_trajectories(path, [make()])
    bad = make(response_ids=(2**40,) * 6)  # does not fit the column's int32
    with pytest.raises(pa.ArrowInvalid):
        write_trajectories(path, [bad])
    assert read_trajectories(path) == [make()]
    assert [file.name for file in tmp_path.iterdir()] == ["a.parquet"]


def test_a_write_that_fails_while_rows_are_made_leaves_nothing(tmp_path):
    def rows():
        yield make()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_trajectories(tmp_path / "a.parquet", rows())
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="no such file") as caught:
        read_trajectories(tmp_path / "none.parquet")
    assert caught.value.value == str(tmp_path / "none.parquet")


@pytest.mark.parametrize("content", [b"", b"not parquet at all", b"PAR1 truncated"])
def test_a_corrupt_file_is_named(tmp_path, content):
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(InputError, match="not a readable Parquet file"):
        read_trajectories(tmp_path / "a.parquet")


def test_a_truncated_file_is_named(tmp_path):
    path = tmp_path / "a.parquet"
    write_trajectories(path, [make()])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="not a readable Parquet file"):
        read_trajectories(path)


def test_missing_columns_are_named(tmp_path):
    path = tmp_path / "a.parquet"
    write_trajectories(path, [make()])
    pq.write_table(pq.read_table(path).drop_columns(["step_map", "teacher"]), path)
    with pytest.raises(InputError, match="the columns step_map, teacher are missing"):
        read_trajectories(path)


def test_a_file_without_records_is_refused(tmp_path):
    write_trajectories(tmp_path / "a.parquet", [])
    with pytest.raises(InputError, match="holds no record"):
        read_trajectories(tmp_path / "a.parquet")


def rewrite(path: Path, column: str, values, kind, metadata=None) -> None:
    """Replace one column of a written file, keeping the rest but the checksum of the values."""
    table = pq.read_table(path)
    index = table.column_names.index(column)
    table = table.set_column(index, pa.field(column, kind), pa.array(values, kind))
    metadata = dict(metadata or table.schema.metadata)
    metadata.pop(b"t3d_content_sha256", None)
    pq.write_table(table.replace_schema_metadata(metadata), path)


def test_every_record_is_checked_on_reading(tmp_path):
    path = tmp_path / "a.parquet"
    write_trajectories(path, [make()])
    rewrite(path, "step_map", [[1, 2]], pa.list_(pa.int32()))
    with pytest.raises(InputError, match="6 response ids need as many steps"):
        read_trajectories(path)


def test_extra_columns_are_ignored(tmp_path):
    path = tmp_path / "a.parquet"
    write_trajectories(path, [make()])
    table = pq.read_table(path)
    pq.write_table(table.append_column("note", pa.array(["x"])), path)
    assert read_trajectories(path) == [make()]


def test_the_schema_version_is_in_the_file(tmp_path):
    write_trajectories(tmp_path / "a.parquet", [make()])
    assert pq.read_schema(tmp_path / "a.parquet").metadata[b"t3d_schema_version"] == b"1"


def test_a_file_of_another_schema_version_is_refused(tmp_path):
    """The docstring of read_trajectories promises InputError for another schema."""
    path = tmp_path / "a.parquet"
    write_trajectories(path, [make()])
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({"t3d_schema_version": "2"}), path)
    with pytest.raises(InputError, match="schema"):
        read_trajectories(path)


@pytest.mark.parametrize(
    ("column", "values", "kind"),
    [
        ("decode_params", ["{"], pa.string()),
        ("decode_params", [None], pa.string()),
        ("prompt_ids", [None], pa.list_(pa.int32())),
        ("visible_length", [None], pa.int32()),
        ("step_map", [["a"] * 6], pa.list_(pa.string())),
    ],
)
def test_a_record_of_the_wrong_kind_is_an_input_error(tmp_path, column, values, kind):
    """A null, a wrong type, broken JSON: the user's file, so no traceback."""
    path = tmp_path / "a.parquet"
    write_trajectories(path, [make()])
    rewrite(path, column, values, kind)
    with pytest.raises(InputError):
        read_trajectories(path)


def test_decode_params_are_stored_as_json(tmp_path):
    write_trajectories(tmp_path / "a.parquet", [make(decode_params={"seed": 3, "block_size": 4})])
    stored = pq.read_table(tmp_path / "a.parquet")["decode_params"][0].as_py()
    assert json.loads(stored) == {"seed": 3, "block_size": 4}


# --- damage --------------------------------------------------------------------------------------


@pytest.mark.many_inputs
def test_no_flipped_bit_reads_back_silently_different(tmp_path):
    """Every seventh byte of a file, a bit of each: refused as an InputError, or the same trajectories."""
    written = [
        make(id=f"a{index}", response_ids=tuple(range(index, index + 6)), decode_params={"seed": index})
        for index in range(4)
    ]
    path = tmp_path / "a.parquet"
    write_trajectories(path, written, plan={"seed": 0})
    content, refused = path.read_bytes(), 0
    for index in range(0, len(content), 7):
        flipped = bytearray(content)
        flipped[index] ^= 1 << (index % 8)
        path.write_bytes(flipped)
        try:
            assert read_trajectories(path) == written, f"bit {index % 8} of byte {index}"
        except InputError:
            refused += 1
    assert refused > 50


def test_values_that_were_changed_with_new_page_checksums_are_refused(tmp_path):
    path = tmp_path / "a.parquet"
    write_trajectories(path, [make()])
    table = pq.read_table(path)
    column = table.schema.get_field_index("visible_length")
    other = table.set_column(column, table.schema.field(column), pa.array([4], pa.int32()))
    pq.write_table(other, path)
    with pytest.raises(InputError, match="its values are not those that were written"):
        read_trajectories(path)


def test_a_file_from_before_the_checksums_is_read(tmp_path):
    path = tmp_path / "a.parquet"
    write_trajectories(path, [make()])
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({"t3d_schema_version": "1"}), path)
    assert read_trajectories(path) == [make()]
