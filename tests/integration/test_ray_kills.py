"""What a kill leaves on Ray, and whoever makes the chunks: the same records, none lost and none twice."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from command_helpers import evaluated, rolled_out_bytes, rollout_of_chunks, run_failing, write_prompts
from ray_helpers import Numbers, OtherModel, Records, started

from t3d.cli.decode_flags import DecodeFlags
from t3d.cli.main import main
from t3d.cli.rollout import Rollout, prepared_rollout
from t3d.errors import InputError
from t3d.models.loading import load_model
from t3d.scale.chunked import Workers
from t3d.scale.ray_workers import NUM_RETRIES, make_on_ray
from t3d.trajectory import read_trajectories
from t3d.work.files import beside

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),  # of it a busy machine takes minutes to start a cluster and two workers
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
NUM_PROMPTS = 20
ONE = Workers(num_workers=1, address="auto", cpus_per_worker=1, gpus_per_worker=None)
TWO = replace(ONE, num_workers=2)


@pytest.fixture(scope="module")
def address():
    with started() as address:
        yield address


@pytest.fixture(scope="module")
def command(checkpoint, tmp_path_factory):
    """A rollout of twenty chunks, without its output."""
    return rollout_of_chunks(checkpoint, tmp_path_factory.mktemp("prompts"), NUM_PROMPTS, 40)


@pytest.fixture(scope="module")
def whole(command, tmp_path_factory):
    """The bytes of one process's file."""
    return rolled_out_bytes(command, tmp_path_factory.mktemp("whole"))


def wait_for_chunks(output, count):
    chunks = output.with_name(f"{output.name}.chunks")
    until = time.monotonic() + 200
    while len(list(chunks.glob("chunk-*"))) < count:
        assert time.monotonic() < until
        time.sleep(0.002)
    return chunks


def test_a_worker_killed_in_the_middle_loses_nothing(address, command, whole, tmp_path):
    output, killed = tmp_path / "out.parquet", []

    def kill():
        """The worker that took up a chunk last."""
        chunks = wait_for_chunks(output, 3)
        pid = json.loads((chunks / "plan.json").read_text())["process"]["pid"]
        os.kill(pid, signal.SIGKILL)
        killed.append((pid, len(list(chunks.glob("chunk-*")))))

    thread = threading.Thread(target=kill)
    thread.start()
    assert main([*command, "--output", str(output), "--ray", "--num-workers", "2"]) == 0
    thread.join()
    ((pid, num_made),) = killed
    assert pid != os.getpid() and num_made < NUM_PROMPTS
    assert output.read_bytes() == whole


def test_a_run_goes_on_after_its_driver_was_killed(address, command, whole, tmp_path):
    output = tmp_path / "out.parquet"
    on_ray = [*command, "--output", str(output), "--ray", "--num-workers", "2"]
    driver = subprocess.Popen([sys.executable, "-m", "t3d", *on_ray, "--address", address])
    try:
        chunks = wait_for_chunks(output, 3)
    finally:
        driver.kill()
        driver.wait()
    assert len(list(chunks.glob("chunk-*"))) < NUM_PROMPTS and not output.exists()
    assert main(on_ray) == 0
    assert output.read_bytes() == whole and not chunks.exists()


def test_shards_of_before_and_workers_of_now_make_one_file(address, command, whole, tmp_path):
    line = [*command, "--output", str(tmp_path / "out.parquet")]
    assert main([*line, "--shard", "2/3"]) == 0
    assert main([*line, "--ray", "--num-workers", "2"]) == 0
    parts = [tmp_path / name for name in "ab"]
    for number, part in enumerate(parts, start=1):
        assert main([*command, "--output", str(part), "--shard", f"{number}/2"]) == 0
    assert main(["data", "merge", str(tmp_path / "merged"), *map(str, parts)]) == 0
    assert (tmp_path / "out.parquet").read_bytes() == whole == (tmp_path / "merged").read_bytes()


def test_an_evaluation_by_two_workers_is_that_of_one_process(address, checkpoint, tmp_path, capsys):
    line = ["eval", "--model", str(checkpoint), "--prompts", str(write_prompts(tmp_path)), "--device", "cpu"]
    line += ["--max-new-tokens", "4", "--chunk-size", "2", "--grader", "exact", "--tokens-per-step", "1,2"]
    outputs = [tmp_path / name for name in ("one", "several")]
    assert main([*line, "--output", str(outputs[0])]) == 0
    assert main([*line, "--output", str(outputs[1]), "--ray", "--num-workers", "2"]) == 0
    assert "2 workers on Ray: 12 responses in" in capsys.readouterr().out
    assert evaluated(outputs[0]) == evaluated(outputs[1])
    assert sorted(path.name for path in outputs[1].iterdir()) == [
        "config.yaml",
        "report.html",
        "results.json",
        "samples.jsonl",
    ]


