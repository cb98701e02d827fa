"""Workers on a real Ray cluster of two cores: the records of one process, whatever happens to a chunk."""

import json
import re
from dataclasses import replace

import pytest
from command_helpers import run_failing, write_prompts
from failing_helpers import broken_command
from ray_helpers import Numbers, started

from t3d.cli.main import main
from t3d.errors import InputError
from t3d.scale import ray_workers
from t3d.scale.chunked import Workers
from t3d.scale.ray_workers import make_on_ray

pytestmark = [
    pytest.mark.other_process,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # the cluster's processes outlive a test
]
TWO = Workers(num_workers=2, address="auto", cpus_per_worker=1, gpus_per_worker=None)
ONE = replace(TWO, num_workers=1)


@pytest.fixture(scope="module")
def cluster():
    """Started once: it takes seconds."""
    with started():
        yield


def test_two_workers_make_the_file_of_one_process(cluster, checkpoint, tmp_path, capsys, caplog):
    command = ["rollout", "--model", str(checkpoint), "--prompts", str(write_prompts(tmp_path)), "--device"]
    command += ["cpu", "--max-new-tokens", "4", "--temperature", "1", "--chunk-size", "1"]
    one, several = tmp_path / "one.parquet", tmp_path / "several.parquet"
    assert main([*command, "--output", str(one)]) == 0
    capsys.readouterr()
    assert main([*command, "--output", str(several), "--ray", "--num-workers", "2"]) == 0
    told = capsys.readouterr().out
    assert re.match(r"2 workers on Ray: 6 prompts in .*, [0-9.]+ a second; .* to start\n6 trajectories", told)
    assert several.read_bytes() == one.read_bytes()
    assert sorted(path.name for path in tmp_path.glob("several*")) == [
        "several.parquet",
        "several.parquet.yaml",
    ]
    of_one, of_several = (path.with_name(f"{path.name}.yaml").read_text() for path in (one, several))
    assert of_several.replace("several", "one") == of_one, "who did it is not part of it"
    assert main([*command, "--output", str(several), "--ray", "--num-workers", "2"]) == 0
    assert "2 workers on Ray: 0 prompts in" in capsys.readouterr().out, "it was there"
    assert "was finished before by the same command" in caplog.text


@pytest.fixture(scope="module")
def broken(checkpoint, tmp_path_factory):
    """Flags of a rollout of which a prompt fails."""
    return broken_command(checkpoint, tmp_path_factory.mktemp("broken"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_prompt_that_fails_is_left_out_by_workers_too_and_the_bound_is_that_of_all(
    cluster, broken, tmp_path, capsys
):
    line = ["rollout", *broken]
    on_ray = [*line, "--output", str(tmp_path / "several"), "--ray", "--num-workers", "2"]
    assert "max_errors=0: 1 prompt failed ('1'" in run_failing(on_ray, capsys)
    assert main([*on_ray, "--max-errors", "1"]) == 0
    assert "1 prompt failed, listed in" in capsys.readouterr().out.splitlines()[-1]
    assert main([*line, "--output", str(tmp_path / "one"), "--max-errors", "1"]) == 0
    assert (tmp_path / "several").read_bytes() == (tmp_path / "one").read_bytes()
    listed = [(tmp_path / f"{name}.errors.jsonl").read_text() for name in ("one", "several")]
    assert listed[0] == listed[1] and json.loads(listed[0])["id"] == "1"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_answer_that_fails_counts_as_wrong_and_as_an_error_with_workers_too(
    cluster, broken, tmp_path, capsys
):
    line = ["eval", *broken, "--grader", "exact", "--tokens-per-step", "1,2"]
    on_ray = [*line, "--output", str(tmp_path / "several"), "--ray", "--num-workers", "2"]
    assert "max_errors=1: 2 responses failed (" in run_failing([*on_ray, "--max-errors", "1"], capsys)
    assert main([*on_ray, "--max-errors", "2"]) == 0
    assert "2 responses failed, listed in" in capsys.readouterr().out.splitlines()[-1]
    assert main([*line, "--output", str(tmp_path / "one"), "--max-errors", "2"]) == 0
    for name in ("samples.jsonl", "errors.jsonl"):
        assert (tmp_path / "several" / name).read_text() == (tmp_path / "one" / name).read_text()
    report = json.loads((tmp_path / "several" / "results.json").read_text())
    assert [entry["num_errors"] for entry in report["results"]] == [1, 1]
    assert main([*on_ray, "--max-errors", "2"]) == 0, "they are tried again"


def test_a_worker_that_dies_is_replaced_and_chunks_that_fail_are_named(cluster, tmp_path, capsys):
    """What can be made is made, and kept."""
    faults = {1: "dies once", 2: "input", 4: "bug"}
    problem = r"limit=2: refused \(chunks .*2/4.* failed; the others are kept, .*\)\. Fix: use another"
    with pytest.raises((InputError, RuntimeError), match=rf"{problem}|chunks .*4/4.* failed") as raised:
        make_on_ray(Numbers(tmp_path, faults), TWO, "numbers")
    assert {"2/4", "4/4"} == set(re.findall(r"\d/4", str(raised.value)))
    assert sorted(path.name for path in (tmp_path / "chunks").glob("chunk-*")) == ["chunk-1", "chunk-3"]
    assert (tmp_path / "died-1").exists()
    assert capsys.readouterr().out.count("noted\n") == 1, "by one worker of two"


def test_a_worker_that_cannot_get_ready_leaves_its_place_to_another(cluster, tmp_path, caplog):
    """Each takes the whole cluster, so the second starts when the first is gone."""
    both = replace(TWO, cpus_per_worker=2)
    assert make_on_ray(Numbers(tmp_path, odd="memory"), both, "numbers").result == [1, 2, 3, 4]
    assert "a worker was lost" in caplog.text and "no room for the weights" in caplog.text


def test_a_chunk_that_another_run_holds_is_made_last_and_has_not_failed(cluster, tmp_path, caplog):
    made = make_on_ray(Numbers(tmp_path, {1: "in use"}), ONE, "numbers")
    assert made.result == [1, 2, 3, 4] and made.num_new == 40
    assert "chunk 1/4 waits" in caplog.text and "failed" not in caplog.text


def test_a_worker_is_asked_again_where_the_last_chunk_had_no_result(cluster, tmp_path):
    """Another run was in the folder at that moment, and has perhaps made the output since."""
    made = make_on_ray(Numbers(tmp_path, {0: "silent once"}), ONE, "numbers")
    assert made.result == [1, 2, 3, 4] and made.num_new == 40


def test_workers_that_no_machine_can_hold_end_the_command_in_one_line(
    cluster, checkpoint, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(ray_workers, "SECONDS_WITHOUT_WORKERS", 0.2)
    monkeypatch.setattr(ray_workers, "SECONDS_TO_GROW", 1.0)
    line = [
        "rollout",
        "--model",
        str(checkpoint),
        "--prompts",
        str(write_prompts(tmp_path)),
        "--device",
        "cpu",
    ]
    line += ["--output", str(tmp_path / "out"), "--ray", "--cpus-per-worker", "3"]
    text = "num_workers=1: with 3 cores and 0 GPUs each there is room for 0 on all machines (2 cores, 0 GPUs)"
    assert text in run_failing(line, capsys)
    assert text in run_failing([*line, "--address", "auto"], capsys)
