"""Finished cells: found by hash, here or in the earlier folder; damaged or outdated ones are not taken."""

import json

import pytest

from t3d.errors import InputError
from t3d.evaluation.finished import fault_of_cell
from t3d.reproduce import store as module
from t3d.reproduce.resolve import Resolved
from t3d.reproduce.store import CellStore

CELL = Resolved(full={"seed": 0, "training": {"path_weight": 0.2, "objective": "t3d"}}, hash="abc")


def record(**changes):
    return {"config_hash": "abc", "command": "t3d", "config": CELL.full, "results": [row()], **changes}


def row(**changes):
    costs = ("latency", "seconds", "tokens_per_forward", "tokens_per_second")
    costs += ("distinct_answers_per_prompt", "mean_denoising_steps", "mean_length")
    counts = {"n": 4, "num_prompts": 2, "num_correct": 2, "verdicts": "0110"}
    return {"setting": "B4-T1", "task": "chain", **counts, **dict.fromkeys(costs, 1.0), **changes}


FAULTS = [
    ("num_correct", 5, "more than n"),
    ("num_correct", 1, "verdicts has 2 of 1"),
    ("num_correct", True, "no count"),
    ("n", 0, "n is 0"),
    ("n", 4.0, "no count"),
    ("num_prompts", 3, "no multiple of num_prompts"),
    ("verdicts", "011", "not a 0 or 1 for every response"),
    ("verdicts", "01x0", "not a 0 or 1 for every response"),
    ("verdicts", 110, "verdicts is 110, no text"),
    ("latency", float("nan"), "latency is nan, no number"),
    ("seconds", -1, "seconds is -1, no number"),
    ("tokens_per_second", "9", "no number"),
    ("task", None, "task is None, no text"),
]


@pytest.mark.parametrize(("name", "value", "fault"), FAULTS)
def test_a_field_that_cannot_be_is_named_with_its_file(tmp_path, name, value, fault):
    store = CellStore(tmp_path)
    store.write("cell", record(results=[row(), row(**{"task": "make", name: value})]))
    with pytest.raises(InputError, match=rf"cell\.abc\.json': damaged \(results\[1\]: .*{fault}"):
        store.find(CELL)


def test_every_task_is_there_once_under_every_setting(tmp_path):
    def fault(*rows):
        evaluation = {"tasks": ["chain", "make"], "settings": {"B4-T1": {}}}
        return fault_of_cell(record(results=list(rows), config={"evaluation": evaluation}))

    chain, make = row(), row(task="make")
    assert fault(chain, make) is None
    assert fault(chain, make, make) == "results[2]: make B4-T1 is there twice"
    assert fault(chain) == "results and config differ in make B4-T1"
    assert fault(chain, make, row(setting="B8-T1")) == "results and config differ in chain B8-T1"
    assert fault() == "results is no list of entries, or an empty one"


def test_a_file_of_lists_in_lists_is_named(tmp_path):
    (tmp_path / "cell.abc.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match=r"cell\.abc\.json': damaged .*Fix: delete it"):
        CellStore(tmp_path).find(CELL)


def test_a_written_cell_is_found_here_and_as_an_earlier_one(tmp_path):
    path = CellStore(tmp_path / "new").write("mini.t3d", record())
    assert path.name == "mini.t3d.abc.json"
    for store in (CellStore(tmp_path / "new"), CellStore(tmp_path / "other", tmp_path / "new")):
        assert store.find(CELL) == record()
    assert CellStore(tmp_path / "other", tmp_path / "missing").find(CELL) is None
    assert CellStore(tmp_path / "new").find(Resolved(full=CELL.full, hash="xyz")) is None


def test_a_cell_made_under_another_default_is_missing(tmp_path):
    store = CellStore(tmp_path)
    old = {"seed": 0, "training": {"path_weight": 0.1, "objective": "t3d"}}
    store.write("cell", record(config=old))
    assert store.find(CELL) is None


def test_a_cell_from_before_a_field_existed_counts_where_the_field_is_named(tmp_path, monkeypatch):
    store = CellStore(tmp_path)
    store.write("cell", record(config={"seed": 0, "training": {"objective": "t3d"}}))
    assert store.find(CELL) is None
    monkeypatch.setattr(module, "ADDED_LATER", {"path_weight"})
    assert store.find(CELL) is not None


@pytest.mark.parametrize("content", ["", "{", "[]", json.dumps({"config": {}, "config_hash": "abc"})])
def test_a_damaged_cell_is_named_with_what_to_do(tmp_path, content):
    (tmp_path / "cell.abc.json").write_text(content)
    with pytest.raises(InputError, match=r"cell\.abc\.json': damaged .*Fix: delete it"):
        CellStore(tmp_path).find(CELL)
