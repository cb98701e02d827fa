"""Suite ``sdar`` with a tiny random SDAR on GSM8K: rollouts, training, evaluation, record; bad input."""

import gzip
import json
import os
import shlex
from pathlib import Path

import pytest
import torch
from command_helpers import run_failing

from t3d.cli.main import main
from t3d.models.sdar import SDARForCausalLM

DATA = Path(os.environ.get("T3D_DATA", ""), "gsm8k")
SIZES = ["--num-prompts", "4", "--num-optimizer-steps", "2", "--limit", "2", "--max-new-tokens", "16"]
pytestmark = [
    pytest.mark.skipif(
        not (DATA / "train.jsonl.gz").is_file(), reason="set T3D_DATA to the folder of the data sets"
    ),
    # transformers 5.23 wants another name, which 5.20 does not know.
    pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A folder in the layout that the suite reads, with GSM8K as its only benchmark."""
    folder = tmp_path_factory.mktemp("sdar") / "data"
    folder.mkdir()
    (folder / "gsm8k").symlink_to(DATA)
    with gzip.open(DATA / "train.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = sorted((json.loads(line) for line in lines), key=lambda row: len(row["question"]))[:5]
    for name in ("train", "solutions"):
        lines = [
            {"id": f"gsm8k/{index}", "question": row["question"], "task": "math", "solution": row["answer"]}
            for index, row in enumerate(rows)
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    return folder


@pytest.fixture(scope="module")
def teacher(tmp_path_factory, make_model, tiny_tokenizer) -> Path:
    """A tiny random SDAR whose context is long enough for GSM8K in bytes."""
    folder = tmp_path_factory.mktemp("sdar") / "tiny-sdar"
    model: SDARForCausalLM = make_model(
        dtype=torch.float32,
        vocab_size=len(tiny_tokenizer),
        mask_token_id=tiny_tokenizer.mask_token_id,
        eos_token_id=tiny_tokenizer.eos_token_id,
        pad_token_id=tiny_tokenizer.pad_token_id,
        max_position_embeddings=2048,
    )
    model.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


def cell(data, teacher, output, *flags) -> list[str]:
    where = ["--data", str(data), "--teacher", str(teacher), "--output", str(output), "--device", "cpu"]
    words = ["reproduce", "cell", "--suite", "sdar", "--tasks", "gsm8k", "--settings", "B8-T8"]
    return [*words, *SIZES, *where, *flags]


@pytest.mark.parametrize("method", ["t3d", "sft"])
def test_the_smallest_cell_runs_from_rollouts_to_its_record(method, data, teacher, tmp_path):
    trained = ["--method", method, "--learning-rate", "0.001"]
    assert main(cell(data, teacher, tmp_path / "first", *trained)) == 0
    record = json.loads((tmp_path / "first" / "cell.json").read_text())
    (row,) = record["results"]
    assert (row["task"], row["setting"], row["n"]) == ("gsm8k", "B8-T8", 2)
    config = record["config"]
    assert config["teacher"]["name"] == "tiny-sdar" and len(config["records"]["sha256"]) == 64
    assert config["training"]["max_steps"] == 2 and config["training"]["bf16"]
    assert config["training"]["per_device_train_batch_size"] == 4
    rollouts = list((tmp_path / "first" / "records").glob("*.parquet"))
    assert len(rollouts) == (0 if method == "sft" else 1)
    words = shlex.split(record["command"])[1:]
    assert main([*words, "--output", str(tmp_path / "again"), "--device", "cpu"]) == 0
    again = json.loads((tmp_path / "again" / "cell.json").read_text())
    assert again["config_hash"] == record["config_hash"]
    assert again["model"]["weights"] == record["model"]["weights"]
    assert again["results"][0]["num_correct"] == row["num_correct"]


@pytest.mark.slow
def test_a_quick_table_of_every_method_has_a_report(data, teacher, tmp_path):
    where = ["--data", str(data), "--teachers", str(teacher), "--output", str(tmp_path), "--device", "cpu"]
    words = ["reproduce", "table2", "--suite", "sdar", "--quick", "--tasks", "gsm8k", "--cells", "None"]
    assert main([*words, *SIZES, *where]) == 0
    report = json.loads((tmp_path / "tables.json").read_text())
    methods = {entry["method"] for entry in report["entries"]}
    assert methods == {"original", "sft", "redi", "dparallel", "naive_td", "t3d"}
    paper = {entry["method"]: entry["paper"] for entry in report["entries"] if entry["task"] == "gsm8k"}
    assert (paper["original"], paper["t3d"]) == (89.84, 89.31)
    assert (tmp_path / "table2-tiny-sdar.png").is_file()


def test_fewer_prompts_than_the_budget_are_refused(data, teacher, tmp_path, capsys):
    flags = ["--method", "t3d", "--learning-rate", "0.001", "--num-prompts", "6"]
    error = run_failing(cell(data, teacher, tmp_path / "out", *flags), capsys)
    assert "num_prompts=6" in error and "has only 5 lines" in error and "--num-prompts" in error


def test_a_missing_benchmark_is_said_before_anything_is_trained(data, teacher, tmp_path, capsys):
    words = cell(data, teacher, tmp_path / "out", "--method", "t3d", "--learning-rate", "0.001")
    words[words.index("gsm8k") : words.index("gsm8k") + 1] = ["gsm8k", "humaneval"]
    assert "holds no file with the problems of humaneval" in run_failing(words, capsys)
    assert not (tmp_path / "out").exists()


def test_the_command_repeats_device_and_batch_which_are_part_of_the_hash(data, teacher, tmp_path):
    flags = ["--method", "original", "--batch-size", "3"]
    assert main(cell(data, teacher, tmp_path, *flags)) == 0
    record = json.loads((tmp_path / "cell.json").read_text())
    assert "--device cpu --batch-size 3" in record["command"]
    assert record["config"]["device"] == "cpu" and record["config"]["evaluation"]["batch_size"] == 3
    identity = record["config"]["evaluation"]["data_and_graders"]["gsm8k"]
    assert len(identity["data"]["test"]) == 64 and identity["grader"]["name"] == "math_verify"


def test_other_prompts_are_another_cell(data, teacher, tmp_path, capsys):
    dry = ["reproduce", "table2", "--suite", "sdar", "--teachers", str(teacher), "--dry-run", "--data"]
    outputs, hashes = [], []
    for folder in (data, tmp_path):
        file = tmp_path / "configurations.yaml"
        assert main([*dry, str(folder), "--configurations", str(file)]) == 0
        outputs.append(capsys.readouterr().out)
        hashes.append({line for line in file.read_text().splitlines() if line.startswith("hash: ")})
    assert len(hashes[0]) == len(hashes[1]) > 5
    assert not hashes[0] & hashes[1]
    assert "train.jsonl, which is missing" in outputs[1]
    assert "train.jsonl, which is missing" not in outputs[0]
