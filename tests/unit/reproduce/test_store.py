"""Finished cells: found by hash, here or in the earlier folder; damaged or outdated ones are not taken."""

import json

import pytest

from t3d.errors import InputError
from t3d.reproduce import store as module
from t3d.reproduce.resolve import Resolved
from t3d.reproduce.store import CellStore

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
