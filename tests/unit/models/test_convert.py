"""Adopting an autoregressive checkpoint: same numbers, a mask token, a block size."""

import dataclasses
import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from adopt_helpers import CHAT, TURN_END, edit_json, plain_tokenizer, save_source
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from t3d import LLM, DecodeParams
from t3d.attention.forward import block_forward
from t3d.attention.masks import block_causal_mask
from t3d.cli.convert import summary_lines
from t3d.decoding.completion import DecodeRequest
from t3d.decoding.specification import decode_as_specified
from t3d.errors import InputError
from t3d.models.adopted import ARCHITECTURES
from t3d.models.convert import RECORD, STAGES, ConvertConfig, convert
from t3d.models.export import export_model
from t3d.models.loading import load_model
from t3d.tasks.mini.tokenizer import mini_tokenizer

SPARE = (*CHAT, "<|reserved_special_token_0|>", "<|reserved_special_token_1|>")
"""Ids 259 and 260 are to spare, so that nothing has to be added."""
CLASSES = {
    "llama": ("T3DLlamaForCausalLM", "t3d_llama"),
    "qwen2": ("T3DQwen2ForCausalLM", "t3d_qwen2"),
    "qwen3": ("SDARForCausalLM", "sdar"),
    "qwen3_moe": ("SDARMoeForCausalLM", "sdar_moe"),
}


def adopt(source, output, **settings):
    return convert(str(source), output, ConvertConfig(**settings))


@torch.no_grad()
def logits_under_a_causal_mask(model, ids_RQ, block_size=1):
    """Of blocks of one token: a causal mask, by the path of decoding's specification."""
    position_RQ = torch.arange(ids_RQ.shape[1]).expand_as(ids_RQ)
    mask = block_causal_mask(position_RQ, position_RQ, torch.ones_like(ids_RQ, dtype=torch.bool), block_size)
    return block_forward(model, ids_RQ, position_RQ, mask)


@torch.no_grad()
def source_logits(model, ids_RQ):
    if model.config.model_type == "qwen3_moe":
        model.set_experts_implementation("eager")  # as ours; grouped products may round in another way
    return model(input_ids=ids_RQ, use_cache=False).logits


def test_the_table_names_the_architectures_and_their_classes():
    named = {kind: (row.model.__name__, row.config.model_type) for kind, row in ARCHITECTURES.items()}
    assert named == CLASSES


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", CLASSES)
def test_the_original_is_reproduced_bit_for_bit(tmp_path, kind, tied):
    """Logits under a causal mask in float32, and every tensor in every byte: nothing had to be added."""
    tokenizer = plain_tokenizer(SPARE)
    source = save_source(tmp_path / "source", kind, tokenizer, tie_word_embeddings=tied)
    made = adopt(tmp_path / "source", tmp_path / "out", block_size=8)
    loaded = load_model(tmp_path / "out", device="cpu")
    assert (type(loaded.model).__name__, loaded.model.config.model_type) == CLASSES[kind]
    assert (made.architecture, made.model_type) == CLASSES[kind]
    ids = torch.randint(0, 264, (3, 21))
    assert torch.equal(logits_under_a_causal_mask(loaded.model, ids), source_logits(source, ids))
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("source", "out"))
    assert before.keys() == after.keys()
    same = [before[name].view(torch.uint8).equal(after[name].view(torch.uint8)) for name in before]
    assert all(same) and made.num_tensors == len(same)
    fields = json.loads((tmp_path / "out" / "config.json").read_text())
    assert fields["architectures"] == [CLASSES[kind][0]]
    assert (fields["block_size"], fields["mask_token_id"], fields["pad_token_id"]) == (8, 259, 256)
    assert loaded.model.config.head_dim == (16 if kind.startswith("qwen3") else 8)
    assert loaded.own_settings == {"block_size": 8}


LLAMA3 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "original_max_position_embeddings": 16}
LLAMA3 |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 32}


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("llama", {"attention_bias": True, "mlp_bias": True, "head_dim": 16}),
        ("llama", {"rope_parameters": LLAMA3, "num_key_value_heads": 4}),
        ("qwen2", {"rope_parameters": YARN, "use_sliding_window": False, "sliding_window": 4}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2}),
        ("qwen3", {"attention_bias": True, "hidden_act": "gelu"}),
        ("qwen3_moe", {"mlp_only_layers": [0], "norm_topk_prob": True}),
    ],
)
def test_variants_of_an_architecture_are_reproduced_too(tmp_path, kind, fields):
    """Biases, scaled rotary positions, windows that concern no layer, layers without experts."""
    source = save_source(tmp_path / "source", kind, plain_tokenizer(SPARE), **fields)
    adopt(tmp_path / "source", tmp_path / "out")
    model = load_model(tmp_path / "out", device="cpu").model
    ids = torch.randint(0, 264, (2, 40))
    assert torch.equal(logits_under_a_causal_mask(model, ids), source_logits(source, ids))


