"""Validation: every record is checked and every problem named, not only the first."""

import dataclasses

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from format_helpers import make
from strategies import MASK_ID, STOP_IDS, TOKENIZER

from t3d.errors import InputError
from t3d.interchange.validate import validate_file
from t3d.models.token_ids import LoadedTokenizer, tokenizer_hash
from t3d.trajectory import write_trajectories

LOADED = LoadedTokenizer(
    tokenizer=TOKENIZER, mask_token_id=MASK_ID, stop_token_ids=STOP_IDS, vocab_size=len(TOKENIZER)
)
HASH = tokenizer_hash(TOKENIZER)


def problems(tmp_path, *trajectories, loaded=None):
    write_trajectories(tmp_path / "a.parquet", trajectories)
    return [(found.id, found.problem) for found in validate_file(tmp_path / "a.parquet", loaded)[1]]


def rewrite(path, column, values):
    """Replace a column by values that the class would refuse; without the checksum of the values."""
    table = pq.read_table(path).replace_schema_metadata({"t3d_schema_version": "1"})
    index = table.column_names.index(column)
    field = table.schema.field(column)
    pq.write_table(table.set_column(index, field, pa.array(values, field.type)), path)


def test_good_records_have_no_problem(tmp_path):
    assert problems(tmp_path, make(), make(id="b", tokenizer_hash=HASH), loaded=LOADED) == []


def test_every_broken_record_is_named_with_its_rule(tmp_path):
    path = tmp_path / "a.parquet"
    write_trajectories(path, [make(id=name) for name in "abcd"])
    good = list(make().step_map)
    rewrite(path, "step_map", [good[:-1], good, [0, *good[1:]], good[::-1]])
    num_records, found = validate_file(path)
    assert num_records == 4
    assert [problem.id for problem in found] == ["a", "c", "d"]
    assert "need as many steps" in found[0].problem
    assert "count from 1" in found[1].problem
    assert "fall from one block to the next" in found[2].problem
    assert all(problem.problem.startswith("step_map: ") for problem in found)


def test_a_file_that_is_no_trajectory_file_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        validate_file(tmp_path / "none.parquet")


def test_missing_values_inside_lists_are_an_error_and_no_crash(tmp_path):
    path = tmp_path / "a.parquet"
    write_trajectories(path, [make()])
    rewrite(path, "step_map", [[None, *make().step_map[1:]]])
    with pytest.raises(InputError, match="step_map has empty values"):
        validate_file(path)


@pytest.mark.parametrize("settings", ["{", "[1]"])
def test_decoding_settings_that_are_no_json_object_are_a_problem_of_their_record(tmp_path, settings):
    path = tmp_path / "a.parquet"
    write_trajectories(path, [make(), make(id="b")])
    rewrite(path, "decode_params", ["{}", settings])
    assert [problem.id for problem in validate_file(path)[1]] == ["b"]


def test_every_use_of_an_id_after_the_first_is_named(tmp_path):
    assert problems(tmp_path, make(), make(id="b"), make(), make()) == [
        ("a", "records 0 and 2 share this id"),
        ("a", "records 0 and 3 share this id"),
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"terminal_complete": False}, "terminal_complete: says cut"),
        ({"decode_params": {"block_size": 8}}, "block_size: 4, but decode_params has 8"),
        ({"prompt_ids": (), "block_size": 1, "step_map": (1, 2, 3, 4, 5)}, "prompt_ids: empty"),
        ({"mask_token_id": make().response_ids[0]}, "response_ids: the mask token"),
        ({"mask_token_id": -1}, "ids: -1 is negative"),
        (
            {"prompt_ids": (*make().prompt_ids[:-1], MASK_ID)},
            f"prompt_ids: the mask token {MASK_ID} is in the prompt",
        ),
    ],
)
def test_inconsistent_records_are_named(tmp_path, changes, message):
    ((identity, problem),) = problems(tmp_path, make(**changes))
    assert identity == "a"
    assert problem.startswith(message)


def test_an_unknown_finish_reason_is_named(tmp_path):
    path = tmp_path / "a.parquet"
    write_trajectories(path, [make()])
    rewrite(path, "finish_reason", ["stopped"])
    assert [problem.problem for problem in validate_file(path)[1]] == [
        "finish_reason: neither stop nor length"
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask_token_id": 5}, "mask_token_id: 5, the model's is"),
        ({"tokenizer_hash": "0" * 64}, "tokenizer_hash: 000000000000 is another"),
        ({"finish_reason": "length"}, "finish_reason: 'length', but the answer has a stop token"),
        ({"visible_length": 1}, "finish_reason: 'stop', but the answer has no stop token"),
        (
            {"response_ids": (STOP_IDS[0], *make().response_ids[1:])},
            "visible_length: 3, but the first stop token ends the answer at 1",
        ),
    ],
)
def test_a_record_that_does_not_fit_the_model_is_named_only_with_the_model(tmp_path, changes, message):
    trajectory = make(**changes)
    assert problems(tmp_path, trajectory) == []
    ((_, problem),) = problems(tmp_path, trajectory, loaded=LOADED)
    assert problem.startswith(message)


def test_tokens_outside_the_models_vocabulary_are_named(tmp_path):
    small = dataclasses.replace(LOADED, vocab_size=MASK_ID)
    ((_, problem),) = problems(tmp_path, make(), loaded=small)
    assert problem.startswith(f"ids: {MASK_ID} is outside")
