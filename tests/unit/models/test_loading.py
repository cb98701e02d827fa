"""Loading a checkpoint, and what is said when it cannot be loaded."""

import copy
import hashlib
import json
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    Qwen3Config,
    Qwen3ForCausalLM,
    dynamic_module_utils,
)

from t3d.errors import InputError
from t3d.model_choice import BUNDLED_MODELS
from t3d.models.export import export_model
from t3d.models.loading import adopt_model, load_model, told_identity
from t3d.models.placement import DTYPES, resolve_device, resolve_dtype
from t3d.models.sdar import BY_ARGUMENT, SDARConfig
from t3d.models.token_ids import tokenizer_hash


@pytest.fixture
def cpu_with_bfloat16(monkeypatch):
    """Pretend that the processor has, or has not, arithmetic for bfloat16."""

    def pretend(has_bfloat16):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_bfloat16)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)

    return pretend


@pytest.fixture
def moe(make_moe_model, tiny_tokenizer):
    """A mixture of 4 experts with the ids of the tiny tokenizer, float32."""
    ids = {name: getattr(tiny_tokenizer, name) for name in ("mask_token_id", "eos_token_id", "pad_token_id")}
    return make_moe_model(dtype=torch.float32, vocab_size=len(tiny_tokenizer), **ids)


@pytest.fixture
def moe_checkpoint(tmp_path, moe, tiny_tokenizer):
    """A folder of it."""
    moe.save_pretrained(tmp_path / "moe")
    tiny_tokenizer.save_pretrained(tmp_path / "moe")
    return tmp_path / "moe"


@torch.no_grad()
def logits_of(model):
    """Of a few tokens under the inherited causal mask."""
    return model(input_ids=torch.arange(24).view(2, 12)).logits


def edit_json(path, **changes):
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def test_a_checkpoint_loads_with_its_ids(checkpoint, tiny_tokenizer):
    loaded = load_model(checkpoint, device="cpu")
    assert loaded.mask_token_id == tiny_tokenizer.mask_token_id
    assert loaded.stop_token_ids == (tiny_tokenizer.eos_token_id,)
    assert loaded.source == str(checkpoint)
    assert not loaded.model.training
    assert loaded.model.config._attn_implementation == BY_ARGUMENT


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_the_dtype_is_the_asked_one(checkpoint, dtype):
    loaded = load_model(checkpoint, device="cpu", dtype=dtype)
    assert {weight.dtype for weight in loaded.model.parameters()} == {getattr(torch, dtype)}


@pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
@pytest.mark.parametrize(
    ("own", "loaded_as"),
    [
        ("float32", "float32"),
        ("float64", "float64"),
        ("bfloat16", "bfloat16"),
        ("float16", "bfloat16"),
        (None, "float32"),
    ],
)
def test_dtype_auto_is_the_checkpoints_own(copy_of, cpu_with_bfloat16, name, own, loaded_as):
    """Under the name of transformers 5 and of 4; 16 bits are bfloat16, and none named is float32."""
    cpu_with_bfloat16(True)
    edit_json(copy_of / "config.json", **({"dtype": None, "torch_dtype": None} | {name: own}))
    weights = load_model(copy_of, device="cpu", dtype="auto").model.parameters()
    assert {weight.dtype for weight in weights} == {getattr(torch, loaded_as)}


@pytest.mark.parametrize("own", ["bfloat16", "float16"])
def test_a_cpu_without_bfloat16_takes_float32_unless_told_otherwise(copy_of, cpu_with_bfloat16, own):
    cpu_with_bfloat16(False)
    edit_json(copy_of / "config.json", dtype=own)
    assert load_model(copy_of, device="cpu", dtype="auto").model.dtype == torch.float32
    assert load_model(copy_of, device="cpu", dtype="bfloat16").model.dtype == torch.bfloat16


@pytest.mark.parametrize("has_bfloat16", [True, False])
def test_what_the_cpu_lacks_does_not_concern_a_gpu(cpu_with_bfloat16, has_bfloat16):
    cpu_with_bfloat16(has_bfloat16)
    config = SDARConfig(dtype="bfloat16")
    config.dtype = torch.bfloat16  # as it is in the config of a folder
    on_cpu, on_gpu = (resolve_dtype("auto", config, torch.device(name)) for name in ("cpu", "cuda"))
    assert on_gpu == torch.bfloat16
    assert on_cpu == (torch.bfloat16 if has_bfloat16 else torch.float32)