@pytest.mark.parametrize("kind", CLASSES)
def test_what_the_blocks_of_an_adopted_model_see_is_what_they_would_be(tmp_path, kind):
    """Bidirectional inside a block, causal over blocks: the first position of a block sees its last one."""
    save_source(tmp_path / "source", kind, plain_tokenizer(SPARE))
    adopt(tmp_path / "source", tmp_path / "out")
    model = load_model(tmp_path / "out", device="cpu").model
    ids = torch.randint(0, 250, (1, 12))
    changed = ids.clone()
    changed[0, 7] += 1
    logits, other = (logits_under_a_causal_mask(model, each, block_size=4) for each in (ids, changed))
    differs = (logits != other).any(-1)[0]
    assert differs.tolist() == [False] * 4 + [True] * 8


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_an_adopted_model_decodes_as_specified(tmp_path, kind):
    save_source(tmp_path / "source", kind, plain_tokenizer(SPARE))
    adopt(tmp_path / "source", tmp_path / "out")
    loaded = load_model(tmp_path / "out", device="cpu", dtype="float64")
    params = DecodeParams(max_new_tokens=10, steps_per_block=2, temperature=1.0)
    prompts = [[5, 6, 7], [8] * 6]
    done = LLM(loaded).generate(prompts, params, progress=False)
    for completion, prompt in zip(done, prompts, strict=True):
        request = DecodeRequest(id=completion.id, prompt_ids=tuple(prompt))
        ids = {"mask_token_id": 259, "stop_token_ids": loaded.stop_token_ids}
        expected = decode_as_specified(loaded.model, request, params, **ids)
        assert completion.trajectory.response_ids == expected.response_ids
        assert completion.step_map == expected.step_map[: len(completion.step_map)]


@pytest.mark.parametrize("tied", [False, True])
def test_a_new_token_takes_a_spare_row_where_there_is_one(tmp_path, tied):
    """As SDAR's did: the vocabulary of Qwen has more rows than tokens."""
    tokenizer = plain_tokenizer(pad_token="<|endoftext|>")
    save_source(tmp_path / "source", "qwen3", tokenizer, tie_word_embeddings=tied)
    made = adopt(tmp_path / "source", tmp_path / "out")
    assert (made.mask_token, made.mask_token_id, made.mask_reason) == ("<|MASK|>", 259, "new")
    assert (made.rows_before, made.rows) == (264, 264)
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("source", "out"))
    assert all(torch.equal(before[name], after[name]) for name in before | after)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", CLASSES)
def test_rows_are_added_where_there_is_none(tmp_path, kind, tied):
    """A multiple of 64, new ones the mean of the old; old tokens have their old logits, tied stays tied."""
    tokenizer = plain_tokenizer()
    source = save_source(tmp_path / "source", kind, tokenizer, rows=259, tie_word_embeddings=tied)
    made = adopt(tmp_path / "source", tmp_path / "out")
    assert (made.mask_token_id, made.rows_before, made.rows) == (259, 259, 320)
    loaded = load_model(tmp_path / "out", device="cpu")
    assert loaded.vocab_size == loaded.model.config.vocab_size == 320
    ids = torch.randint(0, 259, (2, 17))
    logits = logits_under_a_causal_mask(loaded.model, ids)
    assert torch.equal(logits[..., :259], source_logits(source, ids))
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("source", "out"))
    assert ("lm_head.weight" in after) is not tied
    grown = {"model.embed_tokens.weight", "lm_head.weight"} & after.keys()
    for name in after.keys() - grown:
        assert torch.equal(after[name], before[name])
    for name in grown:
        assert torch.equal(after[name][:259], before[name])
        torch.testing.assert_close(after[name][259:], before[name].mean(0).expand(61, -1))
    assert loaded.model.config.tie_word_embeddings is tied


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_dtype_is_the_sources(tmp_path, dtype):
    save_source(tmp_path / "source", "llama", plain_tokenizer(), rows=259, dtype=dtype)
    made = adopt(tmp_path / "source", tmp_path / "out")
    saved = load_file(tmp_path / "out" / "model.safetensors")
    assert {weight.dtype for weight in saved.values()} == {dtype}
    assert f"torch.{made.dtype}" == str(dtype)
    assert load_model(tmp_path / "out", device="cpu").checkpoint_dtype == dtype