@pytest.mark.parametrize(
    ("odd", "text"),
    [
        ("packages", r"differ between .*: versions\.t3d was 1, now 2"),
        ("files", r"model='m': no such folder\. Fix: copy it"),
    ],
)
def test_a_worker_with_other_packages_or_without_files_is_left_out_and_the_rest_is_made(
    address, tmp_path, caplog, odd, text
):
    job = Numbers(tmp_path, {1: "waits for two"}, odd=odd)
    made = make_on_ray(job, TWO, "numbers")
    assert made.result == [1, 2, 3, 4] and (made.num_new, made.num_left_out) == (40, 1)
    assert re.search(f"a worker is left out: {text}", caplog.text)


def test_a_worker_with_other_weights_is_left_out_though_it_is_ready_first(
    address, checkpoint, tmp_path, caplog, monkeypatch
):
    """The driver says which are meant. Without any worker that has them nothing is made."""
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    for folder in (right, wrong):
        shutil.copytree(checkpoint, folder / "model")
    model = load_model(checkpoint, device="cpu").model
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1
    model.save_pretrained(wrong / "model")
    monkeypatch.chdir(right)
    flags = {"model": "model", "prompts": str(write_prompts(tmp_path)), "device": "cpu", "chunk_size": 1}
    flags["decode"] = DecodeFlags(max_new_tokens=4, temperature=1.0)
    one, rollout = (Rollout(output=str(tmp_path / f"{name}.parquet"), **flags) for name in ("one", "out"))
    prepared_rollout(one).run(None)

    def told():
        return {"model": rollout.told_identity()}

    text = r"differ between .*: model\.weights was [0-9a-f.]+, now [0-9a-f.]+"
    with pytest.raises(InputError, match=rf"^num_workers=1: no worker is left: {text}\. Fix: give all"):
        make_on_ray(OtherModel(rollout, wrong), ONE, "rollout", told)
    assert not (tmp_path / "out.parquet.chunks").exists()
    for path in tmp_path.glob("out.*"):
        path.unlink()
    caplog.clear()
    made = make_on_ray(OtherModel(rollout, wrong), TWO, "rollout", told)
    assert (made.num_new, made.num_left_out) == (6, 1)
    assert re.search(rf"a worker is left out: {text}", caplog.text)
    assert (tmp_path / "out.parquet").read_bytes() == (tmp_path / "one.parquet").read_bytes()


def test_a_worker_that_is_started_again_on_other_packages_makes_nothing(address, tmp_path):
    """It was as the others are before it died."""
    job = Numbers(tmp_path, {2: "dies once"}, odd="packages")
    text = (
        r"num_workers=1: no worker is left: changed on .* meanwhile: versions\.t3d was 1, now 2\. Fix: give"
    )
    with pytest.raises(InputError, match=text):
        make_on_ray(job, ONE, "numbers")
    assert [path.name for path in (tmp_path / "chunks").glob("chunk-*")] == ["chunk-1"]


def test_what_the_workers_refuse_is_an_error_in_one_line(address, checkpoint, tmp_path, capsys):
    command = ["rollout", "--model", str(checkpoint), "--prompts", str(write_prompts(tmp_path)), "--device"]
    command += ["cpu", "--output", str(tmp_path / "o"), "--max-new-tokens", "4000", "--ray"]
    assert "max_new_tokens" in run_failing(command, capsys)


def test_a_run_makes_what_another_left(address, tmp_path):
    job = Numbers(tmp_path, {2: "input", 3: "input"})
    with pytest.raises(InputError, match="2/4, 3/4 failed"):
        make_on_ray(job, ONE, "numbers")
    made = make_on_ray(replace(job, faults={}), ONE, "numbers")
    assert made.result == [1, 2, 3, 4] and made.num_new == 20, "those of before are not counted"


def test_a_chunk_that_kills_every_worker_stops_nothing_else(address, tmp_path):
    with pytest.raises(RuntimeError, match=r"chunks 2/4 failed; the others are kept"):
        make_on_ray(Numbers(tmp_path, {2: "dies"}), ONE, "numbers")
    assert sorted(path.name for path in (tmp_path / "chunks").glob("chunk-*")) == [
        f"chunk-{number}" for number in (1, 3, 4)
    ]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a file of Linux")
def test_a_full_disk_is_named_with_what_to_do_and_the_rest_is_made(address, tmp_path):
    problem = (
        r"cannot be written \(No space left on device\) \(chunks 2/4 failed; the others are kept, .*free"
    )
    with pytest.raises(InputError, match=problem):
        make_on_ray(Numbers(tmp_path, {2: "full disk"}), TWO, "numbers")
    assert len(list((tmp_path / "chunks").glob("chunk-*"))) == 3


