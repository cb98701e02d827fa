"""Settings that travel with a checkpoint: in its configs, kept by transformers, declared by exports."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from t3d.errors import InputError
from t3d.models.export import export_model
from t3d.models.loading import adopt_model, load_model, load_own_settings
from t3d.models.own_settings import set_own_settings
from t3d.models.placement import export_precision

STUDENT = {"block_size": 8, "steps_per_block": 2, "remasking": "low_confidence_static", "temperature": 0.0}


@pytest.fixture
def folder(tmp_path, checkpoint):
    """A copy of the checkpoint that a test may change."""
    shutil.copytree(checkpoint, tmp_path / "copy")
    return tmp_path / "copy"


def edit(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_the_block_size_of_a_config_is_the_checkpoints_own(folder):
    edit(folder / "config.json", block_size=16)
    assert load_own_settings(folder) == {"block_size": 16}
    assert load_model(folder, device="cpu").own_settings == {"block_size": 16}


def test_what_a_student_was_made_for_is_in_the_files_of_its_export_and_survives_transformers(
    folder, tmp_path
):
    """``save_pretrained`` of transformers keeps both configs, however often it is loaded and saved."""
    loaded = load_model(folder, device="cpu")
    set_own_settings(loaded.model, STUDENT)
    export_model(loaded, tmp_path / "student")
    config, generation = (
        json.loads((tmp_path / "student" / name).read_text())
        for name in ("config.json", "generation_config.json")
    )
    assert (config["block_size"], generation["block_diffusion"]) == (8, STUDENT)
    assert (
        generation["eos_token_id"]
        == json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    )
    source = tmp_path / "student"
    for number in range(2):
        model = AutoModelForCausalLM.from_pretrained(source)
        source = tmp_path / str(number)
        model.save_pretrained(source)
        loaded.tokenizer.save_pretrained(source)
        assert load_own_settings(source) == STUDENT
    assert adopt_model(model, loaded.tokenizer).own_settings == STUDENT


def test_a_student_of_a_student_carries_its_own_settings(folder, tmp_path):
    edit(folder / "config.json", block_size=8)
    edit(folder / "generation_config.json", block_diffusion=STUDENT)
    loaded = load_model(folder, device="cpu")
    export_model(loaded, tmp_path / "same")
    assert load_own_settings(tmp_path / "same") == STUDENT
    set_own_settings(loaded.model, {"block_size": 4, "steps_per_block": 1})
    export_model(loaded, tmp_path / "next")
    assert load_own_settings(tmp_path / "next") == {"block_size": 4, "steps_per_block": 1}


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ([8], r"block_diffusion=\[8\]: no object"),
        (
            {"block_size": 8},
            "block_size=8: in block_diffusion .* but 4 in its config.json. Fix: write the same",
        ),
    ],
)
def test_settings_that_contradict_each_other_or_are_none_are_refused(folder, told, message):
    edit(folder / "generation_config.json", block_diffusion=told)
    with pytest.raises(InputError, match=message):
        load_own_settings(folder)


def test_a_head_of_its_own_is_declared_whatever_the_config_of_the_base_says(folder, tmp_path):
    """transformers 4 ties what a config calls tied, and drops the head in the file."""
    edit(folder / "config.json", tie_word_embeddings=True)
    loaded = load_model(folder, device="cpu")
    assert "lm_head.weight" in load_file(folder / "model.safetensors")
    export_model(loaded, tmp_path / "export")
    assert json.loads((tmp_path / "export" / "config.json").read_text())["tie_word_embeddings"] is False
    again = load_model(tmp_path / "export", device="cpu").model
    assert torch.equal(again.lm_head.weight, loaded.model.lm_head.weight)
    assert not torch.equal(again.lm_head.weight, again.model.embed_tokens.weight)


def test_a_head_that_is_the_embedding_stays_declared_as_tied():
    assert load_model("mini-small", device="cpu").model.config.tie_word_embeddings is True


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_precision_of_the_files_is_known_in_whatever_a_model_is_loaded(folder, dtype):
    weights = {name: value.to(dtype) for name, value in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    edit(folder / "config.json", dtype=str(dtype).removeprefix("torch."))
    loaded = load_model(folder, device="cpu", dtype="float64")
    assert (loaded.model.dtype, loaded.checkpoint_dtype) == (torch.float64, dtype)


def test_a_student_is_written_in_16_bits_if_its_base_is():
    for half in (torch.bfloat16, torch.float16):
        assert export_precision(half, torch.float32) == torch.bfloat16
    for trained in (torch.bfloat16, torch.float32, torch.float64):
        assert export_precision(torch.float32, trained) == trained
