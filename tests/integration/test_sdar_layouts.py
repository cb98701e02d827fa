"""SDAR's published checkpoints at reduced width: what is loaded, trained and exported is what engines read.

Fields, names, dtypes and files are those of 1.7B, 4B, 8B-Chat and 30B-A3B as transformers 4 wrote them;
layers, widths and vocabulary are smaller. JetEngine, LMDeploy and SGLang read ``*.safetensors`` by these
names and the config by these fields; the classes are named in ``architectures`` and by the remote code.
The head of 1.7B is tied here, the others' are not, so that both cases are there.
"""

import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from training_helpers import config

from t3d.models.loading import load_model
from t3d.models.sdar import SDARMoeConfig
from t3d.training.run import distil

DENSE = {
    "1.7B": {"hidden_size": 32, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2}
    | {"tie_word_embeddings": True},
    "4B": {"hidden_size": 40, "intermediate_size": 152, "num_attention_heads": 8, "num_key_value_heads": 2},
    "8B": {"hidden_size": 64, "intermediate_size": 192, "num_attention_heads": 8, "num_key_value_heads": 2},
}
"""True widths over 64, heads over 4 (of 1.7B: 16 and 8), but for the heads' dimension of 8."""
MIXTURE = {
    "hidden_size": 32,
    "intermediate_size": 96,
    "num_attention_heads": 8,
    "num_key_value_heads": 1,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 12,
    "decoder_sparse_step": 1,
    "norm_topk_prob": True,
    "mlp_only_layers": [],
    "output_router_logits": False,
    "router_aux_loss_coef": 0.001,
}
SIZES = {**DENSE, "30B-A3B": MIXTURE}
NUM_LAYERS = 2
CODE = ("configuration_sdar.py", "modeling_sdar.py", "fused_linear_diffusion_cross_entropy.py")


def published_config(size, tokenizer):
    name = "SDARMoe" if size == "30B-A3B" else "SDAR"
    fields = {
        "architectures": [f"{name}ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "auto_map": {
            "AutoConfig": f"configuration_sdar.{name}Config",
            "AutoModel": f"modeling_sdar.{name}Model",
            "AutoModelForCausalLM": f"modeling_sdar.{name}ForCausalLM",
        },
        "block_size": 4,
        "bos_token_id": tokenizer.eos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "fuse_cross_entropy": True,
        "head_dim": 8,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "mask_token_id": tokenizer.mask_token_id,
        "max_position_embeddings": 32768,
        "max_window_layers": NUM_LAYERS,
        "model_type": "sdar_moe" if size == "30B-A3B" else "sdar",
        "num_hidden_layers": NUM_LAYERS,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.52.3",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": len(tokenizer) + 10,  # more rows than tokens, as there
    }
    return fields | SIZES[size]


def published_shapes(fields):
    """Shapes by name, as in the index of the published checkpoints."""
    hidden, inner, dim = fields["hidden_size"], fields["intermediate_size"], fields["head_dim"]
    queries, keys = (fields[name] * dim for name in ("num_attention_heads", "num_key_value_heads"))
    attention = {"q": (queries, hidden), "k": (keys, hidden), "v": (keys, hidden), "o": (hidden, queries)}
    shapes = {f"self_attn.{name}_proj": shape for name, shape in attention.items()}
    shapes |= {"self_attn.q_norm": (dim,), "self_attn.k_norm": (dim,)}
    shapes |= {"input_layernorm": (hidden,), "post_attention_layernorm": (hidden,)}
    blocks = {"mlp": inner}
    if "num_experts" in fields:
        blocks = {f"mlp.experts.{n}": fields["moe_intermediate_size"] for n in range(fields["num_experts"])}
        shapes["mlp.gate"] = (fields["num_experts"], hidden)
    for block, width in blocks.items():
        shapes |= {f"{block}.gate_proj": (width, hidden), f"{block}.up_proj": (width, hidden)}
        shapes[f"{block}.down_proj"] = (hidden, width)
    layers = range(fields["num_hidden_layers"])
    whole = {f"model.layers.{n}.{name}.weight": shape for n in layers for name, shape in shapes.items()}
    rows = (fields["vocab_size"], hidden)
    whole |= {"model.embed_tokens.weight": rows, "model.norm.weight": (hidden,)}
    return whole if fields["tie_word_embeddings"] else whole | {"lm_head.weight": rows}