def test_the_dtype_of_the_files_counts_not_that_of_the_config(tmp_path):
    """And where there are several the widest, so that no value is rounded."""
    save_source(tmp_path / "source", "llama", plain_tokenizer(SPARE))
    edit_json(tmp_path / "source" / "config.json", dtype="bfloat16")
    assert adopt(tmp_path / "source", tmp_path / "one").dtype == "float32"
    path = tmp_path / "source" / "model.safetensors"
    weights = load_file(path)
    weights["model.norm.weight"] = weights["model.norm.weight"].to(torch.bfloat16)
    save_file(weights, path, metadata={"format": "pt"})
    assert adopt(tmp_path / "source", tmp_path / "several").dtype == "float32"


def test_a_source_without_a_generation_config_gets_one(tmp_path):
    save_source(tmp_path / "source", "llama", plain_tokenizer(SPARE), bos_token_id=257)
    (tmp_path / "source" / "generation_config.json").unlink()
    adopt(tmp_path / "source", tmp_path / "out")
    told = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert told == {"bos_token_id": 257, "eos_token_id": [258], "pad_token_id": 256}


def test_buffers_of_old_files_are_left_out(tmp_path):
    """Their dtype, float32 in files of 16 bits, is not that of the weights."""
    save_source(tmp_path / "source", "llama", plain_tokenizer(SPARE), dtype=torch.float16)
    path = tmp_path / "source" / "model.safetensors"
    old = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    save_file(load_file(path) | old, path, metadata={"format": "pt"})
    assert adopt(tmp_path / "source", tmp_path / "out").dtype == "float16"
    assert old.keys().isdisjoint(load_file(tmp_path / "out" / "model.safetensors"))


def test_a_checkpoint_in_parts_is_read_whole(tmp_path):
    source = save_source(tmp_path / "source", "qwen3", plain_tokenizer(SPARE))
    (tmp_path / "source" / "model.safetensors").unlink()
    source.save_pretrained(tmp_path / "source", max_shard_size="20KB")
    assert len(list((tmp_path / "source").glob("*.safetensors"))) > 1
    adopt(tmp_path / "source", tmp_path / "out")
    model = load_model(tmp_path / "out", device="cpu").model
    ids = torch.randint(0, 264, (1, 9))
    assert torch.equal(logits_under_a_causal_mask(model, ids), source_logits(source, ids))


def test_tokenizer_and_stops_go_over(tmp_path):
    """Texts keep their ids; the stops are those of generation_config.json, and the pad is none of them."""
    tokenizer = plain_tokenizer(SPARE)
    save_source(tmp_path / "source", "qwen2", tokenizer)
    path = tmp_path / "source" / "generation_config.json"
    path.write_text(json.dumps({"eos_token_id": [258, 256], "temperature": 0.7, "do_sample": False}))
    made = adopt(tmp_path / "source", tmp_path / "out")
    loaded = load_model(tmp_path / "out", device="cpu")
    assert loaded.stop_token_ids == made.stop_token_ids == (256, 258)
    assert (made.pad_token, made.pad_token_id) == ("<|reserved_special_token_1|>", 260)
    kept = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert kept == json.loads(path.read_text()) | {"pad_token_id": 260}
    again = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert (again.mask_token_id, again.pad_token_id, again.eos_token) == (259, 260, TURN_END)
    text = "how many <|im_end|> apples? <|reserved_special_token_0|>é"
    assert again.encode(text) == tokenizer.encode(text)
    assert again.chat_template == tokenizer.chat_template


def test_the_tokenizer_is_what_its_file_defines_whatever_the_architecture(tmp_path):
    """transformers has a class for Qwen2's tokenizer, which reads another one's vocabulary in its own way."""
    tokenizer = mini_tokenizer()
    end = tokenizer.eos_token_id
    ids = {"rows": len(tokenizer), "eos_token_id": end, "pad_token_id": end}
    save_source(tmp_path / "source", "qwen2", tokenizer, **ids)
    adopt(tmp_path / "source", tmp_path / "out")
    text = "Gus has 9 nuts, first drops 4. How many now?"
    loaded = load_model(tmp_path / "out", device="cpu")
    assert loaded.tokenizer.encode(text) == tokenizer.encode(text)


