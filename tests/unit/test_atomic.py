"""Files and folders that appear only when complete."""

import pytest

from t3d.atomic import atomic_file, atomic_folder, write_text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_only_when_the_block_ends(tmp_path):
    target = tmp_path / "new" / "a.txt"
    with atomic_file(target) as partial:
        partial.write_text("hello")
        assert not target.exists()
    assert target.read_text() == "hello"
    assert names(target.parent) == ["a.txt"]


def test_a_failure_keeps_the_old_file_and_leaves_nothing_else(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_file(target) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_failure_before_anything_is_written_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), atomic_file(tmp_path / "a.txt"):
        raise RuntimeError
    assert names(tmp_path) == []


def test_a_folder_appears_only_when_complete_and_replaces_the_old_one(tmp_path):
    target = tmp_path / "model"
    target.mkdir()
    (target / "old").write_text("old")
    with atomic_folder(target) as partial:
        (partial / "new").write_text("new")
        assert names(target) == ["old"]
    assert names(target) == ["new"]
    assert names(tmp_path) == ["model"]


def test_a_failure_keeps_the_old_folder_and_leaves_nothing_else(tmp_path):
    target = tmp_path / "model"
    target.mkdir()
    (target / "old").write_text("old")
    with pytest.raises(RuntimeError), atomic_folder(target) as partial:
        (partial / "new").write_text("new")
        raise RuntimeError
    assert names(target) == ["old"]
    assert names(tmp_path) == ["model"]


def test_a_folder_left_by_a_killed_run_does_not_leak_into_the_next(tmp_path):
    (tmp_path / ".model.partial").mkdir()
    (tmp_path / ".model.partial" / "stale").write_text("stale")
    with atomic_folder(tmp_path / "model") as partial:
        (partial / "new").write_text("new")
    assert names(tmp_path / "model") == ["new"]


def test_text_is_written_as_utf8(tmp_path):
    write_text(tmp_path / "a.txt", "é ∑")
    assert (tmp_path / "a.txt").read_bytes() == "é ∑".encode()
