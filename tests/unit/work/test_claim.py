"""One run at a time, one plan at a time."""

import json
import os
import signal
import subprocess
import sys

import pytest
from bare_package import BARE_T3D

from t3d.errors import InputError
from t3d.work.claim import InUseError, claim, differences, full_plan, join, locked

PLAN = {"decode": {"temperature": 0.1, "sizes": (1, 2)}, "count": 4}

HOLD = (
    BARE_T3D
    + """
import sys, time
from t3d.work.claim import claim
with claim(sys.argv[1], {"count": 4}, "chunk-*"):
    print("held", flush=True)
    time.sleep(60)
"""
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_units_of_the_same_plan_are_kept_and_the_lock_leaves_no_file(tmp_path):
    folder = tmp_path / "work"
    with claim(folder, PLAN, "chunk-*"):
        assert names(tmp_path) == [".work.lock", "work"]
        (folder / "chunk-0").write_text("done")
    with claim(folder, PLAN, "chunk-*") as again:
        assert names(again) == ["chunk-0", "plan.json"]
    assert names(tmp_path) == ["work"]


def test_units_of_another_plan_are_refused_and_the_field_is_named(tmp_path):
    folder = tmp_path / "work"
    with claim(folder, PLAN, "chunk-*"):
        (folder / "chunk-0").write_text("done")
    other = PLAN | {"decode": {"temperature": 0.2, "sizes": (1, 2)}}
    message = r"decode\.temperature was 0\.1, now 0\.2\. Fix: give that"
    with pytest.raises(InputError, match=message), claim(folder, other, "chunk-*"):
        pytest.fail("claimed")
    with claim(folder, PLAN, "chunk-*"):
        assert (folder / "chunk-0").read_text() == "done"


DAMAGED = [
    b"not json",
    b"\xff",
    b"[]",
    b"{}",
    b'{"plan": 1, "process": {"pid": 1, "host": "a"}}',
    b'{"plan": {}}',
]


@pytest.mark.parametrize("record", [None, *DAMAGED])
def test_units_without_a_readable_plan_are_refused(tmp_path, record):
    (tmp_path / "chunk-0").write_text("done")
    if record is not None:
        (tmp_path / "plan.json").write_bytes(record)
    with pytest.raises(InputError, match=r"no readable plan\.json"), claim(tmp_path, PLAN, "chunk-*"):
        pytest.fail("claimed")


def test_another_plan_may_take_over_a_folder_without_finished_units(tmp_path):
    with claim(tmp_path / "work", PLAN, "chunk-*") as folder:
        (folder / ".chunk-0.partial").write_text("half")
    with claim(tmp_path / "work", {"count": 5}, "chunk-*") as folder:
        assert names(folder) == ["plan.json"]
        assert json.loads((folder / "plan.json").read_text())["plan"]["count"] == 5


def test_leftovers_of_killed_processes_are_removed(tmp_path):
    for left in (".work.removed", "work/.checkpoint-3.removed", "work/.checkpoint-4.partial"):
        (tmp_path / left).mkdir(parents=True)
        (tmp_path / left / "file").write_text("half")
    with claim(tmp_path / "work", PLAN, "checkpoint-*"):
        assert names(tmp_path) == [".work.lock", "work"]
        assert names(tmp_path / "work") == ["plan.json"]


def test_a_second_claim_names_the_process_that_holds_the_folder(tmp_path):
    with claim(tmp_path / "work", PLAN, "chunk-*"):
        message = rf"another run is using it \(process {os.getpid()} on ."
        with pytest.raises(InputError, match=message), claim(tmp_path / "work", PLAN, "chunk-*"):
            pytest.fail("claimed")
        with claim(tmp_path / "work" / "stage", PLAN, "chunk-*"):
            pass  # a stage of the run has a folder and a lock of its own


def test_a_killed_process_holds_nothing(tmp_path):
    folder = tmp_path / "work"
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=rf"process {process.pid} on"), claim(folder, PLAN, "chunk-*"):
            pytest.fail("claimed")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    with claim(folder, PLAN, "chunk-*"):
        pass
    assert names(tmp_path) == ["work"]


def test_differences_name_added_and_missing_fields_and_shorten_hashes():
    before, now = {"a": {"b": 1}, "hash": "0" * 64}, {"a": {"c": 2}, "hash": "1" * 64}
    assert differences(before, now) == [
        "a.b was 1, now None",
        "a.c was None, now 2",
        "hash was 000000000000..., now 111111111111...",
    ]
    assert differences(full_plan(PLAN), json.loads(json.dumps(full_plan(PLAN)))) == []


@pytest.mark.parametrize("record", DAMAGED)
def test_a_second_claim_is_refused_even_if_no_record_names_the_holder(tmp_path, record):
    with claim(tmp_path / "work", PLAN, "chunk-*") as folder:
        (folder / "plan.json").write_bytes(record)
        with (
            pytest.raises(InputError, match=r"another run is using it\. Fix"),
            claim(folder, PLAN, "chunk-*"),
        ):
            pytest.fail("claimed")


def test_a_lock_file_that_somebody_removed_does_not_fail_the_run(tmp_path):
    with claim(tmp_path / "work", PLAN, "chunk-*"):
        (tmp_path / ".work.lock").unlink()
    assert names(tmp_path) == ["work"]


def test_a_folder_without_a_name_is_refused():
    with pytest.raises(InputError, match="has no name of its own"), claim(".", PLAN, "chunk-*"):
        pytest.fail("claimed")


def test_runs_that_join_share_a_folder_of_one_plan(tmp_path):
    folder = tmp_path / "work"
    join(folder, PLAN, "chunk-*")
    (folder / "chunk-0").write_text("done")
    (folder / ".chunk-1.partial").write_text("another run is writing it")
    join(folder, PLAN, "chunk-*")
    assert names(folder) == [".chunk-1.partial", "chunk-0", "plan.json"]
    assert names(tmp_path) == ["work"]
    with pytest.raises(InputError, match=r"count was 4, now 5"):
        join(folder, PLAN | {"count": 5}, "chunk-*")


def test_a_lock_is_one_run_s_and_may_be_waited_for(tmp_path):
    path = tmp_path / "unit"
    with locked(path), pytest.raises(InUseError, match="another run is using it"), locked(path):
        pytest.fail("locked twice")
    script = f"{BARE_T3D}import time; from pathlib import Path; from t3d.work.claim import locked\n"
    script += "with locked(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(0.2)"
    with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        with locked(path, wait=True):
            assert other.wait() == 0
    assert names(tmp_path) == []