def test_an_adopted_model_is_exported_like_any_other(tmp_path):
    save_source(tmp_path / "source", "qwen2", plain_tokenizer())
    adopt(tmp_path / "source", tmp_path / "out")
    loaded = load_model(tmp_path / "out", device="cpu")
    export_model(loaded, tmp_path / "export")
    again = load_model(tmp_path / "export", device="cpu")
    assert again.weights_hash == loaded.weights_hash and again.tokenizer_hash == loaded.tokenizer_hash
    assert again.identity() == loaded.identity()


def test_a_hub_id_is_adopted_from_its_snapshot(tmp_path, monkeypatch):
    """As it lies in the hub's cache, links into ``blobs``; nothing is asked of the network."""
    save_source(tmp_path / "source", "llama", plain_tokenizer(SPARE))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "hub" / "models--org--tiny"
    folder = repository / "snapshots" / ("a" * 40)
    for path in (folder, repository / "refs", repository / "blobs"):
        path.mkdir(parents=True)
    (repository / "refs" / "main").write_text("a" * 40)
    for number, file in enumerate(sorted((tmp_path / "source").iterdir())):
        shutil.copyfile(file, repository / "blobs" / f"{number}")
        (folder / file.name).symlink_to(Path("..", "..", "blobs", f"{number}"))
    made = adopt("org/tiny", tmp_path / "out")
    assert made == adopt(tmp_path / "source", tmp_path / "other")
    weights = [load_model(tmp_path / name, device="cpu").weights_hash for name in ("out", "other")]
    assert weights[0] == weights[1]


def test_the_summary_says_what_was_chosen_and_what_to_do_next(tmp_path):
    save_source(tmp_path / "source", "llama", plain_tokenizer(), rows=259)
    stages = []
    config = ConvertConfig(block_size=8)
    made = convert(str(tmp_path / "source"), tmp_path / "out", config, on_stage=lambda: stages.append(1))
    assert len(stages) == STAGES
    text = "\n".join(summary_lines("org/name", "out", made))
    for said in ("T3DLlamaForCausalLM", "t3d_llama", "<|MASK|> (id 259): new", "320 rows, 259 before"):
        assert said in text
    assert "t3d train --preset sft --model out" in text and "block size    8" in text
    assert "<|endoftext|> (id 256): a special token that is no stop" in text
    assert "chat template" not in text
    bare = dataclasses.replace(made, has_chat_template=False)
    assert "chat template none: put one into chat_template.jinja" in "\n".join(summary_lines("a", "b", bare))


# --- the output -----------------------------------------------------------------------------------------


def test_the_same_call_takes_what_it_made_and_another_is_refused(tmp_path, caplog):
    save_source(tmp_path / "source", "llama", plain_tokenizer())
    made = adopt(tmp_path / "source", tmp_path / "out")
    time_ns = (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns
    with caplog.at_level(logging.WARNING):
        assert adopt(tmp_path / "source", tmp_path / "out") == made
    assert "was finished before by the same command" in caplog.text
    with pytest.raises(InputError, match="block_size was 4, now 8"):
        adopt(tmp_path / "source", tmp_path / "out", block_size=8)
    assert (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns == time_ns


def test_a_damaged_output_is_not_taken(tmp_path):
    save_source(tmp_path / "source", "llama", plain_tokenizer())
    adopt(tmp_path / "source", tmp_path / "out")
    (tmp_path / "out" / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"^output=.*its weights are not those that were written"):
        adopt(tmp_path / "source", tmp_path / "out")


@pytest.mark.parametrize("content", [None, "{", '{"plan": {}}'])
def test_what_is_not_ours_is_not_replaced(tmp_path, content):
    save_source(tmp_path / "source", "llama", plain_tokenizer())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    if content is not None:
        (tmp_path / "out" / RECORD).write_text(content)
    with pytest.raises(InputError, match=r"^output=.*nothing in it tells how it was made"):
        adopt(tmp_path / "source", tmp_path / "out")
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


def test_a_conversion_that_fails_late_leaves_nothing(tmp_path, monkeypatch):
    save_source(tmp_path / "source", "llama", plain_tokenizer())
    monkeypatch.setattr("t3d.models.convert._holds", lambda *_: False)
    with pytest.raises(InputError, match=r"its tensor .* could not be kept as it is"):
        adopt(tmp_path / "source", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
