"""Workers on Ray of two processes that share a model, over gloo: the records of one process, whoever dies."""

import json
import threading
import time

import psutil
import pytest
from command_helpers import evaluated, rolled_out_bytes, rollout_of_chunks, run_failing, write_prompts
from failing_helpers import broken_command
from followed_helpers import NEEDS_GLOO_ON_CPUS
from ray_helpers import started

from t3d.cli.main import main
from t3d.trajectory import read_plan, read_trajectories, write_trajectories

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),  # of it a busy machine takes minutes to start a cluster and two processes
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    NEEDS_GLOO_ON_CPUS,
]
NUM_PROMPTS = 12
ON_RAY = ["--ray", "--tensor-parallel", "2"]


@pytest.fixture(scope="module")
def address():
    with started() as address:
        yield address


@pytest.fixture(scope="module")
def command(checkpoint, tmp_path_factory):
    """A rollout in float64, where parts of sums that are added up round too little to change a record."""
    line = rollout_of_chunks(checkpoint, tmp_path_factory.mktemp("prompts"), NUM_PROMPTS, 40)
    return [*line, "--dtype", "float64"]


@pytest.fixture(scope="module")
def whole(command, tmp_path_factory):
    """The bytes of one process's file."""
    return rolled_out_bytes(command, tmp_path_factory.mktemp("whole"))


@pytest.fixture
def as_of_one(tmp_path):
    """The bytes that a file has whose plan does not name the processes that made it, which it has to."""

    def as_of_one(output):
        plan = read_plan(output)
        assert plan["model"].pop("tensor_parallel") == 2
        again = tmp_path / "again" / output.name
        write_trajectories(again, read_trajectories(output), plan=plan)
        return again.read_bytes()

    return as_of_one


def followers():
    """Processes of this test's cluster that a worker has started to share its model."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "t3d.scale.follower" in process.cmdline():
                found.append(process)
        except psutil.Error:  # it has just ended
            continue
    return found


def wait_until(condition):
    until = time.monotonic() + 200
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_worker_of_two_processes_makes_the_file_of_one(
    address, command, whole, as_of_one, tmp_path, capsys
):
    output = tmp_path / "out.parquet"
    assert main([*command, "--output", str(output), *ON_RAY]) == 0
    assert f"1 workers on Ray of 2 processes: {NUM_PROMPTS} prompts in" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.parquet", "out.parquet.yaml"]
    assert as_of_one(output) == whole
    wait_until(lambda: not followers())


def test_chunks_of_one_process_and_of_two_are_never_mixed(address, command, tmp_path, capsys):
    output = str(tmp_path / "out.parquet")
    assert main([*command, "--output", output, "--shard", "1/2"]) == 0
    text = run_failing([*command, "--output", output, *ON_RAY], capsys)
    assert "tensor_parallel" in text and "Fix: " in text


@pytest.mark.parametrize("whose", ["follower", "worker"])
def test_one_of_two_processes_killed_in_the_middle_loses_nothing(
    address, command, whole, as_of_one, tmp_path, whose
):
    output, killed = tmp_path / "out.parquet", []
    chunks = output.with_name("out.parquet.chunks")

    def kill():
        wait_until(lambda: len(list(chunks.glob("chunk-*"))) >= 3)
        (follower,) = followers()
        process = follower if whose == "follower" else follower.parent()
        process.kill()
        killed.append((follower, len(list(chunks.glob("chunk-*")))))

    thread = threading.Thread(target=kill)
    thread.start()
    assert main([*command, "--output", str(output), *ON_RAY]) == 0
    thread.join()
    ((follower, num_made),) = killed
    assert num_made < NUM_PROMPTS
    assert as_of_one(output) == whole
    wait_until(lambda: not follower.is_running() and not followers())


def test_a_prompt_that_fails_in_all_processes_is_left_out_and_ends_none(
    address, checkpoint, tmp_path, tmp_path_factory
):
    line = ["eval", *broken_command(checkpoint, tmp_path_factory.mktemp("broken")), "--dtype", "float64"]
    line += ["--grader", "exact", "--tokens-per-step", "1,2", "--max-errors", "2"]
    assert main([*line, "--output", str(tmp_path / "one")]) == 0
    assert main([*line, "--output", str(tmp_path / "shared"), *ON_RAY]) == 0
    samples, shared = evaluated(tmp_path / "shared")
    assert shared["model"].pop("tensor_parallel") == shared["plan"]["model"].pop("tensor_parallel") == 2
    assert (samples, shared) == evaluated(tmp_path / "one")
    listed = [(tmp_path / name / "errors.jsonl").read_text() for name in ("one", "shared")]
    assert listed[0] == listed[1] and len(listed[0].splitlines()) == 2
    assert json.loads(listed[0].splitlines()[0])["id"] == "1"


def test_processes_that_cannot_share_the_heads_are_an_error_in_one_line(
    address, make_model, tiny_tokenizer, tmp_path, capsys
):
    ids = {
        "vocab_size": len(tiny_tokenizer),
        "mask_token_id": tiny_tokenizer.mask_token_id,
        "eos_token_id": tiny_tokenizer.eos_token_id,
        "pad_token_id": tiny_tokenizer.pad_token_id,
    }
    model = make_model(num_key_value_heads=1, **ids)
    model.save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    line = ["rollout", "--model", str(tmp_path / "model"), "--prompts", str(write_prompts(tmp_path))]
    line += ["--device", "cpu", "--max-new-tokens", "4", "--output", str(tmp_path / "out.parquet"), *ON_RAY]
    text = run_failing(line, capsys)
    assert "tensor_parallel=2: 2 processes cannot share 1 key-value heads evenly. Fix: " in text
    wait_until(lambda: not followers())
