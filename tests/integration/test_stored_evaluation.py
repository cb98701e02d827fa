"""``t3d eval --output s3://...``: answered chunks lie on the store, the results are one process's."""

import json
import os
import signal
import subprocess
import sys
import threading

import pytest
from command_helpers import evaluated, run_failing, write_prompts
from failing_helpers import poisoned
from model_fixtures import load_copy
from ray_helpers import started
from store_helpers import chunks_there, empty_memory, s3_test, served_bucket

from t3d.cli.evaluate import Eval
from t3d.cli.main import main

FILES = ["config.yaml", "report.html", "results.json", "samples.jsonl"]
OUTPUT = "memory://runs/out"


@pytest.fixture(scope="module")
def command(checkpoint, tmp_path_factory):
    """Six questions under two settings, in six chunks, without the output."""
    prompts = write_prompts(tmp_path_factory.mktemp("prompts"))
    return [*asking(checkpoint, prompts), "--max-new-tokens", "24", "--chunk-size", "2"]


def asking(checkpoint, prompts):
    line = ["eval", "--model", str(checkpoint), "--prompts", str(prompts), "--device", "cpu"]
    return [*line, "--grader", "exact", "--temperature", "1", "--tokens-per-step", "1,2"]


@pytest.fixture(scope="module")
def whole(command, tmp_path_factory):
    """What one process makes of it in a folder."""
    output = tmp_path_factory.mktemp("whole") / "out"
    assert main([*command, "--output", str(output)]) == 0
    return evaluated(output)


@pytest.fixture
def memory():
    return empty_memory()


def got(store, folder, here):
    """What is evaluated in a folder of the store."""
    for name in ("results.json", "samples.jsonl"):
        here.mkdir(exist_ok=True)
        store.get_file(f"{folder}/{name}", str(here / name))
    return evaluated(here)


def names(store, folder="/runs/out"):
    return [name.removeprefix(f"{folder}/") for name in store.find(folder)]


def test_the_output_on_a_store_is_that_in_a_folder(command, whole, memory, tmp_path, capsys, caplog):
    line = [*command, "--output", OUTPUT]
    assert main(line) == 0
    assert names(memory) == FILES and got(memory, "/runs/out", tmp_path) == whole
    assert f"output: {OUTPUT}\n".encode() in memory.cat("/runs/out/config.yaml")
    assert json.loads(memory.cat("/runs/out/results.json"))["config"]["output"] == OUTPUT
    assert b"t3d report" in memory.cat("/runs/out/report.html")
    table = capsys.readouterr().out
    assert main(line) == 0
    assert f"{OUTPUT}/results.json was finished before by the same command" in caplog.text
    assert capsys.readouterr().out == table


def test_shards_make_one_output_and_another_run_is_refused(command, whole, memory, tmp_path, capsys):
    line = [*command, "--output", OUTPUT]
    assert main([*line, "--shard", "2/3"]) == 0
    assert f"shard 2/3: its answers are in {OUTPUT}; the last shard writes" in capsys.readouterr().out
    there = [name for name in names(memory) if "chunk-" in name]
    assert [name.partition(".chunk-")[2] for name in there] == ["00001.jsonl", "00001.jsonl"]
    assert len(names(memory)) == 3, "and the plan"
    other = [*line, "--seed", "7"]
    text = f"output='{OUTPUT}/unfinished': holds the work of another run: settings.B4-T1.seed was 0, now 7"
    assert text in run_failing(other, capsys)
    made = [memory.info(f"/runs/out/{name}")["created"] for name in there]
    assert main([*line, "--shard", "1/3"]) == 0
    assert main([*line, "--shard", "2/3"]) == 0
    assert [memory.info(f"/runs/out/{name}")["created"] for name in there] == made, "made once"
    assert main(line) == 0
    assert names(memory) == FILES and got(memory, "/runs/out", tmp_path) == whole
    text = f"output='{OUTPUT}/results.json': is the finished work of another run: settings.B4-T1.seed was 0"
    assert text in run_failing(other, capsys)


def test_to_what_is_finished_there_nothing_is_added(command, memory, capsys):
    """It would take two files in the place of two others, and a kill may come between."""
    line = [*command, "--output", OUTPUT]
    assert main(line) == 0
    text = f"output='{OUTPUT}/results.json': is the finished work of another run: settings.B4-T4."
    assert text in run_failing([*line, "--tokens-per-step", "1,2,4"], capsys)


def test_torn_and_foreign_objects_are_refused_by_name(command, memory, capsys):
    line = [*command, "--output", OUTPUT]
    memory.pipe("/runs/out/mine.txt", b"mine")
    text = f"output='{OUTPUT}': holds 'mine.txt', and nothing that this command made"
    assert text in run_failing(line, capsys)
    memory.rm("/runs/out/mine.txt")
    memory.pipe("/runs/out/results.json", b"{}")
    text = f"output='{OUTPUT}/results.json': exists, and nothing tells that this command wrote it"
    assert text in run_failing(line, capsys)
    memory.rm("/runs/out/results.json")
    assert main([*line, "--shard", "1/6"]) == 0
    (chunk,) = [name for name in names(memory) if "chunk-" in name]
    whole = memory.cat(f"/runs/out/{chunk}")
    memory.pipe(f"/runs/out/{chunk}", whole.replace(b"p", b"q", 1).replace(b"id", b"di", 1))
    text = run_failing(line, capsys)
    assert f"{OUTPUT}/{chunk}': line 1 is damaged" in text
    memory.pipe(f"/runs/out/{chunk}", whole)
    assert main(line) == 0
    memory.pipe("/runs/out/samples.jsonl", memory.cat("/runs/out/samples.jsonl")[:-9])
    text = f"output='{OUTPUT}/samples.jsonl': not the file that results.json sums up"
    assert text in run_failing(line, capsys)