def test_a_chunk_that_cannot_be_read_is_named_and_the_rest_is_made(address, command, whole, tmp_path, capsys):
    output = tmp_path / "out.parquet"
    assert main([*command, "--output", str(output), "--shard", "1/10"]) == 0
    first, *_ = chunks = sorted((tmp_path / "out.parquet.chunks").glob("chunk-*"))
    assert len(chunks) == 2
    first.write_bytes(first.read_bytes()[:-9])
    on_ray = [*command, "--output", str(output), "--ray", "--num-workers", "2"]
    text = run_failing(on_ray, capsys)
    assert "chunk-00000.parquet': damaged (" in text and "Fix: delete it" in text
    assert len(list(first.parent.glob("chunk-*"))) == NUM_PROMPTS and not output.exists()
    first.unlink()
    assert main(on_ray) == 0
    assert output.read_bytes() == whole


def test_a_cluster_of_its_own_is_started_and_ended(checkpoint, tmp_path):
    """In a process that has none yet, as users call it; without one at the address that is said."""
    line = [
        sys.executable,
        "-m",
        "t3d",
        "rollout",
        "--model",
        str(checkpoint),
        "--output",
        "out.parquet",
        "--ray",
    ]
    line += ["--prompts", write_prompts(tmp_path).name, "--device", "cpu", "--max-new-tokens", "4"]
    how = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 250}
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(line, check=False, env=environment, **how)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.parquet").is_file() and "1 workers on Ray: 6 prompts in" in done.stdout


NUM_KILLS = 20


def seconds_half_written(job, path, numbers):
    """How long the file is there in part while it is written; 0 where that is too short to be seen."""
    partial, seen = beside(path, "partial"), [0.0]
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(job.write, path, numbers)
        while not writing.done():
            if partial.exists():
                seen.append(time.perf_counter())
            time.sleep(0.0002)
        writing.result()
    return seen[-1] - seen[min(1, len(seen) - 1)]


def killed_while_it_wrote(job, target, seconds):
    """What there was of a file when its writer was killed, some seconds after it began; None: too late."""
    partial, until = beside(target, "partial"), time.monotonic() + 200
    while not partial.exists():
        if target.exists() or (job.folder / "output").exists():
            return None
        assert time.monotonic() < until
        time.sleep(0.0002)
    try:
        writer = psutil.Process(int((job.folder / "writers" / target.name).read_text()))
        time.sleep(seconds)
        writer.suspend()
        while writer.status() != psutil.STATUS_STOPPED:
            time.sleep(0.001)
    except psutil.NoSuchProcess:  # it ended after the last file
        return None
    if not partial.exists():
        writer.resume()
        return None
    torn = partial.read_bytes()
    writer.kill()
    writer.wait(20)
    return torn


def kill_writers(job, how_many, rng, whole, seconds):
    """Kill the writers of so many files, if it is not too late; what there was of the files.

    ``seconds`` says how long each file is half written. After each kill the files that the next process
    would take for finished are whole.
    """
    chunks, all_torn = job.folder / "chunks", []
    targets = [*(chunks / f"chunk-{number}" for number in range(1, job.count + 1)), job.folder / "output"]
    for number in sorted(rng.sample(range(len(targets)), how_many)):
        torn = killed_while_it_wrote(job, targets[number], rng.uniform(0, seconds[targets[number].name]))
        all_torn += [torn] * (torn is not None)
        for path in targets:
            with suppress(FileNotFoundError):
                assert path.read_bytes() == whole[path.name], path.name
    return all_torn


@pytest.mark.timeout(1800)  # of it 40 seconds on two idle cores, minutes on busy ones
def test_twenty_workers_killed_while_they_write_leave_nothing_that_is_read_as_good(address, tmp_path):
    """Each is stopped at a random moment of its writing and killed there; another one writes the file."""
    rng, torn, jobs = random.Random(19), [], []
    files = {f"chunk-{number}": [number] for number in range(1, Records.count + 1)}
    files["output"] = [number for numbers in files.values() for number in numbers]
    alone = Records(tmp_path / "alone")
    seconds = {name: seconds_half_written(alone, alone.folder / name, of) for name, of in files.items()}
    whole = {name: (alone.folder / name).read_bytes() for name in files}
    with ThreadPoolExecutor(1) as pool:
        while len(torn) < NUM_KILLS:
            assert len(jobs) < NUM_KILLS, "in most jobs a writer is met"
            jobs.append(Records(tmp_path / f"job-{len(jobs)}"))
            how_many = min(NUM_RETRIES, NUM_KILLS - len(torn))  # more could be one worker's, or one chunk's
            killed = pool.submit(kill_writers, jobs[-1], how_many, rng, whole, seconds)
            assert make_on_ray(jobs[-1], TWO, "records").result == files["output"]
            torn += killed.result()
            assert (jobs[-1].folder / "output").read_bytes() == whole["output"]
            assert sorted(path.name for path in jobs[-1].folder.iterdir()) == ["output", "writers"]
    assert len(torn) == NUM_KILLS
    for number, content in enumerate(torn):
        path = tmp_path / f"torn-{number}"
        path.write_bytes(content)
        with pytest.raises(InputError, match="not a readable Parquet file"):
            read_trajectories(path)
