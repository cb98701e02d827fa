"""The file by which transformers' own ``generate`` decodes an export."""

import ast
import copy
import json
from dataclasses import MISSING, fields
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from model_fixtures import load_copy

from t3d.decoding.llm import LLM
from t3d.decoding.params import DecodeParams
from t3d.models import custom_generate
from t3d.models.custom_generate import Settings, generate
from t3d.models.export import GENERATE_FILE, export_model
from t3d.models.own_settings import set_own_settings
from t3d.problems.prompts import token_ids

TEXTS = ["how many apples are left now?", "so the answer", "apples", "how many apples are left now? so"]


@pytest.fixture(scope="module")
def loaded(checkpoint):
    return load_copy(checkpoint)


@pytest.fixture(scope="module")
def llm(loaded):
    return LLM(loaded)


def padded(loaded, texts):
    """Prompts of several lengths, padded on the left."""
    rows = [token_ids(loaded.tokenizer, text) for text in texts]
    length = max(map(len, rows))
    ids = [[loaded.tokenizer.pad_token_id] * (length - len(row)) + row for row in rows]
    seen = [[0] * (length - len(row)) + [1] * len(row) for row in rows]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(seen)}


def answers_of(loaded, inputs, **given):
    """The new tokens of each row, without the pads behind a stop token."""
    out = generate(**inputs, model=loaded.model, **given)
    assert (out[:, : inputs["input_ids"].shape[1]] == inputs["input_ids"]).all()
    rows = out[:, inputs["input_ids"].shape[1] :].tolist()
    stops = set(loaded.stop_token_ids)
    ends = [next((place + 1 for place, token in enumerate(row) if token in stops), len(row)) for row in rows]
    for row, end in zip(rows, ends, strict=True):
        assert set(row[end:]) <= {loaded.tokenizer.pad_token_id}
    return [tuple(row[:end]) for row, end in zip(rows, ends, strict=True)]


@pytest.mark.parametrize(
    ("remasking", "size", "steps"),
    [
        *((remasking, 8, 3) for remasking in custom_generate.STRATEGIES if remasking != "random"),
        ("low_confidence_static", 4, 4),
        ("low_confidence_static", 1, 1),
        ("random", 4, 1),  # where the order does not matter
    ],
)
def test_greedy_tokens_are_those_of_the_engine(loaded, llm, remasking, size, steps):
    """In one batch of prompts of several lengths."""
    how = {"block_size": size, "steps_per_block": steps, "remasking": remasking}
    how |= {"confidence_threshold": 0.02} if remasking == "low_confidence_dynamic" else {}
    how |= {"entropy_bound": 4.0} if remasking == "entropy_bounded" else {}
    params = DecodeParams(temperature=0, max_new_tokens=21, **how)
    expected = [one.visible_ids for one in llm.generate(TEXTS, params, progress=False)]
    assert answers_of(loaded, padded(loaded, TEXTS), max_new_tokens=21, do_sample=False, **how) == expected


