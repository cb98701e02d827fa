"""Pretraining of the mini teacher: it learns, continues after a cut, and writes a loadable checkpoint."""

import json
import shutil

import pytest
import torch
from transformers import TrainerCallback

from t3d.errors import InputError
from t3d.mini import pretrain as module
from t3d.mini.pretrain import StreamDataset, pretrain
from t3d.mini.pretrain_config import PretrainConfig
from t3d.models.loading import load_model
from t3d.tasks.mini.suite import TASKS
from t3d.tasks.mini.tokenizer import mini_tokenizer

SMALL = {
    "batch_size": 8,
    "hidden_size": 32,
    "num_layers": 1,
    "num_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 48,
    "warmup_steps": 2,
    "bf16": False,
    "show_progress": False,
}


class Killed(Exception):
    """Stands for a kill."""


def test_cut_pretraining_continues_to_the_same_weights(tmp_path, monkeypatch):
    settings = {**SMALL, "num_optimizer_steps": 8, "save_every": 4}
    whole = load_model(pretrain(PretrainConfig(output=str(tmp_path / "whole"), **settings)), device="cpu")

    class KillAtStepSix(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 6:
                raise Killed

    class KilledTrainer(module.PretrainTrainer):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, callbacks=[KillAtStepSix()], **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(module, "PretrainTrainer", KilledTrainer)
        with pytest.raises(Killed):
            pretrain(PretrainConfig(output=str(tmp_path / "cut"), **settings))
    assert not (tmp_path / "cut" / "teacher").exists()
    resumed = load_model(pretrain(PretrainConfig(output=str(tmp_path / "cut"), **settings)), device="cpu")
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_loss_falls_and_the_card_names_the_weights(tmp_path):
    settings = {**SMALL, "num_optimizer_steps": 60, "learning_rate": 1e-2}
    folder = pretrain(PretrainConfig(output=str(tmp_path), **settings))
    lines = [json.loads(line) for line in (folder / "pretrain_log.jsonl").read_text().splitlines()]
    losses = [float(line["loss"]) for line in lines if "loss" in line]
    assert losses[-1] < 0.8 * losses[0]
    assert load_model(folder, device="cpu").weights_hash
    card = (folder / "README.md").read_text()
    assert all(task in card for task in TASKS)


def test_checkpoints_of_other_settings_are_not_continued(tmp_path):
    settings = {**SMALL, "num_optimizer_steps": 2, "output": str(tmp_path)}
    pretrain(PretrainConfig(**settings, save_every=2))
    with pytest.raises(InputError, match=r"learning_rate was 0\.003, now 0\.01"):
        pretrain(PretrainConfig(**settings, save_every=2, learning_rate=0.01))


def test_examples_are_of_every_task_in_its_share_and_a_function_of_seed_and_index():
    tokenizer, sizes = mini_tokenizer(), {"num_optimizer_steps": 60, "batch_size": 10, "output": "unused"}
    config = PretrainConfig(**sizes, seed=3, task_shares=(0.2, 0.5, 0.3))
    data, again = (StreamDataset(config, tokenizer) for _ in range(2))
    assert data[17] == again[17] != StreamDataset(PretrainConfig(**sizes, seed=4), tokenizer)[17]
    assert len(data) == 600
    first_words = ("First", "Take", "def")  # chain, make, code
    responses = [tokenizer.decode(data[index].response_ids) for index in range(600)]
    for word, expected in zip(first_words, config.task_shares, strict=True):
        share = sum(response.startswith(word) for response in responses) / len(responses)
        assert share == pytest.approx(expected, abs=0.08)


def test_a_second_stage_starts_from_the_given_weights_and_refuses_another_network(tmp_path):
    settings = {**SMALL, "num_optimizer_steps": 2}
    first = pretrain(PretrainConfig(output=str(tmp_path / "first"), **settings))
    unmoved = {**settings, "start_from": str(first), "learning_rate": 0.0}
    second = pretrain(PretrainConfig(output=str(tmp_path / "second"), **unmoved))
    before, after = (load_model(folder, device="cpu").model.state_dict() for folder in (first, second))
    assert all(torch.equal(before[name], after[name]) for name in before)
    stages = json.loads((second / "pretrain.json").read_text())["stages"]
    assert [stage["plan"]["start_from"] for stage in stages] == [None, load_model(first).weights_hash]
    log = [json.loads(line) for line in (second / "pretrain_log.jsonl").read_text().splitlines()]
    assert {entry["stage"] for entry in log} == {1, 2}
    assert "Stage 2" in (second / "README.md").read_text()
    wider = {**unmoved, "hidden_size": 64}
    with pytest.raises(InputError, match="its network has other sizes"):
        pretrain(PretrainConfig(output=str(tmp_path / "third"), **wider))


def test_a_finished_run_is_returned_as_it_is_and_never_overwritten(tmp_path):
    settings = {**SMALL, "num_optimizer_steps": 2, "output": str(tmp_path)}
    folder = pretrain(PretrainConfig(**settings))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert pretrain(PretrainConfig(**settings)) == folder
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    shutil.rmtree(tmp_path / "checkpoints")
    with pytest.raises(InputError, match="holds a teacher that other settings made"):
        pretrain(PretrainConfig(**settings, seed=1))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_the_teacher_s_config_does_not_keep_what_training_changed(tmp_path):
    folder = pretrain(PretrainConfig(output=str(tmp_path), **SMALL, num_optimizer_steps=1))
    assert load_model(folder, device="cpu").model.config.use_cache is True