def test_answers_that_fail_are_listed_on_the_store_and_tried_again(
    checkpoint, memory, tmp_path, capsys, monkeypatch
):
    """Each lies in a chunk of its own, in which nothing else is."""
    questions = ["how many apples", "how many pears", "how many"]
    prompts = tmp_path / "prompts.jsonl"
    rows = [{"id": str(n), "question": text, "answer": "1"} for n, text in enumerate(questions)]
    prompts.write_text("\n".join(map(json.dumps, rows)))
    loaded = load_copy(checkpoint)
    poison = poisoned(loaded, questions, "pears")
    monkeypatch.setattr(Eval, "load", lambda self: loaded)
    line = [*asking(checkpoint, prompts), "--max-new-tokens", "4", "--chunk-size", "1"]
    here, on_store = tmp_path / "here", [*line, "--output", OUTPUT]
    text = run_failing([*on_store, "--max-errors", "1"], capsys)
    assert "max_errors=1: 2 responses failed (" in text and f"{OUTPUT}/errors.jsonl lists all" in text
    assert main([*line, "--output", str(here), "--max-errors", "2"]) == 0
    capsys.readouterr()
    assert main([*on_store, "--max-errors", "2"]) == 0
    assert f"2 responses failed, listed in {OUTPUT}/errors.jsonl" in capsys.readouterr().out
    assert got(memory, "/runs/out", tmp_path / "got") == evaluated(here)
    poison["is_on"] = False
    for output in (OUTPUT, str(here)):
        assert main([*line, "--output", output, "--max-errors", "2"]) == 0
    assert got(memory, "/runs/out", tmp_path / "got") == evaluated(here) and names(memory) == FILES


def test_results_are_gone_while_the_samples_that_they_sum_up_are_replaced(
    checkpoint, memory, tmp_path, monkeypatch
):
    """A kill there leaves chunks and no results, not results of other samples."""
    questions = ["how many apples", "how many pears"]
    prompts = tmp_path / "prompts.jsonl"
    rows = [{"id": str(n), "question": text, "answer": "1"} for n, text in enumerate(questions)]
    prompts.write_text("\n".join(map(json.dumps, rows)))
    loaded = load_copy(checkpoint)
    poison = poisoned(loaded, questions, "pears")
    monkeypatch.setattr(Eval, "load", lambda self: loaded)
    line = [*asking(checkpoint, prompts), "--max-new-tokens", "4", "--output", OUTPUT, "--max-errors", "2"]
    assert main(line) == 0
    poison["is_on"], put = False, type(memory).put_file

    def put_and_die(self, local, path, **how):
        put(self, local, path, **how)
        if path.endswith("samples.jsonl"):
            raise SystemExit("killed")

    with monkeypatch.context() as patch:
        patch.setattr(type(memory), "put_file", put_and_die)
        with pytest.raises(SystemExit, match="killed"):
            main(line)
    assert "results.json" not in names(memory)
    assert main(line) == 0
    report = json.loads(memory.cat("/runs/out/results.json"))
    assert [entry["num_errors"] for entry in report["results"]] == [0, 0] and names(memory) == FILES


# --- S3's protocol, as moto speaks it ------------------------------------------------------------


@pytest.fixture(scope="module")
def bucket():
    with served_bucket() as store:
        yield store


@s3_test
def test_an_evaluation_onto_s3_goes_on_after_it_was_killed(bucket, command, whole, tmp_path):
    line = [*command, "--output", "s3://runs/killed"]
    process = subprocess.Popen([sys.executable, "-m", "t3d", *line], start_new_session=True)
    try:
        there = chunks_there(bucket, "killed/unfinished", 2)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert len(there) < 6 and not bucket.exists("runs/killed/results.json")
    made = {name: bucket.info(name)["LastModified"] for name in there}
    assert main([*line, "--shard", "1/2"]) == 0
    assert made.items() <= {name: bucket.info(name)["LastModified"] for name in made}.items(), "made once"
    assert main(line) == 0
    assert names(bucket, "runs/killed") == FILES and got(bucket, "runs/killed", tmp_path) == whole
    bucket.rm(bucket.find("runs/"))


@s3_test
def test_workers_on_ray_evaluate_onto_s3_though_one_is_killed(bucket, command, whole, tmp_path, capsys):
    line = [*command, "--output", "s3://runs/ray", "--chunk-size", "1", "--ray", "--num-workers", "2"]
    alone, killed = [*command, "--output", str(tmp_path / "alone"), "--chunk-size", "1"], []
    assert main(alone) == 0

    def kill():
        there = chunks_there(bucket, "ray/unfinished", 2)
        pid = json.loads(bucket.cat("runs/ray/unfinished/plan.json"))["process"]["pid"]
        os.kill(pid, signal.SIGKILL)
        killed.append((pid, len(there)))

    with started():
        thread = threading.Thread(target=kill)
        thread.start()
        assert main(line) == 0
        thread.join()
        ((pid, num_made),) = killed
        assert pid != os.getpid() and num_made < 12
        assert names(bucket, "runs/ray") == FILES
        assert got(bucket, "runs/ray", tmp_path / "got") == evaluated(tmp_path / "alone")
        assert whole[0] == bucket.cat("runs/ray/samples.jsonl"), "the size of chunks is no matter"
        capsys.readouterr()
        assert main(line) == 0
    assert "2 workers on Ray: 0 responses in" in capsys.readouterr().out
    bucket.rm(bucket.find("runs/"))
