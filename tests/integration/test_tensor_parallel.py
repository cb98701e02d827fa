"""Two processes that share a model decode as one process that holds it whole."""

import json

import pytest
import torch
from process_helpers import run_two_processes

from t3d import LLM, DecodeParams
from t3d.errors import InputError
from t3d.models.export import export_model
from t3d.models.loading import load_model

ACCELERATOR = torch.accelerator.current_accelerator()
needs_two_devices = pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available())
    or (ACCELERATOR is not None and torch.accelerator.device_count() < 2),
    reason="needs gloo, or two devices where PyTorch is built for an accelerator",
)

PROMPTS = [list(range(20, 41)), list(range(60, 77)), [5, 9, 11], [7]]
SETTINGS = {
    "greedy": {
        "temperature": 0.0,
        "remasking": "low_confidence_dynamic",
        "confidence_threshold": 0.5,
        "max_new_tokens": 14,
    },
    "sampled": {
        "temperature": 1.0,
        "top_p": 0.9,
        "block_size": 8,
        "steps_per_block": 4,
        "remasking": "random",
        "max_new_tokens": 14,
    },
}
# Two slots for four prompts; a prefill budget below the first prompts gives forwards without logits.
ENGINE = {"dtype": "float64", "max_batch_size": 2, "max_prefill_tokens": 8}

