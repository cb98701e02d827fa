"""Files and folders that appear only when complete."""

import errno
import os
import shutil
from pathlib import Path

import pytest
from safetensors import SafetensorError

from t3d.errors import InputError
from t3d.work.files import (
    atomic_file,
    atomic_folder,
    check_output_file,
    clear_leftovers,
    discard,
    write_errors,
    write_text,
)


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


def test_a_folder_whose_removal_was_cut_is_not_left_half_under_its_name(tmp_path, monkeypatch):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "file").write_text("old")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda path, ignore_errors=False: None)  # killed before it removes
        discard(tmp_path / "old")
    assert names(tmp_path) == [".old.removed"]
    clear_leftovers(tmp_path / "old")
    discard(tmp_path / "old")
    assert names(tmp_path) == []


def test_leftovers_go_and_finished_files_stay(tmp_path):
    for name in (".a.partial", ".b.removed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("half")
    (tmp_path / ".c.partial").write_text("half")
    (tmp_path / "d").write_text("whole")
    clear_leftovers(tmp_path)
    assert names(tmp_path) == ["d"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "full"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 128 vs 22"),
    ],
)
def test_a_full_disk_reads_the_same_whoever_writes(tmp_path, error):
    with pytest.raises(InputError, match=r"No space left on device.*Fix: free space"), write_errors(tmp_path):
        raise error


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "broken"),
        FileNotFoundError(errno.ENOENT, "a bug"),
        SafetensorError("InvalidHeaderDeserialization"),
        RuntimeError("shapes differ"),
    ],
)
def test_an_error_that_the_user_cannot_correct_stays_what_it_is(tmp_path, error):
    with pytest.raises(type(error)) as raised, write_errors(tmp_path):
        raise error
    assert raised.value is error


def test_a_file_that_cannot_be_written_is_an_input_error_with_its_name(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=r"file/a\.txt.*no file where a folder belongs"):
        write_text(tmp_path / "file" / "a.txt", "text")


@pytest.mark.parametrize("path", ["", ".", "/", ".."])
def test_a_folder_is_no_output_file(path):
    with pytest.raises(InputError, match=r"is a folder\. Fix: give the name of a file"):
        check_output_file(path)


def test_a_file_new_or_old_is_an_output_file(tmp_path):
    check_output_file(tmp_path / "new" / "a.txt")
    (tmp_path / "old.txt").write_text("old")
    check_output_file(tmp_path / "old.txt")


def test_an_input_is_no_output_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("kept")
    (tmp_path / "link").symlink_to(path)
    for name in ("file", "link"):
        with pytest.raises(InputError, match=f"{name}': is a file to read"):
            check_output_file(tmp_path / name, None, tmp_path / "none", path)
    check_output_file(path, tmp_path / "none")


def test_a_name_that_no_disk_takes_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="a shorter name"):
        write_text(tmp_path / ("a" * 300), "text")
    assert names(tmp_path) == []


def test_a_file_does_not_replace_a_folder(tmp_path):
    (tmp_path / "folder" / "mine").mkdir(parents=True)
    with pytest.raises(InputError, match="give the name of a file"):
        write_text(tmp_path / "folder", "text")
    assert names(tmp_path) == ["folder"]
    assert names(tmp_path / "folder") == ["mine"]


def test_a_folder_does_not_replace_a_file(tmp_path):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(InputError, match="no file where a folder belongs"), atomic_folder(tmp_path / "mine"):
        pass
    assert names(tmp_path) == ["mine"]
    assert (tmp_path / "mine").read_text() == "mine"


@pytest.mark.parametrize("path", ["", ".", "/"])
@pytest.mark.parametrize("writes", [atomic_file, atomic_folder])
def test_a_path_without_a_name_is_an_input_error(path, writes):
    with pytest.raises(InputError, match="has no name of its own"), writes(path):
        pytest.fail("written")


def test_what_may_not_be_removed_is_an_input_error(tmp_path, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise PermissionError(errno.EACCES, "not yours")

    (tmp_path / "old").mkdir()
    (tmp_path / ".a.partial").write_text("half")
    monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    for remove, path in ((discard, tmp_path / "old"), (clear_leftovers, tmp_path)):
        with pytest.raises(InputError, match="an output that you may write to") as caught:
            remove(path)
        assert caught.value.value == str(path)
