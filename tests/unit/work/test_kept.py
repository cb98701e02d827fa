"""One run at a time, one plan at a time; what is kept is what was finished."""

import json
import os
import signal
import subprocess
import sys
import zlib
from contextlib import suppress
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t3d.errors import InputError
from t3d.work.kept import KeptLines, Product, claim, once
from t3d.work.shards import join

PLAN = {"decode": {"temperature": 0.1, "sizes": (1, 2)}, "count": 4}

HOLD = """
import sys, time
from t3d.work.kept import claim
with claim(sys.argv[1], {"count": 4}, "chunk-*"):
    print("held", flush=True)
    time.sleep(60)
"""


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


@pytest.mark.parametrize("names_there", [["notes.txt"], ["notes.txt", ".theirs.partial"], ["plan.json"]])
def test_a_folder_of_other_files_is_refused_as_it_is(tmp_path, names_there):
    for name in names_there:
        (tmp_path / name).write_text("mine")
    for hold in (lambda: claim(tmp_path, PLAN, "chunk-*").__enter__(), lambda: join(tmp_path, PLAN, "c-*")):
        with pytest.raises(InputError, match=r"holds files, and no readable plan\.json tells of which run"):
            hold()
    assert names(tmp_path) == sorted(names_there)


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


def test_lines_are_there_again_with_what_was_said_last(tmp_path):
    path = tmp_path / "lines.jsonl"
    lines = KeptLines(path, fresh="text")
    for row in ({"id": "a", "text": "x\ud800"}, {"id": "b", "text": "y"}, {"id": "a", "correct": True}):
        lines.append(row)
    assert KeptLines(path, fresh="text").rows == lines.rows
    assert lines.rows["a"] == {"id": "a", "text": "x\ud800", "correct": True}
    lines.append({"id": "a", "text": "again"})
    assert KeptLines(path, fresh="text").rows["a"] == {"id": "a", "text": "again"}, "it starts anew"


def test_lines_in_memory_write_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = KeptLines(fresh="text")
    lines.append({"id": "a", "text": "x"})
    assert lines.rows == {"a": {"id": "a", "text": "x"}} and not list(tmp_path.iterdir())


@pytest.mark.parametrize("length", [1, 20, 33])
def test_a_line_without_its_end_is_dropped(tmp_path, length):
    path = tmp_path / "lines.jsonl"
    lines = KeptLines(path, fresh="text")
    lines.append({"id": "a", "text": "x"})
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:length])
    assert KeptLines(path, fresh="text").rows == lines.rows
    assert path.read_bytes() == whole


def line(text):
    return text + b"\t%08x\n" % zlib.crc32(text)


DAMAGED_LINES = [
    b"{\n",
    line(b"{"),
    line(b"5"),
    line(b"null"),
    line(b'{"a": 1}'),
    line(b'{"id": "never begun", "correct": true}'),
    line(b'{"id": "a", "text": "x"}').replace(b"x", b"y"),
    b'{"id": "a", "text": "x"}\n',
    b'{"id": "a", "text": "x"}\tzz\n',
]


@pytest.mark.parametrize("content", DAMAGED_LINES)
def test_a_damaged_line_is_named(tmp_path, content):
    path = tmp_path / "lines.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"lines\.jsonl': line 1 is damaged .* delete the file"):
        KeptLines(path, fresh="text")


@given(st.integers(0, 10**6), st.integers(0, 7))
def test_no_flipped_bit_is_believed(tmp_path_factory, where, bit):
    """It is named as damage, or, where it makes a line end or none, at most the last line is dropped."""
    path = tmp_path_factory.mktemp("flip") / "lines.jsonl"
    lines = KeptLines(path, fresh="text")
    for name in "abc":
        lines.append({"id": name, "text": f"answer {name}"})
    content = bytearray(path.read_bytes())
    content[where % len(content)] ^= 1 << bit
    path.write_bytes(bytes(content))
    try:
        found = KeptLines(path, fresh="text").rows
    except InputError:
        return
    assert found == {name: lines.rows[name] for name in found} and len(found) >= 2


