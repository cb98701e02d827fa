"""``t3d train --accelerate-config fsdp2``: processes share the weights, and train what one process does."""

import json
import shutil

import pytest
import torch
from launched_helpers import (
    EVERY_STEP,
    TWO,
    assert_evaluated_while_trained,
    assert_trained_alike,
    entries,
    started,
    training_command,
)

from t3d import LLM, DecodeParams
from t3d.cli.main import main

CAN_SHARD = torch.distributed.is_gloo_available() and torch.accelerator.current_accelerator() is None
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),  # of up to three commands of two processes, on cores that are shared
    pytest.mark.skipif(not CAN_SHARD, reason="needs gloo, and a PyTorch that is built for CPUs only"),
]
SHARED = [*TWO, "--accelerate-config", "fsdp2"]


@pytest.fixture
def tied(tmp_path, make_model, tiny_tokenizer):
    """A checkpoint whose head is its embedding."""
    names = ("mask_token_id", "eos_token_id", "pad_token_id")
    ids = {"vocab_size": len(tiny_tokenizer)} | {name: getattr(tiny_tokenizer, name) for name in names}
    make_model(tie_word_embeddings=True, **ids).save_pretrained(tmp_path / "tied")
    tiny_tokenizer.save_pretrained(tmp_path / "tied")
    return tmp_path / "tied"


def assert_shared(run):
    """Half of all weights were in the first process: each is a DTensor, a part of which is here."""
    assert entries(run)[0]["share_of_weights"] == 0.5


def test_shared_weights_are_trained_exported_and_resumed_as_whole_ones(checkpoint, trajectories, tmp_path):
    command = training_command(checkpoint, trajectories, tmp_path)
    alone, run = tmp_path / "alone", tmp_path / "run"
    assert main([*command, str(alone), *EVERY_STEP]) == 0
    command = [*command, str(run), *EVERY_STEP, *SHARED, "--save-every", "2"]
    started(command)
    assert_shared(run)
    assert_trained_alike(run, alone, checkpoint)
    texts = []
    for folder in (alone, run):
        llm = LLM(folder / "student", device="cpu")
        params = DecodeParams(temperature=0.0, max_new_tokens=12)
        texts.append([c.response_ids for c in llm.generate([[5, 9, 11], [7]], params, progress=False)])
        assert json.loads((folder / "student" / "config.json").read_text())["architectures"] == [
            "SDARForCausalLM"
        ]
    assert texts[0] == texts[1]
    for lost in ([], ["checkpoints/checkpoint-5"]):  # killed before the export; and one step earlier
        for name in ("student", *lost):
            shutil.rmtree(run / name)
        started(command)
        assert_trained_alike(run, alone, checkpoint)


def test_a_tied_head_and_accumulated_batches_are_those_of_one_process(tied, trajectories, tmp_path):
    command = training_command(tied, trajectories, tmp_path)
    assert main([*command, str(tmp_path / "alone"), *EVERY_STEP]) == 0
    started([*command, str(tmp_path / "run"), *EVERY_STEP, *SHARED, "--gradient-accumulation-steps", "2"])
    assert_shared(tmp_path / "run")
    assert_trained_alike(tmp_path / "run", tmp_path / "alone", tied)


def test_an_adapter_is_merged_into_shared_weights(checkpoint, trajectories, tmp_path):
    command = [*training_command(checkpoint, trajectories, tmp_path)]
    adapter = [*EVERY_STEP, "--lora-rank", "4"]
    assert main([*command, str(tmp_path / "alone"), *adapter]) == 0
    started([*command, str(tmp_path / "run"), *adapter, *SHARED])
    assert_shared(tmp_path / "run")
    assert_trained_alike(tmp_path / "run", tmp_path / "alone", checkpoint)


def test_shared_weights_are_evaluated_before_and_while_they_are_trained(checkpoint, trajectories, tmp_path):
    assert_evaluated_while_trained(training_command(checkpoint, trajectories, tmp_path), tmp_path, SHARED)
