"""A run whose loss or weights leave the finite numbers: nothing of it is saved, scored or exported."""

import hashlib
import json
import math

import pytest
import torch
from command_helpers import run_failing
from safetensors.torch import load_file, save_file
from training_helpers import config, trainer
from transformers import TrainerCallback

from t3d.cli.main import main
from t3d.errors import InputError
from t3d.models.export import export_model
from t3d.models.loading import load_model
from t3d.training.trainer import T3DTrainer
from t3d.trajectory import write_trajectories
from t3d.work.checkpoints import DivergedError, checkpoints, newest_checkpoint


class PoisonAt(TrainerCallback):
    """Puts a NaN among the student's weights after an optimizer step."""

    def __init__(self, optimizer_step):
        self.optimizer_step = optimizer_step

    def on_optimizer_step(self, args, state, control, model, **kwargs):
        if state.global_step == self.optimizer_step - 1:  # it is counted afterwards
            poison(model)


@torch.no_grad()
def poison(model):
    model.lm_head.weight[0, 0] = math.nan


def is_finite(folder):
    return all(weight.isfinite().all() for weight in load_file(folder / "model.safetensors").values())


@pytest.fixture
def train(checkpoint, trajectories, tmp_path):
    """The command line of a run of two steps, the first at a rate of 0, into a folder."""
    path = tmp_path / "rollout.parquet"
    write_trajectories(path, trajectories)
    command = ["train", "--model", str(checkpoint), "--trajectories", str(path), "--device", "cpu"]
    command += ["--batch-size", "4", "--num-optimizer-steps", "2", "--warmup-steps", "1"]
    return lambda output, *flags: [*command, "--output", str(output), *flags]


def test_a_diverged_run_keeps_its_last_finite_checkpoint_and_names_a_way_out_that_works(
    train, tmp_path, capsys
):
    """A rate of 1e39 makes all float32 weights infinite in the second step."""
    cut, again = tmp_path / "cut", tmp_path / "again"
    command = train(cut, "--save-every", "1", "--learning-rate", "1e39")
    message = run_failing(command, capsys)
    kept = cut / "checkpoints" / "checkpoint-1"
    assert "not a finite number after 2 optimizer steps" in message
    assert f"the last checkpoint is kept ({kept})" in message
    assert "Fix: begin again with a lower learning_rate and another output." in message
    assert checkpoints(cut / "checkpoints") == [kept]
    assert is_finite(kept)
    assert not (cut / "student").exists()
    assert "holds the work of another run" in run_failing(train(cut, "--learning-rate", "1e-3"), capsys)
    assert main(train(again, "--learning-rate", "1e-3")) == 0
    assert is_finite(again / "student")


def test_a_diverged_run_without_a_checkpoint_exports_nothing(train, tmp_path, capsys):
    message = run_failing(train(tmp_path / "run", "--learning-rate", "1e39"), capsys)
    assert "no checkpoint was saved before" in message
    assert not (tmp_path / "run" / "student").exists()
    assert main(train(tmp_path / "run", "--learning-rate", "1e-3")) == 0  # here the same output does, too


def test_a_loss_that_is_not_finite_is_an_error_of_one_line(train, tmp_path, capsys):
    """At 1e30 the weights are large after the second step, and NaN after the third, which is not saved."""
    flags = ["--num-optimizer-steps", "4", "--save-every", "2", "--learning-rate", "1e30"]
    message = run_failing(train(tmp_path / "run", *flags), capsys)
    assert "training diverged: the loss is nan" in message
    assert "samples of this micro-batch" in message
    assert is_finite(newest_checkpoint(tmp_path / "run" / "checkpoints"))


def test_weights_that_are_not_finite_are_not_saved(checkpoint, trajectories, tmp_path):
    run = trainer(checkpoint, trajectories, tmp_path, save_strategy="steps", save_steps=1)
    run.add_callback(PoisonAt(3))
    with pytest.raises(DivergedError, match=r"lm_head\.weight is not a finite number after 3 optimizer"):
        run.train()
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-1", "checkpoint-2"]


