"""SDAR as transformers classes."""

import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

import t3d
from t3d.models.sdar import SDARConfig, SDARForCausalLM


@pytest.mark.parametrize("tied", [False, True])
def test_a_saved_model_reloads_through_the_auto_classes(tmp_path, make_model, tied):
    """Importing t3d.models is enough; JetEngine, LMDeploy and SGLang look for these class names."""
    model = make_model(tie_word_embeddings=tied, block_size=8)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["SDARForCausalLM"]
    assert config["model_type"] == "sdar"
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64)
    assert type(loaded) is t3d.SDARForCausalLM
    assert (loaded.config.block_size, loaded.config.mask_token_id) == (8, 37)
    ids = torch.randint(0, 40, (2, 9))
    with torch.no_grad():
        assert torch.equal(loaded(input_ids=ids).logits, model(input_ids=ids).logits)


def test_the_auto_config_is_registered():
    config = AutoConfig.for_model("sdar")
    assert type(config) is SDARConfig
    assert (config.block_size, config.mask_token_id) == (4, None)


@pytest.mark.parametrize("tied", [False, True])
def test_weight_names_and_shapes_equal_qwen3s(make_model, tied):
    model = make_model(tie_word_embeddings=tied)
    fields = {
        key: value
        for key, value in model.config.to_dict().items()
        if key not in ("model_type", "architectures")
    }
    qwen3 = Qwen3ForCausalLM(Qwen3Config(**fields))
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in qwen3.state_dict().items()}


def test_the_inherited_forward_is_qwen3s(make_model):
    model = make_model()
    fields = {
        key: value
        for key, value in model.config.to_dict().items()
        if key not in ("model_type", "architectures")
    }
    qwen3 = Qwen3ForCausalLM(Qwen3Config(**fields)).double().eval()
    qwen3.load_state_dict(model.state_dict())
    ids = torch.randint(0, 40, (2, 7))
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, qwen3(input_ids=ids).logits)


def test_the_class_is_what_the_config_names():
    assert SDARForCausalLM.config_class is SDARConfig
