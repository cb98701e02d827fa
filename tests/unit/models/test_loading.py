"""Loading a checkpoint, and what is said when it cannot be loaded."""

import hashlib
import json
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, Qwen3Config, Qwen3ForCausalLM

from t3d.errors import InputError
from t3d.models.loading import export_model, load_model, resolve_device, tokenizer_hash


@pytest.fixture
def copy_of(tmp_path, checkpoint):
    """A copy of the checkpoint that a test may break."""
    folder = tmp_path / "copy"
    shutil.copytree(checkpoint, folder)
    return folder


def edit_json(path, **changes):
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def test_a_checkpoint_loads_with_its_ids(checkpoint, tiny_tokenizer):
    loaded = load_model(checkpoint, device="cpu")
    assert loaded.mask_token_id == tiny_tokenizer.mask_token_id
    assert loaded.stop_token_ids == (tiny_tokenizer.eos_token_id,)
    assert loaded.source == str(checkpoint)
    assert not loaded.model.training
    assert loaded.model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_the_dtype_is_the_asked_one(checkpoint, dtype):
    loaded = load_model(checkpoint, device="cpu", dtype=dtype)
    assert {weight.dtype for weight in loaded.model.parameters()} == {getattr(torch, dtype)}


def test_loaded_weights_equal_the_saved_ones(checkpoint):
    raw = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).state_dict()
    loaded = load_model(checkpoint, device="cpu").model.state_dict()
    assert raw.keys() == loaded.keys()
    assert all(torch.equal(raw[name], loaded[name]) for name in raw)


def test_the_weights_hash_follows_the_weights(checkpoint, copy_of):
    assert load_model(copy_of, device="cpu").weights_hash == load_model(checkpoint, device="cpu").weights_hash
    model = load_model(copy_of, device="cpu").model
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1
    model.save_pretrained(copy_of)
    assert load_model(copy_of, device="cpu").weights_hash != load_model(checkpoint, device="cpu").weights_hash


def test_the_identity_is_the_folders_content_and_follows_config_and_chat_template(copy_of, checkpoint):
    original = load_model(checkpoint, device="cpu").identity()
    assert json.loads(json.dumps(original)) == original
    assert load_model(copy_of, device="cpu").identity() == original
    template = copy_of / "chat_template.jinja"
    template.write_text(template.read_text() + "!")
    edit_json(copy_of / "config.json", rms_norm_eps=0.5)
    changed = load_model(copy_of, device="cpu").identity()
    assert {name for name in original if changed[name] != original[name]} == {"config", "chat_template"}


def test_weights_that_no_hash_covers_are_refused(copy_of):
    weights = load_model(copy_of, device="cpu").model.state_dict()
    (copy_of / "model.safetensors").unlink()
    torch.save(weights, copy_of / "pytorch_model.bin")
    with pytest.raises(InputError, match="its weights as safetensors"):
        load_model(copy_of, device="cpu")


def test_the_tokenizer_hash_follows_its_definition(checkpoint, tiny_tokenizer):
    loaded = load_model(checkpoint, device="cpu")
    whole = tiny_tokenizer.backend_tokenizer.to_str()
    assert (
        loaded.tokenizer_hash == tokenizer_hash(tiny_tokenizer) == hashlib.sha256(whole.encode()).hexdigest()
    )


def test_stop_ids_come_from_the_generation_config(copy_of, tiny_tokenizer):
    """As in SDAR-Chat: eos_token_id is a list there and holds the end of a turn as well."""
    turn_end = tiny_tokenizer.convert_tokens_to_ids("<|im_end|>")
    eos = tiny_tokenizer.eos_token_id
    (copy_of / "generation_config.json").write_text(json.dumps({"eos_token_id": [turn_end, eos]}))
    assert load_model(copy_of, device="cpu").stop_token_ids == tuple(sorted({turn_end, eos}))


def test_the_mask_id_comes_from_the_config_if_the_tokenizer_names_none(copy_of):
    edit_json(copy_of / "tokenizer_config.json", mask_token=None)
    edit_json(copy_of / "config.json", mask_token_id=11)
    assert load_model(copy_of, device="cpu").mask_token_id == 11


def test_a_model_without_a_mask_token_is_refused(copy_of):
    edit_json(copy_of / "tokenizer_config.json", mask_token=None)
    edit_json(copy_of / "config.json", mask_token_id=None)
    with pytest.raises(InputError, match="neither tokenizer nor config names a mask token"):
        load_model(copy_of, device="cpu")


def test_code_in_a_checkpoint_is_never_run(copy_of, tmp_path):
    """SDAR's published checkpoints carry modeling code and an ``auto_map`` that points to it."""
    witness = tmp_path / "code-has-run"
    for name in ("modeling_sdar", "configuration_sdar"):
        (copy_of / f"{name}.py").write_text(f"open({str(witness)!r}, 'w').close()\nraise SystemExit('ran')\n")
    auto_map = {
        "AutoConfig": "configuration_sdar.SDARConfig",
        "AutoModel": "modeling_sdar.SDARModel",
        "AutoModelForCausalLM": "modeling_sdar.SDARForCausalLM",
    }
    edit_json(copy_of / "config.json", auto_map=auto_map)
    load_model(copy_of, device="cpu")
    assert not witness.exists()


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match="no such folder") as caught:
        load_model(tmp_path / "nowhere")
    assert caught.value.value == str(tmp_path / "nowhere")


