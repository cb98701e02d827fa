"""``t3d theory``: what models lose on recorded trajectories, printed, written and drawn; one-screen
errors."""

import dataclasses
import json
import shutil

import pytest
from adopt_helpers import plain_tokenizer, save_source
from command_helpers import run_failing

from t3d.cli.main import main
from t3d.models.loading import load_tokenizer
from t3d.trajectory import Trajectory, read_trajectories, write_trajectories


@pytest.fixture(scope="module")
def records(checkpoint, tmp_path_factory) -> str:
    """Three records of five and three tokens behind a prompt that ends inside a block of four."""
    one = Trajectory(
        id="a",
        prompt_ids=(5, 6, 7),
        response_ids=(8, 9, 10, 11, 12),
        step_map=(1, 3, 2, 3, 4),
        visible_length=5,
        finish_reason="length",
        block_size=4,
        mask_token_id=load_tokenizer(checkpoint).mask_token_id,
    )
    path = tmp_path_factory.mktemp("records") / "r.parquet"
    other = dataclasses.replace(one, id="b", response_ids=(12, 11, 10, 9, 8), visible_length=3)
    write_trajectories(path, [one, other, dataclasses.replace(one, id="c")])
    return str(path)


def test_models_are_measured_side_by_side(checkpoint, records, tmp_path, capsys):
    output, plot, student = tmp_path / "t.json", tmp_path / "t.png", tmp_path / "student"
    shutil.copytree(checkpoint, student)
    models = [str(checkpoint), str(student)]
    command = ["theory", "--trajectories", records, "--models", *models, "--device", "cpu"]
    files = ["--output", str(output), "--plot", str(plot)]
    for _ in range(2):  # its own files it may write over
        assert main([*command, *files, "--limit", "2", "--tokens-per-step", "2", "4"]) == 0
    assert "Factorisation error" in capsys.readouterr().out
    assert plot.read_bytes().startswith(b"\x89PNG")
    report = json.loads(output.read_text())
    assert report["config"]["limit"] == 2
    assert list(report["models"]) == models and report["oracle"] is None
    for found in report["models"].values():
        assert found["num_tokens"] == 8 and found["entropy"]["num_trajectories"] == 2
        errors = found["factorisation_error"]
        assert list(errors) == ["2", "4"]
        assert list(errors["4"]["by_masks_left"]) == [
            "1",
            "4",
        ]  # the first block has one place of the response
        assert list(errors["2"]["by_masks_left"]) == ["1", "2", "4"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--tokens-per-step", "2", "8"], "tokens_per_step=8: more than a block has"),
        (["--tokens-per-step", "0"], "tokens_per_step=0: not positive"),
        (["--tokens-per-step", "2", "2"], "given twice"),
        (["--tokens-per-step"], "tokens_per_step=()"),
        (["--models"], "models=()"),
        (["--limit", "0"], "limit=0"),
        (["--block-size", "0"], "block_size=0"),
        (["--models", "no/such/folder/here"], "no such folder"),
        (["--output", "."], "output='.'"),
    ],
)
def test_bad_input_names_the_field_and_the_fix(records, flags, message, capsys):
    error = run_failing(["theory", "--trajectories", records, *flags], capsys)
    assert message in error and "Fix:" in error


def test_a_model_with_another_mask_is_refused(records, tmp_path, capsys):
    changed = [dataclasses.replace(one, mask_token_id=4) for one in read_trajectories(records)]
    path = tmp_path / "other.parquet"
    write_trajectories(path, changed)
    error = run_failing(["theory", "--trajectories", str(path), "--models", "mini"], capsys)
    assert "record 'a' has another mask token, or ids that mini has not" in error


def test_an_autoregressive_model_is_refused(records, tmp_path, capsys):
    save_source(tmp_path / "llama", "llama", plain_tokenizer())
    error = run_failing(
        ["theory", "--trajectories", records, "--models", str(tmp_path / "llama"), "--device", "cpu"], capsys
    )
    assert "predicts the next token, and fills no masks. Fix: adopt it first with t3d convert" in error


def test_records_of_a_task_that_lists_its_solutions_are_held_against_the_posterior(tmp_path, capsys):
    """Solutions themselves, one token per step: every state has solutions that agree with it."""
    records, output = tmp_path / "s.parquet", tmp_path / "t.json"
    made = [
        "data",
        "solutions",
        "--model",
        "mini",
        "--task",
        "chain",
        "--limit",
        "2",
        "--output",
        str(records),
    ]
    assert main(made) == 0
    assert main(["theory", "--trajectories", str(records), "--limit", "2", "--output", str(output)]) == 0
    assert "oracle" in capsys.readouterr().out
    for found in json.loads(output.read_text())["oracle"].values():
        assert found["num_unlisted"] == 0 and found["all"]["num_trajectories"] == 2
        assert found["all"]["mean"] > 0 and found["all"]["modes"] > 1
