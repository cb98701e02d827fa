"""Which checkpoint is the newest, and which is whole."""

import hashlib
import json

import pytest

from t3d.errors import InputError
from t3d.work.checkpoints import check_checkpoint, checkpoints, newest_checkpoint


def write_checkpoint(folder, content=b"weights"):
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a").write_bytes(content)
    digests = {"sub/a": hashlib.sha256(b"weights").hexdigest()}
    (folder / "files.json").write_text(json.dumps(digests))
    return folder


def test_checkpoints_are_ordered_by_number_and_nothing_else_is_among_them(tmp_path):
    unfinished = (".checkpoint-11.partial", ".checkpoint-3.removed")
    foreign = ("checkpoint-4.old", "checkpoint-", "checkpoint--5", "checkpoint-\u00b2")
    for name in ("checkpoint-9", "checkpoint-10", *unfinished, *foreign):
        (tmp_path / name).mkdir()
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-9", "checkpoint-10"]
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    assert checkpoints(tmp_path / "nowhere") == []
    assert newest_checkpoint(tmp_path / "nowhere") is None


def test_a_whole_checkpoint_passes(tmp_path):
    check_checkpoint(write_checkpoint(tmp_path / "checkpoint-1"))


def test_a_changed_file_is_named(tmp_path):
    folder = write_checkpoint(tmp_path / "checkpoint-1", b"weighty")
    with pytest.raises(InputError, match=r"sub/a': truncated or damaged\. Fix: delete .*checkpoint-1;"):
        check_checkpoint(folder)


@pytest.mark.parametrize("content", [None, "", "{"])
def test_a_checkpoint_without_its_list_of_files_is_refused(tmp_path, content):
    folder = write_checkpoint(tmp_path / "checkpoint-1")
    (folder / "files.json").unlink()
    if content is not None:
        (folder / "files.json").write_text(content)
    with pytest.raises(InputError, match=r"files\.json': missing or damaged"):
        check_checkpoint(folder)
