"""Autoregressive checkpoints as they are: the source's numbers, decoded as transformers decodes them."""

import dataclasses
import importlib.util

import pytest
import torch
from adopt_helpers import CHAT, START, TURN_END, plain_tokenizer, save_gguf, save_source

from t3d import LLM, DecodeParams
from t3d.errors import InputError
from t3d.interchange.validate import has_masked_prompt, own_problems
from t3d.models.adopted import ARCHITECTURES
from t3d.models.convert import ConvertConfig, convert
from t3d.models.drafter import save_drafter, with_drafter
from t3d.models.export import export_model
from t3d.models.gated import add_gated_adapter
from t3d.models.loading import load_model, load_own_settings, load_tokenizer
from t3d.predicts import OF_NEXT

SPARE = (*CHAT, "<|reserved_special_token_0|>")
PROMPTS = [[5, 9, 2, 71], [65], [100, 101, 102, 103, 104, 105, 106]]


@torch.no_grad()
def generated(model, prompt, count):
    """By transformers, greedily."""
    ids = torch.tensor([prompt])
    options = {"do_sample": False, "pad_token_id": 0, "attention_mask": torch.ones_like(ids)}
    return tuple(model.generate(ids, max_new_tokens=count, **options)[0, len(prompt) :].tolist())


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_the_text_is_that_of_transformers_and_the_logits_bit_for_bit(tmp_path, kind):
    source = save_source(tmp_path / "model", kind, plain_tokenizer(SPARE)).eval()
    if kind == "qwen3_moe":
        source.set_experts_implementation("eager")
    loaded = load_model(tmp_path / "model", device="cpu")
    assert loaded.predicts == "next" and loaded.mask_token_id == 259
    ids = torch.randint(0, 260, (2, 9))
    with torch.no_grad():
        assert torch.equal(loaded.model(ids).logits, source(ids, use_cache=False).logits)
    llm = LLM(loaded)
    assert llm.default_params == DecodeParams(**OF_NEXT)
    params = dataclasses.replace(llm.default_params, temperature=0.0, max_new_tokens=20)
    expected = [generated(source, prompt, 20) for prompt in PROMPTS]
    for strategy, groups in (
        ("left_to_right", "last"),
        ("self_speculative", "last"),
        ("self_speculative", "all"),
    ):
        how = dataclasses.replace(params, remasking=strategy, draft_groups=groups)
        done = llm.generate(PROMPTS, how, progress=False)
        assert [completion.response_ids for completion in done] == expected


def test_masks_behind_the_last_position_change_nothing_before_it(tmp_path):
    """Of frequencies that grow with what is read, a draft at the model's last position would change all."""
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    source = save_source(tmp_path / "model", "llama", plain_tokenizer(SPARE), rope_parameters=rope).eval()
    llm = LLM(tmp_path / "model", device="cpu")
    prompts = [[65 + place % 26 for place in range(120)], PROMPTS[0]]
    params = dataclasses.replace(
        llm.default_params, remasking="self_speculative", temperature=0.0, max_new_tokens=8
    )
    done = llm.generate(prompts, dataclasses.replace(params, max_draft_tokens=40), progress=False)
    assert [one.response_ids for one in done] == [generated(source, prompt, 8) for prompt in prompts]


def test_everything_agrees_on_what_it_is(tmp_path):
    save_source(tmp_path / "model", "llama", plain_tokenizer(SPARE), dtype=torch.bfloat16)
    loaded = load_model(tmp_path / "model", device="cpu")
    assert load_own_settings(tmp_path / "model") == loaded.own_settings == OF_NEXT
    named = load_tokenizer(tmp_path / "model")
    assert (named.mask_token_id, named.tokenizer_hash) == (loaded.mask_token_id, loaded.tokenizer_hash)
    assert loaded.checkpoint_dtype == torch.bfloat16 and loaded.model.dtype == torch.float32
    assert loaded.stop_token_ids == (loaded.tokenizer.convert_tokens_to_ids(TURN_END),)
    same = load_model(tmp_path / "model", device="cpu", dtype="float64")
    assert same.weights_hash == loaded.weights_hash and same.model.dtype == torch.float64


def test_a_stop_token_ends_it_and_the_record_is_a_trajectory(tmp_path):
    save_source(tmp_path / "model", "llama", plain_tokenizer(SPARE))
    llm = LLM(tmp_path / "model", device="cpu")
    params = dataclasses.replace(llm.default_params, temperature=0.0, max_new_tokens=9)
    (plain,) = llm.generate([PROMPTS[0]], params, progress=False)
    stopping = LLM(tmp_path / "model", device="cpu", stop_token_ids=[plain.response_ids[3]])
    (done,) = stopping.generate([PROMPTS[0]], params, progress=False)
    first = plain.response_ids.index(plain.response_ids[3])
    assert done.response_ids == plain.response_ids[: first + 1] and done.finish_reason == "stop"
    record = done.trajectory
    assert (record.block_size, record.terminal_complete) == (1, True)
    assert record.decode_params["predicts"] == "next"


def test_it_may_say_the_token_that_stands_in_for_a_draft(tmp_path):
    """Its rollouts may hold it, and teach."""
    save_source(tmp_path / "model", "llama", plain_tokenizer(SPARE))
    loaded = load_model(tmp_path / "model", device="cpu")
    llm = LLM(dataclasses.replace(loaded, mask_token_id=71))
    params = dataclasses.replace(llm.default_params, temperature=0.0, max_new_tokens=3)
    (done,) = llm.generate([PROMPTS[0]], params, progress=False)  # whose prompt has it
    said = dataclasses.replace(done.trajectory, mask_token_id=done.response_ids[0])
    assert list(own_problems(said)) == [] and not has_masked_prompt(done.trajectory)


