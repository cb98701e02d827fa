"""What t3d view shows of each kind of file, told by its content."""

import json
import shutil

import pytest
from viewer_helpers import graded, trajectory, write_lines, write_rollout

from t3d.decoding.completion import Completion
from t3d.decoding.params import DecodeParams
from t3d.errors import InputError
from t3d.problems.problem import Problem
from t3d.report.viewer.recorded import recorded
from t3d.report.viewer.shown import Shown, source_of
from t3d.report.viewer.sources import limited, read_sources


def test_trajectories_keep_their_order_of_commits_whatever_the_file_is_called(tmp_path):
    file = write_rollout(tmp_path / "rollout", trajectory(teacher="mini", tokenizer_hash="abc"))
    (source,) = read_sources(file)
    (shown,) = source.shown
    assert (shown.response_ids, shown.step_map) == (tuple(range(20, 28)), (1, 2, 2, 3, 4, 5, 5, 5))
    assert (shown.visible_length, shown.block_size, shown.num_denoising_steps) == (7, 4, 5)
    assert (shown.correct, shown.num_forwards, shown.model) == (None, None, "mini")


def test_an_evaluation_is_a_source_per_setting_with_verdicts_and_costs(tmp_path):
    rows = [graded("a", correct=True), graded("b", correct=False)]
    rows += [{**row, "setting": "B8-T4", "num_forwards": 2} for row in rows]
    write_lines(tmp_path / "eval" / "samples.jsonl", *rows)
    for given in (tmp_path / "eval", tmp_path / "eval" / "samples.jsonl"):
        full, few = read_sources(given)
        assert [full.name, few.name] == [f"{given}: B4-T1", f"{given}: B8-T4"]
        assert [one.correct for one in few.shown] == [True, False]
        assert [one.num_forwards for one in (*full.shown, *few.shown)] == [5, 5, 2, 2]
        first = full.shown[0]
        assert (first.text, first.question, first.answer, first.reason) == (
            "so 7",
            "how many?",
            "7",
            "passed",
        )


def test_a_file_of_t3d_grade_is_shown_without_a_setting(tmp_path):
    file = write_lines(tmp_path / "graded.jsonl", {"id": 3, "output": "7", "correct": True, "extracted": 7})
    (source,) = read_sources(file)
    assert source.name == str(file)
    assert source.shown == (Shown(id="3", text="7", correct=True, extracted="7"),)


def test_a_run_shows_trajectories_first_and_leaves_other_files_alone(tmp_path):
    write_lines(tmp_path / "evaluations" / "teacher" / "samples.jsonl", graded("a", correct=True))
    write_rollout(tmp_path / "trajectories-1.parquet", trajectory())
    shutil.copy(tmp_path / "trajectories-1.parquet", tmp_path / ".trajectories-2.parquet.partial")
    (tmp_path / "summary.json").write_text("{}")
    names = [source.name for source in read_sources(tmp_path)]
    assert names == ["trajectories-1.parquet", "evaluations/teacher: B4-T1"]


