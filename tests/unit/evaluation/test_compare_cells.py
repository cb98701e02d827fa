"""Cells of ``t3d reproduce`` compared: their verdicts are paired by what posed their problems."""

import json
from pathlib import Path

import pytest

from t3d.errors import InputError
from t3d.evaluation.compare import CompareConfig, compare
from t3d.evaluation.samples import read_graded

COMMITTED = Path(__file__).parents[3] / "docs" / "results" / "cells"
COMMAND = "t3d reproduce cell --suite mini --method t3d --settings B8-T2"
COSTS = {
    "distinct_answers_per_prompt": 1.0,
    "latency": 0.1,
    "tokens_per_forward": 1.0,
    "tokens_per_second": 9.0,
    "mean_denoising_steps": 4.0,
    "mean_length": 4.0,
}
NAMES = (
    "n",
    "num_prompts",
    "difference",
    "ci95",
    "p_value",
    "p_holm",
    "test",
    "both_right",
    "only_a",
    "only_b",
)


def cell(path, verdicts, *, num_draws=1, suite="mini", **evaluation):
    """A cell's file; ``verdicts`` by (setting, task)."""
    posed = {"split": "test", "seed": 0, "limit": 8, "samples_per_prompt": num_draws, **evaluation}
    rows = [
        {
            "setting": setting,
            "task": task,
            "n": len(text),
            "num_prompts": len(text) // num_draws,
            "num_correct": text.count("1"),
            "verdicts": text,
            **COSTS,
        }
        for (setting, task), text in verdicts.items()
    ]
    record = {
        "config_hash": "0",
        "command": COMMAND,
        "results": rows,
        "config": {"suite": suite, "evaluation": posed},
    }
    path.write_text(json.dumps(record))
    return str(path)