def test_a_row_without_a_name_stands_in_where_no_special_token_is_unused(tmp_path):
    save_source(tmp_path / "model", "llama", plain_tokenizer(CHAT))
    assert load_model(tmp_path / "model", device="cpu").mask_token_id == 259
    save_source(tmp_path / "full", "llama", plain_tokenizer(CHAT), rows=259)
    with pytest.raises(InputError, match=r"model='.*full': no special token is unused.*t3d convert"):
        load_model(tmp_path / "full", device="cpu")
    save_source(tmp_path / "begun", "llama", plain_tokenizer(CHAT, bos_token=START), rows=259)
    begun = load_model(tmp_path / "begun", device="cpu")
    assert begun.mask_token_id == begun.tokenizer.bos_token_id == 257


def test_the_tokenizers_own_mask_stands_in_whatever_else_it_is(tmp_path):
    """It may be the pad token too, or what a response ends with by wish: such a model may say it."""
    roles = {"mask_token": SPARE[-1], "pad_token": SPARE[-1]}
    source = save_source(tmp_path / "model", "llama", plain_tokenizer(SPARE, **roles)).eval()
    llm = LLM(tmp_path / "model", device="cpu", stop_token_ids=[259])
    assert llm.loaded.mask_token_id == 259
    params = dataclasses.replace(llm.default_params, temperature=0.0, max_new_tokens=5)
    (done,) = llm.generate([PROMPTS[0]], params, progress=False)
    assert done.response_ids == generated(source, PROMPTS[0], 5)


@pytest.mark.parametrize("told", ["next", "self"])
def test_a_drafter_of_a_model_that_predicts_otherwise_is_refused(tmp_path, told):
    """A conversion has the weights of its source, so that their hash tells nothing."""
    save_source(tmp_path / "model", "llama", plain_tokenizer(SPARE))
    convert(str(tmp_path / "model"), tmp_path / "converted", ConvertConfig())
    own, other = tmp_path / "model", tmp_path / "converted"
    if told == "self":
        own, other = other, own
    loaded, another = load_model(own, device="cpu"), load_model(other, device="cpu")
    assert loaded.weights_hash == another.weights_hash
    adapter = add_gated_adapter(loaded.model.requires_grad_(False), 2)
    save_drafter(adapter, loaded, tmp_path / "drafter")
    with pytest.raises(InputError, match=f"drafter=.*drafts for a model with predicts='{told}'"):
        with_drafter(another, tmp_path / "drafter")
    with pytest.raises(InputError, match=f"drafter=.*its predicts is {told}"):
        with_drafter(another, own)


@pytest.mark.skipif(importlib.util.find_spec("gguf") is None, reason="pip install t3d[gguf]")
def test_a_folder_of_one_gguf_file_is_a_model(tmp_path):
    tokenizer = plain_tokenizer(SPARE)
    source = save_source(tmp_path / "source", "llama", tokenizer).eval()
    (tmp_path / "gguf").mkdir()
    save_gguf(tmp_path / "gguf" / "tiny.gguf", source, tokenizer)
    llm = LLM(tmp_path / "gguf", device="cpu")
    params = dataclasses.replace(llm.default_params, temperature=0.0, max_new_tokens=12)
    (done,) = llm.generate([PROMPTS[0]], params, progress=False)
    assert done.response_ids == generated(source, PROMPTS[0], 12)
    (tmp_path / "gguf" / "second.gguf").write_bytes(b"")
    with pytest.raises(
        InputError, match=r"model='.*gguf': .*GGUF file \(second.gguf, tiny.gguf\).*one of them"
    ):
        load_model(tmp_path / "gguf", device="cpu")
    with pytest.raises(InputError, match=r"model='.*tiny.gguf': is a GGUF file.*the folder"):
        load_model(tmp_path / "gguf" / "tiny.gguf", device="cpu")
    export_model(llm.loaded, tmp_path / "exported")
    again = LLM(tmp_path / "exported", device="cpu")
    assert again.generate([PROMPTS[0]], params, progress=False)[0].response_ids == done.response_ids


def test_what_cannot_be_asked_of_it_is_named(tmp_path):
    save_source(tmp_path / "model", "llama", plain_tokenizer(SPARE))
    with pytest.raises(InputError, match=r"tp_plan='auto': not for autoregressive checkpoints"):
        load_model(tmp_path / "model", device="cpu", tp_plan="auto")
    llm = LLM(tmp_path / "model", device="cpu")
    with pytest.raises(InputError, match=r"predicts='self': .*is an autoregressive model.*LLM.params"):
        llm.generate([PROMPTS[0]], DecodeParams(), progress=False)
    params = llm.params(temperature=0.0, max_new_tokens=3)
    assert (params.predicts, params.block_size, params.temperature) == ("next", 1, 0.0)
    assert len(llm.generate([PROMPTS[0]], params, progress=False)[0].response_ids) <= 3
    with pytest.raises(InputError, match=r"predicts='next': mini is a block-diffusion model"):
        LLM("mini", device="cpu").generate([PROMPTS[0]], DecodeParams(**OF_NEXT), progress=False)