def product(folder, **plan) -> Product:
    return Product(
        path=folder / "abc",
        record=folder / "abc.made.json",
        plan={"seed": 0, **plan},
        unfinished=(folder / "checkpoints",),
        added_later=("newer",),
    )


def make(item: Product, result=3) -> int:
    def work():
        item.path.mkdir(parents=True, exist_ok=True)
        (item.path / "file").write_text("made")
        return result

    return item.make(work)


def test_a_product_is_made_once_with_its_result_and_seconds(tmp_path):
    item = product(tmp_path, refresh_every=10)
    assert not item.is_made and item.seconds == 0.0
    assert make(item) == 3 and item.is_made
    record = json.loads(item.record.read_text())
    assert record["seconds"] == item.seconds >= 0.0 and record["plan"] == {"seed": 0, "refresh_every": 10}
    assert product(tmp_path, refresh_every=10).make(lambda: pytest.fail("made again")) == 3


def test_only_fields_that_are_named_may_be_missing_in_an_older_record(tmp_path):
    make(product(tmp_path))
    assert product(tmp_path, newer=1).is_made
    assert not product(tmp_path, other=1).is_made
    make(product(tmp_path, newer=1, other=1))
    assert not product(tmp_path, other=1).is_made, "a field that is gone is a difference"


def test_what_another_plan_made_is_removed_with_what_it_would_go_on_from(tmp_path):
    make(product(tmp_path, refresh_every=10))
    (tmp_path / "checkpoints").mkdir()
    now = product(tmp_path, refresh_every=5)
    assert not now.is_made and now.seconds == 0.0

    def work():
        assert not now.path.exists() and not now.unfinished[0].exists()
        now.path.write_text("a file this time")

    now.make(work)
    assert now.is_made and not product(tmp_path, refresh_every=10).is_made
    make(product(tmp_path, refresh_every=10))
    assert (tmp_path / "abc").is_dir(), "a file is removed like a folder"


def test_a_cut_product_keeps_what_it_goes_on_from_until_it_is_made(tmp_path):
    item = product(tmp_path)

    def cut():
        item.unfinished[0].mkdir()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        item.make(cut)
    assert item.unfinished[0].is_dir() and not item.is_made
    make(item)
    assert not item.unfinished[0].exists()


@pytest.mark.parametrize("name", ["abc", "checkpoints"])
def test_what_no_record_tells_of_is_refused_and_kept(tmp_path, name):
    """Somebody else may have put it there."""
    (tmp_path / name).mkdir()
    (tmp_path / name / "thesis.txt").write_text("mine")
    item = product(tmp_path)
    with pytest.raises(InputError, match=rf"{name}': exists, and nothing in it tells how it was made"):
        make(item)
    assert (tmp_path / name / "thesis.txt").read_text() == "mine" and not item.record.exists()


@pytest.mark.parametrize("is_whole", [False, True])
def test_a_product_whose_making_was_killed_is_taken_up(tmp_path, is_whole):
    """Before all is there, or when only the record of it is missing."""
    item = product(tmp_path)

    def killed():
        item.path.mkdir()
        if is_whole:
            (item.path / "file").write_text("made")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        item.make(killed)
    assert not item.is_made and make(item) == 3


def test_a_product_that_is_gone_is_made_again_and_may_be_killed(tmp_path):
    item = product(tmp_path)
    make(item)
    (item.path / "file").unlink()
    item.path.rmdir()

    def killed():
        item.path.mkdir()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        item.make(killed)
    assert not item.is_made and make(item, 4) == 4


@given(st.integers(0, 10**6), st.integers(0, 7))
def test_no_flipped_bit_of_a_record_costs_the_product(tmp_path_factory, where, bit):
    """It is named, or changes nothing."""
    item = product(tmp_path_factory.mktemp("flip"), refresh_every=10)
    make(item)
    content = bytearray(item.record.read_bytes())
    content[where % len(content)] ^= 1 << bit
    item.record.write_bytes(bytes(content))
    with suppress(InputError):
        assert make(item, 4) == 3
    assert (item.path / "file").read_text() == "made"