def test_a_folder_without_a_config_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no config\.json"):
        load_model(tmp_path)


def test_a_broken_config_is_named(copy_of):
    (copy_of / "config.json").write_text("{")
    with pytest.raises(InputError, match="its config cannot be read"):
        load_model(copy_of)


@pytest.mark.parametrize("architecture", ["qwen3", "gpt2"])
def test_another_architecture_is_refused(tmp_path, architecture):
    if architecture == "qwen3":
        sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "vocab_size": 8}
        heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "pad_token_id": 0}
        Qwen3ForCausalLM(Qwen3Config(**sizes, **heads)).save_pretrained(tmp_path)
    else:
        ids = {"bos_token_id": 0, "eos_token_id": 0}
        GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=8, **ids)).save_pretrained(
            tmp_path
        )
    with pytest.raises(InputError, match=f"{architecture}.*not a block-diffusion model"):
        load_model(tmp_path)


def test_missing_weights_are_named(copy_of):
    (copy_of / "model.safetensors").unlink()
    with pytest.raises(InputError, match="cannot be loaded"):
        load_model(copy_of, device="cpu")


def test_a_truncated_weights_file_is_an_input_error(copy_of):
    """What an interrupted download leaves behind."""
    weights = copy_of / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"model\.safetensors.*truncated or damaged"):
        load_model(copy_of, device="cpu")


def test_weights_of_another_depth_are_refused(copy_of, make_model, tiny_tokenizer):
    """A layer without weights would decode noise."""
    config = json.loads((copy_of / "config.json").read_text())
    layers = config["num_hidden_layers"] + 1
    edit_json(copy_of / "config.json", num_hidden_layers=layers, layer_types=["full_attention"] * layers)
    with pytest.raises(InputError, match="do not fit the network"):
        load_model(copy_of, device="cpu")


def test_weights_of_another_width_are_refused(copy_of):
    edit_json(copy_of / "config.json", intermediate_size=64)
    with pytest.raises(InputError, match="model="):
        load_model(copy_of, device="cpu")


def test_a_missing_tokenizer_is_an_input_error(copy_of):
    for file in copy_of.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(InputError, match="model="):
        load_model(copy_of, device="cpu")


def test_an_unknown_dtype_names_the_known_ones(checkpoint):
    with pytest.raises(InputError, match="float64, float32, bfloat16"):
        load_model(checkpoint, dtype="float8")


@pytest.mark.parametrize("device", ["nonsense", "cpu:x"])
def test_an_unknown_device_is_an_input_error(device):
    with pytest.raises(InputError, match="not usable here"):
        resolve_device(device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is there")
def test_cuda_that_is_not_there_is_an_input_error():
    assert resolve_device("auto").type == "cpu"
    with pytest.raises(InputError, match="device='cuda'"):
        resolve_device("cuda")


def test_an_export_loads_like_its_base_and_carries_its_files(copy_of, tmp_path):
    (copy_of / "modeling_sdar.py").write_text("# the base's own code\n")
    loaded = load_model(copy_of, device="cpu")
    with torch.no_grad():
        loaded.model.lm_head.weight.mul_(2)
    export_model(loaded, tmp_path / "export")
    again = load_model(tmp_path / "export", device="cpu")
    assert torch.equal(again.model.lm_head.weight, loaded.model.lm_head.weight)
    assert again.weights_hash != loaded.weights_hash
    assert again.tokenizer_hash == loaded.tokenizer_hash
    for name in ("modeling_sdar.py", "tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (tmp_path / "export" / name).read_bytes() == (copy_of / name).read_bytes()
    config = json.loads((tmp_path / "export" / "config.json").read_text())
    assert (config["model_type"], config["architectures"]) == ("sdar", ["SDARForCausalLM"])


def test_an_export_keeps_the_auto_map_of_its_base(copy_of, tmp_path):
    """JetEngine loads the config with the base's remote code, which ``auto_map`` names."""
    auto_map = {"AutoConfig": "configuration_sdar.SDARConfig"}
    edit_json(copy_of / "config.json", auto_map=auto_map)
    export_model(load_model(copy_of, device="cpu"), tmp_path / "export")
    assert json.loads((tmp_path / "export" / "config.json").read_text()).get("auto_map") == auto_map


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/folder", "a/b/c", "~/model", "..", "runs/nowhere"])
def test_a_missing_folder_is_named_without_asking_the_hub(name, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "runs" if name == ".." else tmp_path)
    monkeypatch.setattr(
        "t3d.models.loading.AutoConfig.from_pretrained", lambda *_: pytest.fail("asked the hub")
    )
    with pytest.raises(InputError, match=r"no such folder|no config"):
        load_model(name)