def test_damaged_trajectories_of_a_run_are_named_not_left_out(tmp_path):
    (tmp_path / "trajectories-1.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match="not a readable Parquet file"):
        read_sources(tmp_path)


def completion(**fields) -> Completion:
    """A response of two forwards, of which the second accepts a draft of three."""
    params = DecodeParams(block_size=4, remasking="self_speculative", max_new_tokens=12)
    told = {
        "id": "a",
        "prompt_ids": (1, 1, 1, 1),
        "response_ids": (20, 21, 22, 23),
        "step_map": (1, 2, 2, 2),
        "logprobs": (-0.1, -0.2, -0.3, -0.4),
        "visible_length": 4,
        "finish_reason": "stop",
        "num_denoising_steps": 2,
        "num_drafted": 3,
        "num_accepted": 3,
        "params": params,
        "mask_token_id": 0,
        "text": "so 7",
    }
    return Completion(**{**told, **fields})


def test_a_recorded_completion_comes_back_with_probabilities_and_drafts(tmp_path):
    problem = Problem(id="a", question="how many?", answer="7")
    row = recorded(problem, completion(), model="mini", tokenizer_hash="abc")
    (source,) = read_sources(write_lines(tmp_path / "record.jsonl", row))
    (shown,) = source.shown
    assert shown.origins == ("undrafted", "accepted", "accepted", "accepted")
    assert (shown.logprobs, shown.step_map) == ((-0.1, -0.2, -0.3, -0.4), (1, 2, 2, 2))
    assert (shown.num_forwards, shown.block_size, shown.model) == (2, 4, "mini")


def test_a_completion_without_drafts_records_none():
    params = DecodeParams(block_size=4)
    row = recorded(Problem(id="a", question="?"), completion(params=params), model="", tokenizer_hash="")
    assert row["origins"] == []


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"step_map": [1, 2, 2]}, "step_map"),
        ({"step_map": [0, 2, 2, 2]}, "step_map"),
        ({"response_ids": "ab"}, "response_ids"),
        ({"response_ids": [-1, 2, 3, 4]}, "response_ids"),
        ({"visible_length": 5}, "visible_length"),
        ({"block_size": -1}, "block_size"),
        ({"logprobs": [-0.1]}, "logprobs"),
        ({"logprobs": [-0.1, 0, 0, float("nan")]}, "logprobs"),
        ({"origins": ["accepted"] * 3 + ["guessed"]}, "origins"),
        ({"num_forwards": "2"}, "num_forwards"),
        ({"correct": "yes"}, "correct"),
        ({"response": None}, "source"),
    ],
)
def test_a_record_that_cannot_be_played_is_refused_by_field_and_line(tmp_path, fields, named):
    row = recorded(Problem(id="a", question="?"), completion(), model="mini", tokenizer_hash="")
    file = write_lines(tmp_path / "record.jsonl", {**row, "id": "first"}, {**row, **fields})
    with pytest.raises(InputError) as error:
        read_sources(file)
    assert error.value.field == named and "line 2 of" in str(error.value.value)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("nothing", None, "no such file"),
        ("picture.png", b"\x89PNG\r\n\x1a\n\xff\xfe", "not UTF-8 text"),
        ("notes.txt", b"hello", "neither Parquet nor JSON Lines"),
        ("list.jsonl", b"[1, 2]", "has no response in its first line"),
        ("empty.jsonl", b"", "has no response in its first line"),
        ("results.json", b"{}", "has verdicts and not the answers"),
        ("deep.jsonl", b"[" * 100_000, "neither Parquet nor JSON Lines"),
    ],
)
def test_what_is_none_of_these_is_refused_with_its_path(tmp_path, name, content, problem):
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_sources(file, "compare")
    assert error.value.field == "compare" and error.value.value == str(file)
    assert problem in error.value.problem


def test_a_folder_that_holds_nothing_to_show_is_refused(tmp_path):
    (tmp_path / "README.md").write_text("hello")
    with pytest.raises(InputError, match="holds neither trajectories nor samples"):
        read_sources(tmp_path)


def test_ids_that_come_again_are_numbered_and_none_is_lost():
    source = source_of("x", [Shown(id="a", text="1"), Shown(id="a", text="2"), Shown(id="b", text="3")])
    assert [one.id for one in source.shown] == ["a", "a (2)", "b"]


def test_a_limit_keeps_the_same_ids_on_both_sides():
    """In another order on the right, so that its own first two would be others."""
    left = source_of("l", [Shown(id=name) for name in "abcd"])
    right = source_of("r", [Shown(id=name) for name in "dxba"])
    few = limited([left, right], 2)
    assert ["".join(one.id for one in source.shown) for source in few] == ["ab", "ba"]
    assert [source.num_records for source in few] == [4, 4]
    assert limited([left, right], 9) == [left, right]


def test_a_line_that_is_no_json_behind_good_ones_is_named(tmp_path):
    file = tmp_path / "record.jsonl"
    file.write_text(json.dumps({"id": "a", "response": "x"}) + "\n{broken\n")
    with pytest.raises(InputError, match="line 2"):
        read_sources(file)
