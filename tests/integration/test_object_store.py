"""``t3d rollout --output s3://...``: finished chunks lie on the store, the records are one process's."""

import json
import os
import signal
import subprocess
import sys
import threading

import pytest
from command_helpers import rolled_out_bytes, rollout_of_chunks, run_failing
from failing_helpers import poisoned
from model_fixtures import load_copy
from ray_helpers import started
from store_helpers import chunks_there, empty_memory, s3_test, served_bucket

from t3d.cli.main import main
from t3d.cli.rollout import Rollout

NUM_PROMPTS = 12


@pytest.fixture(scope="module")
def command(checkpoint, tmp_path_factory):
    """A rollout of twelve chunks, without its output."""
    return rollout_of_chunks(checkpoint, tmp_path_factory.mktemp("prompts"), NUM_PROMPTS, 24)


@pytest.fixture(scope="module")
def whole(command, tmp_path_factory):
    """The bytes of one process's file."""
    return rolled_out_bytes(command, tmp_path_factory.mktemp("whole"))


# --- a store of this process, in its memory ------------------------------------------------------


@pytest.fixture
def loaded(checkpoint):
    return load_copy(checkpoint)


@pytest.fixture
def memory():
    """The store, empty."""
    return empty_memory()


def test_the_output_on_a_store_is_that_on_a_disk(command, whole, memory, capsys, caplog):
    line = [*command, "--output", "memory://runs/out.parquet"]
    assert main(line) == 0
    assert "12 trajectories in memory://runs/out.parquet" in capsys.readouterr().out
    assert memory.find("/") == ["/runs/out.parquet", "/runs/out.parquet.yaml"]
    assert memory.cat("/runs/out.parquet") == whole
    assert b"output: memory://runs/out.parquet\n" in memory.cat("/runs/out.parquet.yaml")
    assert main(line) == 0
    assert "memory://runs/out.parquet was finished before by the same command" in caplog.text


def test_shards_make_one_output_and_another_run_is_refused(command, whole, memory, capsys):
    line = [*command, "--output", "memory://runs/out.parquet"]
    assert main([*line, "--shard", "2/3"]) == 0
    there = [f"/runs/out.parquet.chunks/chunk-{number:05d}.parquet" for number in range(1, NUM_PROMPTS, 3)]
    assert memory.find("/") == [*there, "/runs/out.parquet.chunks/plan.json"]
    told = capsys.readouterr().out
    assert "shard 2/3: 4 of 12 chunks are in memory://runs/out.parquet.chunks; the last shard makes" in told
    other = [*line, "--seed", "7"]
    text = (
        "output='memory://runs/out.parquet.chunks': holds the work of another run: decode.seed was 0, now 7"
    )
    assert text in run_failing(other, capsys)
    made = memory.info(there[0])["created"]
    assert main([*line, "--shard", "1/3"]) == 0
    assert main([*line, "--shard", "2/3"]) == 0
    assert memory.info(there[0])["created"] == made, "what is there is not made again"
    assert main(line) == 0
    assert memory.find("/") == ["/runs/out.parquet", "/runs/out.parquet.yaml"]
    assert memory.cat("/runs/out.parquet") == whole
    text = "output='memory://runs/out.parquet': is the finished work of another run: decode.seed was 0, now 7"
    assert text in run_failing(other, capsys)


def test_torn_and_foreign_objects_are_refused(command, memory, capsys):
    line = [*command, "--output", "memory://runs/out.parquet"]
    memory.pipe("/runs/out.parquet.yaml", b"mine: 1\n")
    assert "output='memory://runs/out.parquet.yaml': exists, and is of something else" in run_failing(
        line, capsys
    )
    memory.rm("/runs/out.parquet.yaml")
    assert main([*line, "--shard", "1/12"]) == 0
    chunk = "/runs/out.parquet.chunks/chunk-00000.parquet"
    memory.pipe(chunk, memory.cat(chunk)[:-9])
    assert "memory://runs/out.parquet.chunks/chunk-00000.parquet': damaged" in run_failing(line, capsys)


def test_prompts_that_fail_are_listed_on_the_store_and_tried_again(
    checkpoint, loaded, memory, tmp_path, capsys, monkeypatch
):
    """The bound is that of the run, not of a chunk."""
    questions = ["how many apples", "how many pears", "how many", "apples", "so many pears"]
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("\n".join(json.dumps({"id": str(n), "question": q}) for n, q in enumerate(questions)))
    poison = poisoned(loaded, questions, "pears")
    monkeypatch.setattr(Rollout, "load", lambda self: loaded)
    line = ["rollout", "--model", str(checkpoint), "--prompts", str(prompts), "--device", "cpu"]
    line += ["--max-new-tokens", "4", "--chunk-size", "1"]
    here, there = tmp_path / "here.parquet", "memory://runs/out.parquet"
    on_store = [*line, "--output", there]
    text = run_failing([*on_store, "--max-errors", "1"], capsys)
    assert "max_errors=1: 2 prompts failed ('1'" in text and f"{there}.errors.jsonl lists all" in text
    assert len(memory.cat("/runs/out.parquet.errors.jsonl").splitlines()) == 2
    assert main([*line, "--output", str(here), "--max-errors", "2"]) == 0
    assert main([*on_store, "--max-errors", "2"]) == 0
    assert f"2 prompts failed, listed in {there}.errors.jsonl" in capsys.readouterr().out
    listed = here.with_name("here.parquet.errors.jsonl")
    ids, ids_here = (
        [json.loads(row)["id"] for row in rows.splitlines()]
        for rows in (memory.cat("/runs/out.parquet.errors.jsonl"), listed.read_bytes())
    )
    assert ids == ids_here == ["1", "4"] and memory.cat("/runs/out.parquet") == here.read_bytes()
    poison["is_on"] = False
    assert main([*line, "--output", str(here), "--max-errors", "2"]) == 0
    assert main([*on_store, "--max-errors", "2"]) == 0
    assert memory.cat("/runs/out.parquet") == here.read_bytes()
    assert memory.find("/") == ["/runs/out.parquet", "/runs/out.parquet.yaml"]