def test_without_arguments_it_decodes_as_the_student_says(checkpoint):
    loaded = load_copy(checkpoint)
    own = {"block_size": 8, "steps_per_block": 2, "remasking": "sequential", "temperature": 0.0}
    set_own_settings(loaded.model, own)
    inputs = padded(loaded, TEXTS[:1])
    room = loaded.model.config.max_position_embeddings - inputs["input_ids"].shape[1]
    params = DecodeParams(**own, max_new_tokens=40)
    (expected,) = LLM(loaded).generate(TEXTS[:1], params, progress=False)
    assert answers_of(loaded, inputs, max_new_tokens=40) == [expected.visible_ids]
    # Blocks of another size take all their steps, and tokens_per_step says the steps of any.
    for given, steps in (({"block_size": 4}, 4), ({"tokens_per_step": 8}, 1)):
        size = given.get("block_size", 8)
        remasking = "sequential" if "block_size" in given else "low_confidence_static"
        params = DecodeParams(
            block_size=size,
            steps_per_block=steps,
            remasking=remasking,
            temperature=0,
            max_new_tokens=room // 2,
        )
        (expected,) = LLM(loaded).generate(TEXTS[:1], params, progress=False)
        told = answers_of(loaded, inputs, max_length=room // 2 + inputs["input_ids"].shape[1], **given)
        assert told == [expected.visible_ids]


def test_a_generation_config_counts_where_it_differs_from_the_models_own(checkpoint):
    """Pipelines hand over a copy of it, whose temperature is of autoregressive decoding."""
    loaded = load_copy(checkpoint)
    own, inputs = loaded.model.generation_config, padded(loaded, TEXTS[:1])
    own.temperature, own.do_sample = 5.0, True
    set_own_settings(loaded.model, {"block_size": 4, "temperature": 0.0})
    greedy = answers_of(loaded, inputs, max_new_tokens=20)
    copy = SimpleNamespace(**{**own.to_dict(), "max_new_tokens": 20})
    assert answers_of(loaded, inputs, generation_config=copy) == greedy
    copy.temperature = 4.0
    assert answers_of(loaded, inputs, generation_config=copy) != greedy


def test_draws_follow_torchs_generator_and_the_filters(loaded):
    inputs, drawn = padded(loaded, TEXTS[:1]), {"max_new_tokens": 20, "temperature": 2.0}
    told = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        told.append(answers_of(loaded, inputs, **drawn))
    assert told[0] == told[1] != told[2]
    several = answers_of(loaded, inputs, **drawn, num_return_sequences=3)
    assert len(several) == 3 and len(set(several)) == 3
    greedy = answers_of(loaded, inputs, max_new_tokens=20, do_sample=False)
    for filtered in ({"top_k": 1}, {"top_p": 1e-9}):
        assert answers_of(loaded, inputs, **drawn, **filtered, confidence="model") == greedy


def test_a_streamer_is_told_block_by_block_and_criteria_end_an_answer(loaded):
    inputs, told, drafts, ends = padded(loaded, TEXTS[:1]), [], [], []
    streamer = SimpleNamespace(put=lambda ids: told.append(ids[0].tolist()), end=lambda: ends.append(1))
    streamer.put_draft = lambda ids: drafts.append(ids[0].tolist())
    how = {"max_new_tokens": 21, "do_sample": False, "block_size": 4}
    (answer,) = answers_of(loaded, inputs, streamer=streamer, **how)
    assert told[0] == inputs["input_ids"][0].tolist() and ends == [1]
    assert tuple(chain.from_iterable(told[1:])) == answer
    assert drafts and all(loaded.mask_token_id in draft for draft in drafts)
    place = 9
    asked = [lambda ids, scores: ids[:, -1] == answer[place]]
    first = answer.index(answer[place])
    assert answers_of(loaded, inputs, stopping_criteria=asked, **how) == [answer[: first + 1]]
    for name, value in (("streamer", streamer), ("stopping_criteria", asked)):
        with pytest.raises(ValueError, match=rf"{name}='given': there are several rows"):
            generate(**padded(loaded, TEXTS[:2]), model=loaded.model, **{name: value})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"num_beams": 4}, "num_beams=4: block diffusion has no such argument"),
        ({"block_size": "8"}, "block_size='8': not of its type. Fix: give int"),
        ({"steps_per_block": 2.0}, "steps_per_block=2.0: not of its type. Fix: give int"),
        ({"temperature": "hot"}, "temperature='hot': not of its type. Fix: give float"),
        ({"tokens_per_step": "4"}, "tokens_per_step='4': not of its type. Fix: give int"),
        ({"tokens_per_step": 0}, "tokens_per_step=0: does not divide"),
        ({"top_k": True}, "top_k=True: not of its type"),
        ({"top_p": 2.0}, "top_p=2.0: cannot be used here. Fix: use more than 0"),
        ({"max_new_tokens": "9"}, "max_new_tokens='9': not of its type. Fix: give int"),
        ({"logits_processor": [1]}, "logits_processor="),
        ({"remasking": "self_speculative"}, "remasking='self_speculative'.* decode by t3d.LLM"),
        ({"block_size": 4, "tokens_per_step": 3}, "tokens_per_step=3: does not divide block_size=4"),
        ({"block_size": 4, "steps_per_block": 5}, "steps_per_block=5"),
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"max_new_tokens": 500}, "max_new_tokens=500: .* the model has 128"),
        ({"attention_mask": torch.tensor([[1, 1, 0]])}, "attention_mask='given': not of padding on the left"),
        ({"input_ids": torch.tensor([1, 2])}, r"input_ids=\(2,\)"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_refused_by_name(loaded, given, said):
    inputs = {"input_ids": torch.tensor([[1, 2, 3]])}
    with pytest.raises(ValueError, match=said):
        generate(**(inputs | given), model=loaded.model)


def test_what_changes_nothing_is_taken(loaded):
    neutral = {"use_cache": True, "num_beams": 1, "logits_processor": [], "synced_gpus": False, "top_k": None}
    inputs, how = padded(loaded, TEXTS[:1]), {"max_new_tokens": 8, "do_sample": False}
    assert answers_of(loaded, inputs, **how, **neutral) == answers_of(loaded, inputs, **how)


def test_another_attention_is_refused(checkpoint):
    loaded = load_copy(checkpoint)
    loaded.model.config._attn_implementation = "eager"
    with pytest.raises(ValueError, match=r"attn_implementation='eager': .* load the model with sdpa"):
        generate(torch.tensor([[1, 2, 3]]), model=loaded.model, max_new_tokens=8)


def test_the_defaults_are_those_of_the_engine():
    defaults = {field.name: field.default for field in fields(Settings) if field.default is not MISSING}
    assert defaults == {name: getattr(DecodeParams, name) for name in defaults}


def test_an_export_has_the_file_and_the_ids_that_it_needs(checkpoint, tmp_path):
    """Which only the tokenizer may have named; the file imports nothing but torch and transformers."""
    loaded = load_copy(checkpoint)
    loaded.model.config.mask_token_id = None
    export_model(loaded, tmp_path / "student")
    file = tmp_path / "student" / GENERATE_FILE
    assert file.read_bytes() == Path(custom_generate.__file__).read_bytes()
    tree = ast.walk(ast.parse(file.read_text()))
    imported = {node.module for node in tree if isinstance(node, ast.ImportFrom)}
    assert imported <= {"collections.abc", "dataclasses", "typing", "torch", "transformers"}
    config, own = (
        json.loads((tmp_path / "student" / name).read_text())
        for name in ("config.json", "generation_config.json")
    )
    assert config["mask_token_id"] == loaded.mask_token_id
    stops = own["eos_token_id"]
    assert {*(stops if isinstance(stops, list) else [stops])} == {*loaded.stop_token_ids}


def test_a_model_that_was_loaded_with_its_code_may_be_given_the_file_again(loaded):
    """transformers hands these two on to the model's own ``generate``, which was an error."""
    inputs = padded(loaded, TEXTS[:1])
    told = generate(**inputs, model=loaded.model, max_new_tokens=8, temperature=0)
    again = {"custom_generate": "folder", "trust_remote_code": True}
    assert torch.equal(told, generate(**inputs, model=loaded.model, max_new_tokens=8, temperature=0, **again))


def test_what_a_generation_config_says_is_used_or_refused(loaded):
    """Its length was dropped, and so were beams."""
    inputs = padded(loaded, TEXTS[:1])
    told, num_prompt = copy.deepcopy(loaded.model.generation_config), inputs["input_ids"].shape[1]
    told.max_length = num_prompt + 3
    found = generate(**inputs, model=loaded.model, generation_config=told, temperature=0)
    assert found.shape[1] <= num_prompt + 3
    told.num_beams = 4
    with pytest.raises(ValueError, match="num_beams=4: block diffusion has no such argument"):
        generate(**inputs, model=loaded.model, generation_config=told)