def test_a_product_that_changed_is_named_with_its_record(tmp_path):
    item = product(tmp_path)
    make(item)
    (item.path / "file").write_text("MADE")
    with pytest.raises(InputError, match=r"abc/file': not the file that was made.*delete .*abc and .*made"):
        make(item)
    (item.path / "file").unlink()
    with pytest.raises(InputError, match=r"abc/file': not the file that was made"):
        make(item)


def test_records_of_earlier_versions_are_taken(tmp_path):
    item = product(tmp_path)
    make(item)
    item.record.write_text(json.dumps({"plan": {"seed": 0}, "seconds": 1.5, "result": 7}))
    assert make(item) == 7 and item.seconds == 1.5


def test_a_link_to_what_is_removed_at_the_end_is_refused_before_the_work(tmp_path):
    item = product(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    item.unfinished[0].symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="checkpoints': is a symbolic link"):
        item.make(lambda: pytest.fail("worked"))
    with pytest.raises(InputError, match="checkpoints': is a symbolic link"):
        once(item.unfinished[0], PLAN, "*", take=lambda: None, work=lambda _: pytest.fail("worked"))


def write_output(output, folder):
    (folder / "chunk-0").write_text("done")
    output.write_text("made")
    return "made"


def read_output(output):
    return output.read_text() if output.exists() else None


def test_work_is_done_once_and_its_units_go_with_it(tmp_path):
    output, folder = tmp_path / "out", tmp_path / "units"
    how = {"take": partial(read_output, output), "work": partial(write_output, output)}
    assert once(folder, PLAN, "chunk-*", **how) == "made" and names(tmp_path) == ["out"]
    how["work"] = lambda _: pytest.fail("worked again")
    with claim(folder, PLAN, "chunk-*"):  # as if killed between the output and the removal
        (folder / "chunk-0").write_text("done")
    assert once(folder, PLAN, "chunk-*", **how) == "made" and names(tmp_path) == ["out"]
    (tmp_path / ".units.removed").mkdir()  # or within the removal
    assert once(folder, PLAN, "chunk-*", **how) == "made" and names(tmp_path) == ["out"]
    with claim(folder, {"count": 5}, "chunk-*"):
        (folder / "chunk-0").write_text("of another run")
    assert once(folder, PLAN, "chunk-*", **how) == "made" and (folder / "chunk-0").is_file()


def test_what_another_run_finishes_before_the_folder_is_held_is_taken(tmp_path):
    output, folder = tmp_path / "out", tmp_path / "units"
    asked = []

    def take():
        asked.append(read_output(output))
        output.write_text("the other's")  # between the first look and the claim
        return asked[-1]

    made = once(folder, PLAN, "chunk-*", take=take, work=lambda _: pytest.fail("worked again"))
    assert made == "the other's" and asked == [None, made] and names(tmp_path) == ["out"]


def test_finished_work_is_taken_while_another_run_removes_its_units(tmp_path):
    (tmp_path / "out").write_text("made")
    with claim(tmp_path / "units", PLAN, "chunk-*"):
        take = partial(read_output, tmp_path / "out")
        assert once(tmp_path / "units", PLAN, "chunk-*", take=take, work=lambda _: "again") == "made"


def test_lines_of_another_file_are_refused_and_those_of_earlier_versions_are_read(tmp_path):
    first, second = tmp_path / "chain.B4-T1.jsonl", tmp_path / "chain.B4-T2.jsonl"
    KeptLines(first, fresh="text").append({"id": "a", "text": "x"})
    first.rename(second)
    with pytest.raises(
        InputError, match=r"T2\.jsonl': line 1 is damaged .*the file's name.* delete the file"
    ):
        KeptLines(second, fresh="text")
    second.write_bytes(line(b'{"id": "a", "text": "x"}'))
    assert KeptLines(second, fresh="text").rows == {"a": {"id": "a", "text": "x"}}


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]"])
def test_a_damaged_record_is_named_and_nothing_is_lost(tmp_path, content):
    item = product(tmp_path)
    make(item)
    item.record.write_bytes(content)
    with pytest.raises(InputError, match=r"abc\.made\.json': damaged.* Fix: delete it"):
        make(item)
    assert (item.path / "file").is_file()
