"""Real processes that share an output, of torchrun or killed: none of it is lost, doubled or another."""

import json
import os
import signal
import subprocess
import sys

import pytest

from t3d.cli.main import main

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="kills a process group")]
MODEL = ["--model", "mini-small", "--device", "cpu", "--chunk-size", "4"]
ROLLOUT = ["rollout", *MODEL, "--task", "chain", "--limit", "26", "--max-new-tokens", "24"]
EVAL = ["eval", *MODEL, "--tasks", "chain,make", "--limit", "10", "--max-new-tokens", "24"]
EVAL += ["--block-size", "4,8", "--tokens-per-step", "4"]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "t3d"]


def start(*arguments: str) -> subprocess.Popen:
    """A command of the real program, in a process group of its own."""
    command = [sys.executable, *arguments]
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, start_new_session=True, **how)


def ended(process: subprocess.Popen, seconds: float = 200) -> str:
    """What it printed; a failure if it did not end well."""
    try:
        text = process.communicate(timeout=seconds)[0]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert process.returncode == 0, text
    return text


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What one process makes of both commands."""
    folder = tmp_path_factory.mktemp("whole")
    assert main([*ROLLOUT, "--output", str(folder / "out.parquet")]) == 0
    assert main([*EVAL, "--output", str(folder / "eval")]) == 0
    return folder


def assert_is_rollout(output, whole):
    assert output.read_bytes() == (whole / "out.parquet").read_bytes()
    names = sorted(path.name for path in output.parent.iterdir())
    assert names == ["out.parquet", "out.parquet.yaml"]


def test_a_rollout_of_two_processes_is_that_of_one(whole, tmp_path):
    output = tmp_path / "out.parquet"
    text = ended(start(*TORCHRUN, *ROLLOUT, "--output", str(output)))
    assert "rollout, shard 1/2: 14/14" in text and "rollout, shard 2/2: 12/12" in text
    assert text.count(f"26 trajectories in {output}") == 1, "one of them makes it"
    assert_is_rollout(output, whole)
    again = ended(start(*TORCHRUN, *ROLLOUT, "--output", str(output)))
    assert again.count("was finished before by the same command") == 2


def test_an_evaluation_of_two_processes_is_that_of_one(whole, tmp_path):
    output, alone = tmp_path / "eval", whole / "eval"
    text = ended(start(*TORCHRUN, *EVAL, "--output", str(output)))
    assert "evaluate, shard 1/2: 20/20" in text and "evaluate, shard 2/2: 20/20" in text
    assert (output / "samples.jsonl").read_bytes() == (alone / "samples.jsonl").read_bytes()
    assert sorted(path.name for path in output.iterdir()) == sorted(path.name for path in alone.iterdir())
    entries = [json.loads((folder / "results.json").read_text())["results"] for folder in (output, alone)]
    for mine, theirs in zip(*entries, strict=True):
        assert [mine[name] for name in ("verdicts", "n", "ci95", "tokens_per_forward")] == [
            theirs[name] for name in ("verdicts", "n", "ci95", "tokens_per_forward")
        ]


# Forked before anything runs, so that what they import is imported once.
KILLS = """
import os, random, signal, sys, time
from pathlib import Path
import t3d.decoding.rollout, t3d.report.rollout, t3d.models.loading
from t3d.cli.main import main
from t3d.trajectory import read_trajectories

folder, whole, command = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
moments, num_killed, num_left = random.Random(7), 0, 0

def launch(output, number):
    child = os.fork()
    if child == 0:
        os._exit(main([*command, "--output", str(output), "--shard", f"{number}/2"]))
    return child

def end(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def run(output, kill_after=None):
    global num_killed, num_left
    children = [launch(output, number) for number in (1, 2)]
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(children[0], signal.SIGKILL)
    ends = [end(child) for child in children]
    assert ends in ([0, 0], [-9, 0]), ends
    num_killed += ends[0] == -9
    chunks = list(output.with_name(output.name + ".chunks").glob("chunk-*.parquet"))
    num_left += bool(chunks)
    for chunk in chunks:
        assert read_trajectories(chunk)  # no torn file has a chunk's name

def check(output):
    assert output.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in output.parent.iterdir()) == [output.name, output.name + ".yaml"]

started = time.perf_counter()
run(folder / "first" / "out.parquet")
check(folder / "first" / "out.parquet")
seconds = time.perf_counter() - started
number = 0
while num_killed < 20:
    output = folder / str(number) / "out.parquet"
    run(output, moments.uniform(0, seconds))
    if output.exists():
        check(output)
        number += 1
if not output.exists():
    run(output)
    check(output)
print(f"{num_killed} kills, {num_left} with chunks left, {number} outputs", flush=True)
"""


@pytest.mark.timeout(600)
def test_shards_that_are_killed_twenty_times_lose_and_double_nothing(whole, tmp_path):
    """Two run at the same time and one is killed, again and again; what is finished is that of one run."""
    text = ended(start("-c", KILLS, str(tmp_path), str(whole / "out.parquet"), *ROLLOUT), seconds=500)
    assert text.splitlines()[-1].startswith("20 kills, ") and ", 0 with chunks left" not in text