@pytest.mark.parametrize("name", DTYPES)
def test_a_dtype_that_is_named_is_taken_whatever_the_checkpoints(name):
    config = SDARConfig()
    for config.dtype in (torch.float64, torch.bfloat16, None):
        assert resolve_dtype(name, config, torch.device("cpu")) == getattr(torch, name)


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


@pytest.mark.parametrize("source", ["checkpoint", "mini"])
def test_files_tell_the_identity_of_a_model_that_is_not_loaded(checkpoint, source):
    source = checkpoint if source == "checkpoint" else source
    assert told_identity(source).items() <= load_model(source, device="cpu").identity().items()


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


def test_another_architecture_is_refused(tmp_path):
    ids = {"bos_token_id": 0, "eos_token_id": 0}
    GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=8, **ids)).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"gpt2.*not a block-diffusion model"):
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
    with pytest.raises(InputError, match=r"^num_hidden_layers=3: .*: its weights have 2"):
        load_model(copy_of, device="cpu")


def test_weights_that_lack_one_are_refused(copy_of):
    """It would be drawn at random."""
    weights = load_file(copy_of / "model.safetensors")
    del weights["model.layers.0.mlp.up_proj.weight"]
    save_file(weights, copy_of / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"do not fit the network: model\.layers\.0\.mlp\.up_proj\.weight"):
        load_model(copy_of, device="cpu")


def test_a_missing_tokenizer_is_an_input_error(copy_of):
    for file in copy_of.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(InputError, match="model="):
        load_model(copy_of, device="cpu")


def test_an_unknown_dtype_names_the_known_ones(checkpoint):
    with pytest.raises(InputError) as caught:
        load_model(checkpoint, dtype="float8")
    fix = "use one of auto, float64, float32, bfloat16"
    assert str(caught.value) == f"dtype='float8': not known. Fix: {fix}."


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
    for name in ("modeling_sdar.py", "tokenizer.json", "generation_config.json"):
        assert (tmp_path / "export" / name).read_bytes() == (copy_of / name).read_bytes()
    config = json.loads((tmp_path / "export" / "config.json").read_text())
    assert (config["model_type"], config["architectures"]) == ("sdar", ["SDARForCausalLM"])


def test_the_tokenizer_of_an_export_has_a_class_and_names_that_transformers_4_knows(copy_of, tmp_path):
    """It has no ``TokenizersBackend``, and takes a list of ``extra_special_tokens`` for a mapping."""
    saved = json.loads((copy_of / "tokenizer_config.json").read_text())
    assert saved["tokenizer_class"] == "TokenizersBackend", "as transformers 5 saves it"
    loaded = load_model(copy_of, device="cpu")
    export_model(loaded, tmp_path / "export")
    config = json.loads((tmp_path / "export" / "tokenizer_config.json").read_text())
    assert config.pop("tokenizer_class") == "PreTrainedTokenizerFast"
    assert config.pop("additional_special_tokens") == saved["extra_special_tokens"]
    assert config == {name: value for name, value in saved.items() if name in config}
    again = load_model(tmp_path / "export", device="cpu").tokenizer
    assert again.all_special_tokens == loaded.tokenizer.all_special_tokens
    assert again.special_tokens_map == loaded.tokenizer.special_tokens_map


def test_a_tokenizer_config_of_transformers_4_is_exported_as_it_is(copy_of, tmp_path):
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|endoftext|>",
        "mask_token": "<|MASK|>",
    }
    (copy_of / "tokenizer_config.json").write_text(json.dumps(config, indent=4))
    export_model(load_model(copy_of, device="cpu"), tmp_path / "export")
    copied = (tmp_path / "export" / "tokenizer_config.json").read_bytes()
    assert copied == (copy_of / "tokenizer_config.json").read_bytes()


