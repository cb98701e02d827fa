"""Finished cells: found by hash, here or in the earlier folder; damaged or outdated ones are not taken."""

import json

import pytest

from t3d.errors import InputError
from t3d.reproduce.resolve import Resolved
from t3d.reproduce.store import CellStore, is_same

CELL = Resolved(full={"seed": 0, "training": {"path_weight": 0.2, "objective": "t3d"}}, hash="abc")


def record(**changes):
    return {"config_hash": "abc", "config": CELL.full, "results": [], **changes}


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


def test_settings_that_only_one_side_knows_are_left_to_the_hash():
    assert is_same({"a": {"b": 1}}, {"a": {"b": 1, "new": 2}, "c": 3})
    assert is_same({"a": {"b": 1, "gone": 2}}, {"a": {"b": 1}})
    assert not is_same({"a": {"b": 1}}, {"a": {"b": 2}})
    assert not is_same({"a": {"b": 1}}, {"a": 1})
    assert not is_same([1, 2], [1])


@pytest.mark.parametrize("content", ["", "{", "[]", json.dumps({"config": {}, "config_hash": "abc"})])
def test_a_damaged_cell_is_named_with_what_to_do(tmp_path, content):
    (tmp_path / "cell.abc.json").write_text(content)
    with pytest.raises(InputError, match=r"cell\.abc\.json': damaged .*Fix: delete it"):
        CellStore(tmp_path).find(CELL)
