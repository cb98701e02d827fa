"""However many runs share an evaluation, its files are those of a single run, times aside."""

import json

import pytest
from command_helpers import write_prompts
from model_fixtures import load_copy
from task_helpers import EvenTask

from t3d.cli.main import main
from t3d.decoding.params import DecodeParams
from t3d.decoding.settings import decoding_settings
from t3d.evaluation.evaluate import EvalConfig, evaluate, shared_evaluation
from t3d.tasks.task import PosedTask
from t3d.work.kept import KeptLines
from t3d.work.shards import Shard

SHARED = DecodeParams(max_new_tokens=4, temperature=1.0)
SETTINGS = decoding_settings(block_sizes=(4,), tokens_per_step=(2, 4), shared=SHARED)
TIMES = ("seconds", "latency", "tokens_per_second", "batch1_latency")
NUM_ROWS = 2 * (3 + 2)


def work(checkpoint, folder, dtype="float64", settings=SETTINGS):
    """Six chunks: two of each cell of the first task, one of the second's."""
    tasks = [EvenTask("a"), EvenTask("b")]
    return {
        "loaded": load_copy(checkpoint, dtype),
        "tasks": [PosedTask(task=each, problems=each.problems("", 3 - i, 0)) for i, each in enumerate(tasks)],
        "settings": settings,
        "output": folder,
        "config": EvalConfig(chunk_size=2, latency_samples=1),
        "report": {"seed": 7},
    }


@pytest.fixture(scope="module", params=["float64", pytest.param("bfloat16", marks=pytest.mark.slow)])
def whole(request, checkpoint, tmp_path_factory):
    """A dtype, and the folder of a single run in it."""
    folder = tmp_path_factory.mktemp("whole")
    evaluate(**work(checkpoint, folder, request.param))
    return request.param, folder


def contents(folder):
    """Samples to the byte, results without what a clock says and what depends on it."""
    report = json.loads((folder / "results.json").read_text())
    del report["checksum"]
    for entry in report["results"]:
        for name in TIMES:
            entry.pop(name)
    return (folder / "samples.jsonl").read_bytes(), report


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("order", [(2, 1), pytest.param((7, 3, 1, 2, 6, 5, 4), marks=pytest.mark.slow)])
def test_shards_in_one_folder_write_the_files_of_one_run(checkpoint, whole, tmp_path, order):
    *others, last = [Shard(number, len(order)) for number in order]
    how = work(checkpoint, tmp_path, whole[0])
    for shard in others:
        assert shared_evaluation(**how).make(shard) is None and names(tmp_path)[-1:] in ([], ["unfinished"])
    entries = shared_evaluation(**how).make(last)
    assert contents(tmp_path) == contents(whole[1]) and names(tmp_path) == names(whole[1])
    again = shared_evaluation(**how).make(others[0])
    assert again == json.loads(json.dumps(entries)), "what is finished is read"


def test_a_cut_shard_goes_on_and_a_run_without_shards_completes_what_is_missing(
    checkpoint, whole, tmp_path, monkeypatch
):
    real, rows = KeptLines.append, []

    def append(self, row):
        if len(rows) == 3 and not cuts:
            cuts.append(row)
            raise KeyboardInterrupt
        if self.path is not None and "batch1_seconds" not in row:
            rows.append(row)
        real(self, row)

    cuts: list = []
    monkeypatch.setattr(KeptLines, "append", append)
    how = work(checkpoint, tmp_path, whole[0])
    with pytest.raises(KeyboardInterrupt):
        shared_evaluation(**how).make(Shard(2, 3))
    for shard in (Shard(2, 3), Shard(1, 2), Shard(2, 3)):
        assert shared_evaluation(**how).make(shard) is None
    evaluate(**how)
    num_again = 0 if whole[0] == "float64" else len(rows) - 2 * NUM_ROWS
    assert len(rows) - num_again == 2 * NUM_ROWS and num_again <= 1, "in bfloat16 a cut chunk as a whole"
    assert contents(tmp_path) == contents(whole[1]) and names(tmp_path) == names(whole[1])


@pytest.mark.slow
@pytest.mark.parametrize("whole", ["float64"], indirect=True)
def test_shards_add_settings_to_a_finished_evaluation(checkpoint, whole, tmp_path):
    evaluate(**work(checkpoint, tmp_path, settings=dict(list(SETTINGS.items())[:1])))
    before = json.loads((tmp_path / "results.json").read_text())["results"]
    how = work(checkpoint, tmp_path)
    assert shared_evaluation(**how).make(Shard(1, 2)) is None
    entries = shared_evaluation(**how).make(Shard(2, 2))
    assert contents(tmp_path) == contents(whole[1]) and names(tmp_path) == names(whole[1])
    assert entries is not None and entries[0] == before[0], "its seconds, too"


def test_the_commands_of_two_shards_and_of_two_processes(checkpoint, tmp_path, capsys, monkeypatch):
    command = ["eval", "--model", str(checkpoint), "--prompts", str(write_prompts(tmp_path))]
    command += ["--device", "cpu", "--max-new-tokens", "4", "--chunk-size", "4", "--grader", "exact"]
    outputs = [tmp_path / name for name in ("whole", "shards")]
    assert main([*command, "--output", str(outputs[0])]) == 0
    assert main([*command, "--output", str(outputs[1]), "--shard", "2/2"]) == 0
    assert f"its answers are in {outputs[1]}; the last shard writes results.json" in capsys.readouterr().out
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert main([*command, "--output", str(outputs[1])]) == 0
    for output in outputs:
        assert names(output) == ["config.yaml", "report.html", "results.json", "samples.jsonl"]
        assert (output / "samples.jsonl").read_bytes() == (outputs[0] / "samples.jsonl").read_bytes()
        config = json.loads((output / "results.json").read_text())["config"]
        assert config["shard"] is None and "shard: null" in (output / "config.yaml").read_text()
