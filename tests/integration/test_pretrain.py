"""Pretraining of the mini teacher: it learns, continues after a cut, and writes a loadable checkpoint."""

import json

import pytest
import torch
from transformers import TrainerCallback

from t3d.errors import InputError
from t3d.mini import pretrain as module
from t3d.mini.pretrain import TASK_SHARES, PretrainConfig, StreamDataset, pretrain
from t3d.mini.tasks import TASKS, mini_tokenizer
from t3d.models.loading import load_model

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
    tokenizer = mini_tokenizer()
    data, again = (StreamDataset(tokenizer, 600, seed=3) for _ in range(2))
    assert data[17] == again[17] != StreamDataset(tokenizer, 600, seed=4)[17]
    first_words = {"chain": "First", "make": "Take", "code": "def"}
    responses = [tokenizer.decode(data[index].response_ids) for index in range(600)]
    for task, word in first_words.items():
        share = sum(response.startswith(word) for response in responses) / len(responses)
        assert share == pytest.approx(TASK_SHARES[task], abs=0.08)