def test_who_finds_that_another_run_has_just_made_the_output_takes_it(command, whole, memory, monkeypatch):
    line = [*command, "--output", "memory://runs/out.parquet"]
    assert main([*line, "--shard", "1/2"]) == 0
    get, moved = type(memory).get_file, []

    def get_late(self, path, local, **how):
        """The other shard ends between the list of all chunks and the first that is got."""
        if not moved and path.endswith("chunk-00000.parquet"):
            moved.append(path)
            assert main([*line, "--shard", "2/2"]) == 0
        return get(self, path, local, **how)

    monkeypatch.setattr(type(memory), "get_file", get_late)
    assert main([*line, "--shard", "2/2"]) == 0
    assert moved and memory.find("/") == ["/runs/out.parquet", "/runs/out.parquet.yaml"]
    assert memory.cat("/runs/out.parquet") == whole


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ("file:///x/out.parquet", "not an object store. Fix: give the path itself: /x/out.parquet"),
        ("nothing://x/out.parquet", "no such store"),
        ("memory://runs/", "names no object. Fix: name one, such as memory://runs/NAME"),
        ("memory://runs/out.jsonl", "the records are written as Parquet"),
    ],
)
def test_what_is_no_object_is_refused_by_name(command, memory, capsys, output, text):
    assert text in run_failing([*command, "--output", output], capsys)


def test_other_commands_say_that_they_do_not_write_there(checkpoint, capsys):
    line = ["train", "--model", str(checkpoint), "--trajectories", "x.parquet", "--output", "s3://b/o"]
    assert "only t3d rollout and t3d eval write to an object store" in run_failing(line, capsys)


# --- S3's protocol, as moto speaks it ------------------------------------------------------------


@pytest.fixture(scope="module")
def bucket():
    with served_bucket() as store:
        yield store


@s3_test
def test_a_rollout_onto_s3_goes_on_after_it_was_killed(bucket, command, whole):
    line = [*command, "--output", "s3://runs/killed.parquet"]
    process = subprocess.Popen([sys.executable, "-m", "t3d", *line], start_new_session=True)
    try:
        there = chunks_there(bucket, "killed.parquet.chunks", 3)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert len(there) < NUM_PROMPTS and not bucket.exists("runs/killed.parquet")
    made = {name: bucket.info(name)["LastModified"] for name in there}
    assert main([*line, "--shard", "1/2"]) == 0
    assert made.items() <= {name: bucket.info(name)["LastModified"] for name in made}.items(), "made once"
    assert main(line) == 0
    assert bucket.find("runs/") == ["runs/killed.parquet", "runs/killed.parquet.yaml"]
    assert bucket.cat("runs/killed.parquet") == whole
    bucket.rm(bucket.find("runs/"))


@s3_test
def test_workers_on_ray_make_one_object_on_s3_though_one_is_killed(bucket, command, whole, capsys):
    output = "ray.parquet"
    line = [*command, "--output", f"s3://runs/{output}", "--ray", "--num-workers", "2"]
    killed = []

    def kill():
        there = chunks_there(bucket, f"{output}.chunks", 2)
        pid = json.loads(bucket.cat(f"runs/{output}.chunks/plan.json"))["process"]["pid"]
        os.kill(pid, signal.SIGKILL)
        killed.append((pid, len(there)))

    with started():
        thread = threading.Thread(target=kill)
        thread.start()
        assert main(line) == 0
        thread.join()
        ((pid, num_made),) = killed
        assert pid != os.getpid() and num_made < NUM_PROMPTS
        assert bucket.find("runs/") == [f"runs/{output}", f"runs/{output}.yaml"]
        assert bucket.cat(f"runs/{output}") == whole
        assert main(line) == 0
    told = capsys.readouterr().out
    assert "2 workers on Ray: 0 prompts in" in told and f"12 trajectories in s3://runs/{output}" in told
    bucket.rm(bucket.find("runs/"))


@s3_test
def test_a_bucket_that_is_not_there_is_an_error_in_one_line(bucket, command, capsys):
    text = run_failing([*command, "--output", "s3://nobodys/out.parquet"], capsys)
    assert "output='s3://nobodys/out.parquet': " in text and "of the store" in text