def evaluation(folder, verdicts, num_draws=1):
    """The same verdicts as a folder of ``t3d eval``."""
    folder.mkdir()
    lines = [
        {
            "setting": setting,
            "task": task,
            "id": f"{task}/test/{i // num_draws}" + (f"#{i % num_draws}" if num_draws > 1 else ""),
            "correct": char == "1",
            "question": f"{task} {i // num_draws}?",
        }
        for (setting, task), text in verdicts.items()
        for i, char in enumerate(text)
    ]
    (folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(folder)


FIRST = {("B4-T2", "chain"): "11010010", ("B4-T2", "make"): "10000111", ("B4-T4", "chain"): "01100100"}
SECOND = {("B4-T2", "chain"): "11111010", ("B4-T2", "make"): "01101111", ("B4-T4", "chain"): "01101110"}


@pytest.mark.parametrize("num_draws", [1, 2])
def test_cells_compare_as_the_evaluations_with_the_same_verdicts(tmp_path, num_draws):
    """Of draws of one prompt, too, which stand one after another."""
    cells = [
        cell(tmp_path / f"{name}.0123456789abcdef.json", verdicts, num_draws=num_draws)
        for name, verdicts in (("a", FIRST), ("b", SECOND))
    ]
    folders = [
        evaluation(tmp_path / name, verdicts, num_draws) for name, verdicts in (("c", FIRST), ("d", SECOND))
    ]
    ours, theirs = (compare([read_graded(path) for path in paths]) for paths in (cells, folders))
    assert len(ours["cells"]) == 3 and ours["means"] == theirs["means"]
    for own, other in zip(ours["cells"], theirs["cells"], strict=True):
        assert {name: own[name] for name in NAMES} == {name: other[name] for name in NAMES}
        assert (own["task"], own["setting_a"]) == (other["task"], other["setting_a"])
        assert own["num_prompts"] == 8 // num_draws
        numbers = [identity.rpartition("/")[2] for identity in own["lost_ids"] + own["gained_ids"]]
        assert numbers == [
            identity.rpartition("/")[2] for identity in other["lost_ids"] + other["gained_ids"]
        ]


def test_a_cell_is_compared_with_itself_at_another_setting(tmp_path):
    path = cell(tmp_path / "a.json", FIRST)
    config = CompareConfig(setting_a=("B4-T2",), setting_b=("B4-T4",))
    (found,) = compare([read_graded(path), read_graded(path)], config)["cells"]
    assert (found["task"], found["only_a"], found["only_b"]) == ("chain", 3, 2)


@pytest.mark.parametrize(
    ("other", "problem"),
    [
        ({"seed": 1}, r"seed is 1, but 0 in .*problems differ"),
        ({"limit": None}, "limit is None, but 8 in"),
        ({"split": "validation"}, "split is 'validation', but 'test' in"),
        ({"num_draws": 2}, "samples_per_prompt is 2, but 1 in"),
        ({"suite": "sdar"}, "suite is 'sdar', but 'mini' in"),
        ({"data_and_graders": {"chain": {"data": "2"}}}, "data and grader of chain is {'data': '2'}, but"),
    ],
)
def test_cells_of_other_problems_are_refused_with_the_reason(tmp_path, other, problem):
    first = cell(tmp_path / "a.json", FIRST, data_and_graders={"chain": {"data": "1"}})
    same = {"data_and_graders": {"chain": {"data": "1"}}} | other
    second = cell(tmp_path / "b.json", SECOND, **same)
    for config in (CompareConfig(), CompareConfig(common_only=True)):
        with pytest.raises(InputError, match=problem):
            compare([read_graded(first), read_graded(second)], config)


def test_cells_of_other_tasks_of_the_same_data_are_compared_where_they_meet(tmp_path):
    first = cell(tmp_path / "a.json", FIRST, data_and_graders={"chain": {"data": "1"}, "make": {"data": "2"}})
    verdicts = {key: text for key, text in SECOND.items() if key[1] == "chain"}
    second = cell(tmp_path / "b.json", verdicts, data_and_graders={"chain": {"data": "1"}})
    summary = compare([read_graded(first), read_graded(second)])
    assert [found["task"] for found in summary["cells"]] == ["chain", "chain"]
    assert summary["notes"][0] == "Not compared, only in A: make B4-T2."


def test_a_cell_and_an_evaluation_do_not_name_the_same_problems(tmp_path):
    paths = [cell(tmp_path / "a.json", FIRST), evaluation(tmp_path / "b", SECOND)]
    for order in (paths, paths[::-1]):
        with pytest.raises(
            InputError, match=r"a\.json': a cell numbers its problems, and .*b names them by id"
        ):
            compare([read_graded(path) for path in order])


def test_a_cell_without_verdicts_names_the_command_that_makes_them(tmp_path):
    path = Path(cell(tmp_path / "a.json", FIRST))
    record = json.loads(path.read_text())
    del record["results"][1]["verdicts"]
    path.write_text(json.dumps(record))
    with pytest.raises(InputError, match=rf"made before cells kept the verdict.*make it again: {COMMAND}"):
        read_graded(path)


@pytest.mark.parametrize("verdicts", ["1101001", "11010012", ""])
def test_verdicts_that_are_not_one_per_response_are_refused(tmp_path, verdicts):
    path = Path(cell(tmp_path / "a.json", FIRST))
    record = json.loads(path.read_text())
    record["results"][0]["verdicts"] = verdicts
    path.write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"results\[0\]: verdicts is not a 0 or 1 for every response"):
        read_graded(path)


def test_other_reports_are_no_cells(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps({"results": [], "config": {"tasks": "chain"}}))
    with pytest.raises(InputError, match=r"not the record of a cell.*the folder of t3d eval"):
        read_graded(tmp_path / "results.json")


def test_committed_cells_are_read_or_name_their_command():
    path = next(COMMITTED.glob("mini.t3d.seed0.B8-T2.*.json"))
    record = json.loads(path.read_text())
    if all("verdicts" in row for row in record["results"]):
        (lines, *_) = read_graded(path).cells.values()
        assert len(lines) == record["results"][0]["n"]
    else:
        with pytest.raises(InputError) as caught:
            read_graded(path)
        assert record["command"] in str(caught.value)


def test_cells_have_no_note_that_their_data_were_not_compared(tmp_path):
    """Their lines have neither question nor answer, but what posed and graded them was compared."""
    paths = [cell(tmp_path / f"{name}.json", part) for name, part in (("a", FIRST), ("b", SECOND))]
    notes = compare([read_graded(path) for path in paths])["notes"]
    assert not any("neither question nor answer" in note for note in notes)