@pytest.mark.parametrize("fields", [{"eval_strategy": "steps", "eval_steps": 1}, {}])
def test_a_student_with_nan_is_never_scored_nor_made_the_reference(
    checkpoint, trajectories, tmp_path, fields
):
    loaded = load_model(checkpoint, device="cpu", dtype="float64")
    calls = []

    def score(student):
        calls.append(student)
        return {"few_step_accuracy": 50.0}

    settings = config(tmp_path, reference_choice="best", refresh_every=1, **fields)
    run = T3DTrainer(loaded.model, settings, trajectories, loaded.tokenizer, score)
    run.add_callback(PoisonAt(2))
    with pytest.raises(DivergedError, match="after 2 optimizer steps"):
        run.train()
    assert len(calls) == 2  # untouched, and after the first step
    with run.reference.active() as reference:
        assert reference.lm_head.weight.isfinite().all()


def test_a_score_that_is_no_number_is_refused(checkpoint, trajectories, tmp_path):
    """It would be the best one for ever: nothing is greater than NaN."""
    loaded = load_model(checkpoint, device="cpu", dtype="float64")
    settings = config(tmp_path, reference_choice="best")
    run = T3DTrainer(
        loaded.model, settings, trajectories, loaded.tokenizer, lambda _: {"few_step_accuracy": math.nan}
    )
    with pytest.raises(InputError, match="evaluator=nan"):
        run.train()


def test_a_checkpoint_of_an_earlier_version_with_nan_is_named_and_the_one_before_it_continues(
    checkpoint, trajectories, tmp_path
):
    fields = {"save_strategy": "steps", "save_steps": 1}
    trainer(checkpoint, trajectories, tmp_path, **fields, max_steps=3).train()
    broken = newest_checkpoint(tmp_path)
    path, files = broken / "model.safetensors", broken / "files.json"
    weights = load_file(path)
    weights["lm_head.weight"][0, 0] = math.nan
    save_file(weights, path, {"format": "pt"})
    digests = json.loads(files.read_text()) | {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}
    files.write_text(json.dumps(digests))
    for max_steps in (3, 4):  # a finished run, and one to be continued
        with pytest.raises(InputError, match=r"not a finite number\. Fix: delete .*checkpoint-3;"):
            trainer(checkpoint, trajectories, tmp_path, **fields, max_steps=max_steps).train_from(broken)
    broken.rename(tmp_path / "removed")
    trainer(checkpoint, trajectories, tmp_path, **fields).train_from(newest_checkpoint(tmp_path))
    assert newest_checkpoint(tmp_path).name == "checkpoint-4"
    assert is_finite(newest_checkpoint(tmp_path))


def test_a_finished_student_of_an_earlier_version_with_nan_is_refused(train, tmp_path, capsys):
    command = train(tmp_path / "run", "--learning-rate", "1e-3")
    assert main(command) == 0
    path = tmp_path / "run" / "student" / "model.safetensors"
    weights = load_file(path)
    weights["lm_head.weight"][0, 0] = math.nan
    save_file(weights, path, {"format": "pt"})
    record = path.with_name("training.json")
    record.write_text(json.dumps(json.loads(record.read_text())["plan"]))  # it had no digests of the files
    message = run_failing(command, capsys)
    assert "its weight lm_head.weight is not a finite number. Fix: delete it" in message


def test_an_export_of_weights_that_are_not_finite_is_refused(checkpoint, tmp_path):
    loaded = load_model(checkpoint, device="cpu")
    poison(loaded.model)
    with pytest.raises(InputError, match=r"weight lm_head\.weight is not a finite number"):
        export_model(loaded, tmp_path / "export")
    assert not (tmp_path / "export").exists()
