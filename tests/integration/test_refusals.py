"""Unfit inputs and outputs of whole commands: status 2, the field and the fix, nothing written."""

import dataclasses
import json
import os
import shutil

import pytest
from command_helpers import run_failing
from safetensors.torch import load_file, save_file

from t3d.cli.main import main
from t3d.decoding import rollout
from t3d.trajectory import read_trajectories, write_trajectories
from t3d.work.kept import claim

SHORT = ["--max-new-tokens", "12", "--device", "cpu"]


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.jsonl"
    rows = [{"id": str(index), "question": f"how many apples {index}", "answer": "1"} for index in range(3)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture
def rolled(checkpoint, prompts, tmp_path):
    path = tmp_path / "rollout.parquet"
    command = ["rollout", "--model", str(checkpoint), "--prompts", str(prompts), "--output", str(path)]
    assert main([*command, *SHORT]) == 0
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "0"}, "id='0': used by two trajectories"),
        ({"tokenizer_hash": "0" * 64}, "made with another tokenizer"),
    ],
)
def test_unusable_trajectories(checkpoint, rolled, tmp_path, capsys, change, message):
    records = read_trajectories(rolled)
    records[1] = dataclasses.replace(records[1], **change)
    write_trajectories(rolled, records)
    output = tmp_path / "run"
    arguments = ["train", "--model", str(checkpoint), "--trajectories", str(rolled), "--output", str(output)]
    assert message in run_failing([*arguments, "--device", "cpu"], capsys)
    assert not output.exists()


def test_training_on_a_gpu_other_than_the_first_is_refused_before_the_model_is_loaded(tmp_path, capsys):
    train = ["train", "--model", "nowhere", "--trajectories", "nowhere", "--output", str(tmp_path / "run")]
    for command in (train, ["demo", "--output", str(tmp_path / "run")]):
        text = run_failing([*command, "--device", "cuda:1"], capsys)
        assert "device='cuda:1': training uses the first visible GPU" in text
        assert "CUDA_VISIBLE_DEVICES=1" in text
    assert not (tmp_path / "run").exists()


def test_a_block_size_that_does_not_nest_with_the_rollouts(checkpoint, rolled, tmp_path, capsys):
    output = tmp_path / "run"
    arguments = ["train", "--model", str(checkpoint), "--trajectories", str(rolled), "--output", str(output)]
    text = run_failing([*arguments, "--device", "cpu", "--block-size", "6"], capsys)
    assert "block_size=6: the trajectories' blocks of 4 do not nest" in text
    assert "divides 4 or is a multiple of it" in text
    assert not output.exists()


def test_a_truncated_model(checkpoint, prompts, tmp_path, capsys):
    shutil.copytree(checkpoint, tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    arguments = ["eval", "--model", str(weights.parent), "--prompts", str(prompts)]
    text = run_failing([*arguments, "--output", str(tmp_path / "e"), *SHORT], capsys)
    assert "cut/model.safetensors': truncated or damaged" in text
    assert not (tmp_path / "e").exists()


@pytest.mark.parametrize(
    ("name", "folder"), [("rollout", "out.chunks"), ("eval", "out/unfinished"), ("train", "out/checkpoints")]
)
def test_a_second_run_in_the_same_output_is_refused(
    checkpoint, prompts, rolled, tmp_path, capsys, name, folder
):
    source = ["--trajectories", str(rolled)] if name == "train" else ["--prompts", str(prompts)]
    arguments = [name, "--model", str(checkpoint), *source, "--output", str(tmp_path / "out")]
    with claim(tmp_path / folder, {}, "*"):
        text = run_failing([*arguments, *(SHORT if name != "train" else SHORT[2:])], capsys)
    assert f"another run is using it (process {os.getpid()} on" in text
    assert "Fix: wait for that run to end, or use another output" in text


@pytest.mark.parametrize("command", ["generate", "rollout"])
def test_a_model_that_is_not_a_number(checkpoint, prompts, tmp_path, capsys, command):
    """At the default temperature."""
    folder, output = tmp_path / "nan", tmp_path / "out.parquet"
    shutil.copytree(checkpoint, folder)
    weights = load_file(folder / "model.safetensors")
    save_file({name: weight * float("nan") for name, weight in weights.items()}, folder / "model.safetensors")
    flags = ["--output", str(output)] if command == "rollout" else []
    message = run_failing(
        [command, "--model", str(folder), "--prompts", str(prompts), *flags, *SHORT], capsys
    )
    assert ("3 requests failed: " if command == "generate" else "max_errors=0: 3 prompts failed") in message
    assert "logits are not numbers (NaN): its weight model.embed_tokens.weight is not finite" in message
    assert not output.exists()


def test_an_id_that_two_prompts_share(checkpoint, prompts, tmp_path, capsys):
    prompts.write_text(prompts.read_text() + "\n" + prompts.read_text().splitlines()[0])
    for name, output in (("rollout", tmp_path / "out"), ("eval", tmp_path / "e")):
        arguments = [name, "--model", str(checkpoint), "--prompts", str(prompts), "--output", str(output)]
        assert "id='0': used twice in" in run_failing([*arguments, *SHORT], capsys)
        assert not output.exists()


@pytest.mark.parametrize("output", ["folder", "folder/", "", ".", "a" * 300])
def test_a_rollout_whose_output_cannot_be_a_file_decodes_nothing(
    checkpoint, prompts, tmp_path, capsys, monkeypatch, output
):
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rollout, "roll_out_answered", lambda *args, **kwargs: pytest.fail("decoded"))
    arguments = ["rollout", "--model", str(checkpoint), "--prompts", str(prompts), "--output", output]
    text = run_failing([*arguments, *SHORT], capsys)
    assert "Fix: give the name of a file" in text or "Fix: use an output with a shorter name" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "prompts.jsonl"]