IMPORTS = """
import json, os, sys
from t3d import LLM, DecodeParams
"""
WORKER = """
work = json.loads(sys.argv[1])
result = {}
for name, folder in work["folders"].items():
    llm = LLM(folder, tp_plan="auto", **work["engine"])
    completions = {
        setting: [
            [c.response_ids, c.step_map, c.finish_reason, c.text, c.logprobs]
            for c in llm.generate(work["prompts"], DecodeParams(**fields), progress=False)
        ]
        for setting, fields in work["settings"].items()
    }
    weights = [p.to_local() if hasattr(p, "to_local") else p for p in llm.loaded.model.parameters()]
    result[name] = {
        "completions": completions,
        "identity": llm.loaded.identity(),
        "kv_bytes": llm.stats.kv_bytes,
        "num_weights": sum(part.numel() for part in weights),
    }
with open(os.path.join(work["output"], os.environ["RANK"] + ".json"), "w") as stream:
    json.dump(result, stream)
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory, checkpoint, make_model, make_moe_model, tiny_tokenizer):
    """Checkpoints: a head of its own, a head tied to the embedding, a mixture of experts."""
    ids = {
        "vocab_size": len(tiny_tokenizer),
        "mask_token_id": tiny_tokenizer.mask_token_id,
        "eos_token_id": tiny_tokenizer.eos_token_id,
        "pad_token_id": tiny_tokenizer.pad_token_id,
    }
    models = {"tied": make_model(tie_word_embeddings=True, **ids), "experts": make_moe_model(**ids)}
    paths = {"untied": checkpoint}
    for name, model in models.items():
        paths[name] = tmp_path_factory.mktemp("tensor_parallel") / name
        model.save_pretrained(paths[name])
        tiny_tokenizer.save_pretrained(paths[name])
    return paths


@pytest.fixture(scope="module")
def shared(tmp_path_factory, folders):
    """What each of two processes that share the models makes of the prompts."""
    output = tmp_path_factory.mktemp("ranks")
    work = {"folders": {name: str(path) for name, path in folders.items()}, "output": str(output)}
    work |= {"engine": ENGINE, "prompts": PROMPTS, "settings": SETTINGS}
    run_two_processes(IMPORTS, WORKER, output, [json.dumps(work)])
    return [json.loads((output / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.fixture
def launched(monkeypatch):
    """Make this process look like one that torchrun started, of as many as are asked for."""

    def launch(size):
        for name, value in (("RANK", 0), ("LOCAL_RANK", 0), ("WORLD_SIZE", size)):
            monkeypatch.setenv(name, str(value))

    return launch


@needs_two_devices
@pytest.mark.parametrize("name", ["untied", "tied", "experts"])
def test_every_process_decodes_as_a_single_one_with_its_share_of_weights_and_keys(name, folders, shared):
    llm = LLM(folders[name], **ENGINE)
    for setting, fields in SETTINGS.items():
        alone = llm.generate(PROMPTS, DecodeParams(**fields), progress=False)
        for own, expected in zip(shared[0][name]["completions"][setting], alone, strict=True):
            response_ids, step_map, finish_reason, text, logprobs = own
            assert response_ids == list(expected.response_ids)
            assert step_map == list(expected.step_map)
            assert (finish_reason, text) == (expected.finish_reason, expected.text)
            assert logprobs == pytest.approx(expected.logprobs, abs=1e-9)
    assert shared[1][name]["completions"] == shared[0][name]["completions"]  # to the last bit
    num_weights = sum(weight.numel() for weight in llm.loaded.model.parameters())
    for rank in (0, 1):
        assert 2 * shared[rank][name]["kv_bytes"] == llm.stats.kv_bytes
        # Norms and router are whole in each process, and so is the embedding in transformers 5.20.
        assert shared[rank][name]["num_weights"] < 0.7 * num_weights


@needs_two_devices
def test_sharing_a_model_does_not_change_its_identity(folders, shared):
    """Results of one process and of several may stand in one folder."""
    for name, folder in folders.items():
        expected = load_model(folder, dtype="float64").identity()
        assert [shared[rank][name]["identity"] for rank in (0, 1)] == [expected] * 2


@needs_two_devices
def test_a_process_that_torchrun_started_alone_holds_the_whole_model(checkpoint, launched):
    launched(1)
    loaded = load_model(checkpoint, tp_plan="auto")
    assert {type(weight) for weight in loaded.model.parameters()} == {torch.nn.Parameter}


@pytest.mark.parametrize("load", [load_model, LLM])
def test_sharing_without_torchrun_is_an_input_error(load, checkpoint, monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(InputError, match=r"tp_plan='auto'.*WORLD_SIZE.*not set.*Fix: .*torchrun"):
        load(checkpoint, tp_plan="auto")


def test_an_unknown_plan_is_an_input_error(checkpoint, launched):
    launched(2)
    with pytest.raises(InputError, match="tp_plan='rowwise': not known"):
        load_model(checkpoint, tp_plan="rowwise")


def test_processes_that_cannot_share_the_heads_are_refused(checkpoint, launched):
    """Otherwise the first forward would fail: a process would get a part of a head."""
    launched(4)
    with pytest.raises(InputError, match="4 processes cannot share 2 key-value heads"):
        load_model(checkpoint, tp_plan="auto")


@needs_two_devices
def test_a_device_that_processes_do_not_share_on_is_refused(checkpoint, launched):
    launched(2)
    other = "cuda" if ACCELERATOR is None else "cpu"
    with pytest.raises(InputError, match=f"device='{other}': processes that share a model use"):
        load_model(checkpoint, device=other, tp_plan="auto")


def test_a_process_without_a_device_of_its_own_is_refused(checkpoint, launched, monkeypatch):
    """As when torchrun starts more processes than the machine has GPUs."""
    launched(2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    with pytest.raises(InputError, match=r"tp_plan='auto': process 1 of this machine has no cuda device"):
        load_model(checkpoint, tp_plan="auto")


def test_a_model_in_memory_cannot_be_shared_any_more(checkpoint):
    with pytest.raises(InputError, match="tp_plan='auto': the model is in memory already"):
        LLM(load_model(checkpoint, device="cpu"), tp_plan="auto")


def test_a_shared_model_is_not_exported(checkpoint, tmp_path, monkeypatch):
    """Its processes would write into each other's folder."""
    loaded = load_model(checkpoint, device="cpu")
    monkeypatch.setattr(loaded.model, "_tp_size", 2)
    with pytest.raises(InputError, match="shared by 2 processes"):
        export_model(loaded, tmp_path / "export")
    assert not list(tmp_path.iterdir())