@pytest.mark.parametrize("folder", BUNDLED_MODELS.values(), ids=list(BUNDLED_MODELS))
def test_the_tokenizer_of_a_bundled_teacher_has_a_class_that_transformers_4_knows(folder):
    config = json.loads((folder / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert "extra_special_tokens" not in config


def test_the_code_of_its_base_can_be_loaded_from_an_export(copy_of, tmp_path, monkeypatch):
    """SDAR's modeling file imports ``fused_linear_diffusion_cross_entropy.py`` from beside it."""
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    (copy_of / "modeling_sdar.py").write_text("from .fused_loss import Fused\n\nclass Own(Fused): pass\n")
    (copy_of / "fused_loss.py").write_text("class Fused: pass\n")
    export_model(load_model(copy_of, device="cpu"), tmp_path / "export")
    for folder in (copy_of, tmp_path / "export"):
        own = dynamic_module_utils.get_class_from_dynamic_module("modeling_sdar.Own", str(folder))
        assert own.__mro__[1].__name__ == "Fused"


def test_an_export_keeps_the_auto_map_of_its_base(copy_of, tmp_path):
    """JetEngine loads the config with the base's remote code, which ``auto_map`` names."""
    auto_map = {"AutoConfig": "configuration_sdar.SDARConfig"}
    edit_json(copy_of / "config.json", auto_map=auto_map)
    export_model(load_model(copy_of, device="cpu"), tmp_path / "export")
    assert json.loads((tmp_path / "export" / "config.json").read_text()).get("auto_map") == auto_map


@pytest.mark.parametrize(
    "name", ["./nowhere", "/no/such/folder", "a/b/c", "~/model", "..", "runs/nowhere", "nowhere"]
)
def test_a_missing_folder_is_named_without_asking_the_hub(name, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "runs" if name == ".." else tmp_path)
    monkeypatch.setattr("t3d.models.checkpoint.hf_hub_download", lambda *_: pytest.fail("asked the hub"))
    with pytest.raises(InputError, match=r"no such folder|no config"):
        load_model(name)


# --- mixtures of experts ------------------------------------------------------------------------------


def test_a_mixture_of_experts_is_saved_with_a_matrix_for_each_expert(moe, moe_checkpoint):
    """The names and shapes of SDAR-30B-A3B's files; in the network all experts are one tensor."""
    saved = load_file(moe_checkpoint / "model.safetensors")
    network = dict(moe.named_parameters())
    expected = {name: value for name, value in network.items() if ".experts." not in name}
    for layer in range(2):
        block = f"model.layers.{layer}.mlp.experts"
        for expert in range(4):
            gate, up = network[f"{block}.gate_up_proj"][expert].chunk(2)
            expected[f"{block}.{expert}.gate_proj.weight"] = gate
            expected[f"{block}.{expert}.up_proj.weight"] = up
            expected[f"{block}.{expert}.down_proj.weight"] = network[f"{block}.down_proj"][expert]
    assert saved.keys() == expected.keys()
    assert all(torch.equal(saved[name], expected[name]) for name in saved)
    assert json.loads((moe_checkpoint / "config.json").read_text())["model_type"] == "sdar_moe"


def test_a_mixture_of_experts_and_its_export_load_with_the_same_logits(moe, moe_checkpoint, tmp_path):
    loaded = load_model(moe_checkpoint, device="cpu")
    export_model(loaded, tmp_path / "export")
    again = load_model(tmp_path / "export", device="cpu")
    assert torch.equal(logits_of(loaded.model), logits_of(moe))
    assert torch.equal(logits_of(again.model), logits_of(moe))
    saved, exported = (
        load_file(folder / "model.safetensors") for folder in (moe_checkpoint, tmp_path / "export")
    )
    assert exported.keys() == saved.keys()
    assert again.tokenizer_hash == loaded.tokenizer_hash


def test_a_mixture_of_experts_loads_under_the_config_names_of_transformers_4(moe, moe_checkpoint):
    """As SDAR-30B-A3B was published."""
    path = moe_checkpoint / "config.json"
    rope = json.loads(path.read_text())["rope_parameters"]["rope_theta"]
    edit_json(path, num_local_experts=None, num_experts=4, rope_parameters=None, rope_theta=rope)
    loaded = load_model(moe_checkpoint, device="cpu")
    assert loaded.model.config.num_experts == 4
    assert torch.equal(logits_of(loaded.model), logits_of(moe))


def test_an_export_has_the_config_names_of_transformers_4_as_well(moe_checkpoint, tmp_path):
    """The base's own code reads these and would fall back on 128 experts and another rope."""
    loaded = load_model(moe_checkpoint, device="cpu")
    export_model(loaded, tmp_path / "export")
    config = json.loads((tmp_path / "export" / "config.json").read_text())
    assert (config["num_experts"], config["num_experts_per_tok"]) == (4, 2)
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"]
    assert config["torch_dtype"] == config["dtype"] == "float32"


def test_weights_for_another_number_of_experts_are_refused(moe_checkpoint):
    edit_json(moe_checkpoint / "config.json", num_local_experts=5)
    with pytest.raises(InputError, match="model="):
        load_model(moe_checkpoint, device="cpu")


# --- models in memory ---------------------------------------------------------------------------------


def with_stops(model, generation=None, config=None):
    """The model, its stop ids set in its two configs."""
    model.generation_config.eos_token_id, model.config.eos_token_id = generation, config
    return model


def test_an_adopted_model_has_the_ids_and_the_weights_of_its_folder(checkpoint):
    loaded = load_model(checkpoint, device="cpu")
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).train()
    adopted = adopt_model(model, loaded.tokenizer)
    assert adopted.model is model
    assert not model.training
    assert adopted.source == str(checkpoint)
    differing = {name for name, value in loaded.identity().items() if adopted.identity()[name] != value}
    assert differing == {"weights"}


@pytest.fixture
def make_fitting(make_model, tiny_tokenizer):
    """Factory of tiny models with a row for every id of the tiny tokenizer, and its mask token."""
    ids = {"vocab_size": len(tiny_tokenizer), "mask_token_id": tiny_tokenizer.mask_token_id}
    return lambda **overrides: make_model(**(ids | overrides))


def test_an_adopted_model_without_a_folder_goes_by_its_class(make_fitting, moe, tiny_tokenizer):
    assert adopt_model(make_fitting(), tiny_tokenizer).source == "SDARForCausalLM"
    assert adopt_model(moe, tiny_tokenizer).source == "SDARMoeForCausalLM"


@pytest.mark.parametrize(
    ("generation", "config", "stops"),
    [
        ([3, 5], 7, {3, 5}),
        (4, 7, {4}),
        (0, 7, {0}),
        (None, 7, {7}),
        (None, [7, 8], {7, 8}),
        (None, None, set()),
    ],
)
def test_stop_ids_of_a_model_in_memory(make_fitting, tiny_tokenizer, generation, config, stops):
    """Its generation config's, else its config's; the tokenizer's always."""
    adopted = adopt_model(with_stops(make_fitting(), generation, config), tiny_tokenizer)
    assert adopted.stop_token_ids == tuple(sorted(stops | {tiny_tokenizer.eos_token_id}))


def test_the_mask_id_of_a_model_in_memory_is_its_configs_if_the_tokenizer_has_none(
    make_fitting, tiny_tokenizer
):
    assert adopt_model(make_fitting(), tiny_tokenizer).mask_token_id == tiny_tokenizer.mask_token_id
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.mask_token = None
    assert adopt_model(make_fitting(mask_token_id=11), tokenizer).mask_token_id == 11
    with pytest.raises(InputError, match="neither tokenizer nor config names a mask token"):
        adopt_model(make_fitting(mask_token_id=None), tokenizer)


def test_a_model_in_memory_without_any_stop_token_is_refused(make_model, tiny_tokenizer):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.eos_token = None
    with pytest.raises(InputError, match="no end-of-sequence token"):
        adopt_model(with_stops(make_model()), tokenizer)


def test_a_model_in_memory_of_another_architecture_is_refused(tiny_tokenizer):
    """Its causal attention would ignore the blocks."""
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "vocab_size": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "pad_token_id": 0}
    with pytest.raises(InputError, match=r"model='Qwen3ForCausalLM': .*not a block-diffusion model"):
        adopt_model(Qwen3ForCausalLM(Qwen3Config(**sizes, **heads)), tiny_tokenizer)


def test_a_model_in_memory_without_a_tokenizer_is_refused(make_model):
    with pytest.raises(InputError, match=r"tokenizer=None.*Fix: give its tokenizer"):
        adopt_model(make_model(), None)