def publish(folder, size, tokenizer):
    """A random checkpoint in bfloat16, its weights in two files beside an index."""
    folder.mkdir()
    fields = published_config(size, tokenizer)
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, shape in sorted(published_shapes(fields).items()):
        values = torch.randn(shape, generator=generator)
        weights[name] = ((1 + values / 10) if "norm" in name else values / 4).to(torch.bfloat16)
    names = sorted(weights)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, own in parts.items():
        save_file({name: weights[name] for name in own}, folder / file, {"format": "pt"})
    size_in_bytes = sum(2 * weight.numel() for weight in weights.values())
    places = {name: file for file, own in parts.items() for name in own}
    index = {"metadata": {"total_size": size_in_bytes}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(fields))
    tokenizer.save_pretrained(folder)
    stops = [tokenizer.convert_tokens_to_ids("<|im_end|>"), tokenizer.eos_token_id]
    told = {"bos_token_id": stops[1], "eos_token_id": stops, "pad_token_id": stops[1], "do_sample": True}
    (folder / "generation_config.json").write_text(json.dumps(told | {"temperature": 0.6, "top_k": 20}))
    for name in CODE:
        (folder / name).write_text("raise SystemExit('never run')\n")
    return fields


PACKED = {r"(q|k|v)_proj": "qkv_proj", r"(gate|up)_proj": "gate_up_proj"}
"""What the engines join."""


def placed(name):
    """Where their loaders put a tensor: joined projections, layers and experts by number, others by name."""
    for parts, whole in PACKED.items():
        name = re.sub(rf"\.{parts}\.", f".{whole}.", name)
    return re.sub(r"(layers|experts)\.\d+", r"\1.N", name)


def places_of(fields):
    """All places that their networks have."""
    mlp = "mlp.experts.N" if "num_experts" in fields else "mlp"
    layer = ["self_attn.qkv_proj", "self_attn.o_proj", "self_attn.q_norm", "self_attn.k_norm"]
    layer += [f"{mlp}.gate_up_proj", f"{mlp}.down_proj", "input_layernorm", "post_attention_layernorm"]
    layer += ["mlp.gate"] if "num_experts" in fields else []
    whole = {f"model.layers.N.{name}.weight" for name in layer} | {"model.norm.weight"}
    heads = {"model.embed_tokens.weight"} | (set() if fields["tie_word_embeddings"] else {"lm_head.weight"})
    return whole | heads


def tensors(folder):
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    return found


@pytest.fixture(params=[pytest.param(name, marks=[] if name == "4B" else pytest.mark.slow) for name in SIZES])
def teacher(request, tmp_path, tiny_tokenizer):
    """(folder, fields of its config.json)."""
    return tmp_path / "teacher", publish(tmp_path / "teacher", request.param, tiny_tokenizer)


def test_a_trained_student_has_the_layout_of_its_teacher(teacher, trajectories, tmp_path):
    """Five steps of all weights, then names, shapes, dtypes, config keys and files against the teacher's."""
    folder, fields = teacher
    loaded = load_model(folder, device="cpu")
    stops = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    assert loaded.stop_token_ids == tuple(sorted(stops))
    student = distil(loaded, trajectories, config(tmp_path / "run", max_steps=5), tmp_path / "student")
    before, after = tensors(folder), tensors(student)
    assert {name: weight.shape for name, weight in after.items()} == {
        name: torch.Size(shape) for name, shape in published_shapes(fields).items()
    }
    assert {weight.dtype for weight in after.values()} == {torch.bfloat16}
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert {placed(name) for name in after} == places_of(fields)
    written = json.loads((student / "config.json").read_text())
    changed = {name for name, value in fields.items() if written.get(name) != value}
    assert changed <= {"block_size", "transformers_version"}
    for name in (*CODE, "tokenizer.json", "chat_template.jinja"):
        assert (student / name).read_bytes() == (folder / name).read_bytes()
    again = load_model(student, device="cpu")
    assert (again.tokenizer_hash, again.stop_token_ids) == (loaded.tokenizer_hash, loaded.stop_token_ids)
    assert again.mask_token_id == fields["mask_token_id"]


def test_what_training_leaves_alone_keeps_every_byte(teacher, trajectories, tmp_path):
    """An adapter on the queries changes the queries: all other tensors are the teacher's."""
    folder, _ = teacher
    settings = config(tmp_path / "run", max_steps=5, lora_rank=2, lora_target_modules=["q_proj"])
    student = distil(load_model(folder, device="cpu"), trajectories, settings, tmp_path / "student")
    before, after = tensors(folder), tensors(student)
    assert before.keys() == after.keys()
    changed = {
        name
        for name in before
        if not torch.equal(before[name].view(torch.uint8), after[name].view(torch.uint8))
    }
    assert changed == {f"model.layers.{layer}.self_attn.q_proj.weight" for layer in range(NUM_LAYERS)}


def test_the_fields_of_the_mixture_are_read(tmp_path, tiny_tokenizer):
    publish(tmp_path / "teacher", "30B-A3B", tiny_tokenizer)
    read: SDARMoeConfig = load_model(tmp_path / "teacher", device="cpu").model.config
    assert (read.num_experts, read.num_experts_per_tok, read.moe_intermediate_size) == (8, 2, 12)
    assert read.norm_topk_prob is True and read.rope_parameters["rope_theta"] == 1000000
