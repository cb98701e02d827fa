"""Two processes against one that does all: tensor parallelism, and a reference sharded by FSDP2."""

import json

import pytest
import torch
from process_helpers import run_two_processes
from safetensors.torch import load_file

from t3d import LLM, DecodeParams
from t3d.models.loading import load_model
from t3d.training.reference import REFERENCE_FILE

HAS_GLOO = torch.distributed.is_available() and torch.distributed.is_gloo_available()
ACCELERATOR = torch.accelerator.current_accelerator()
CAN_DECODE = HAS_GLOO and (ACCELERATOR is None or torch.accelerator.device_count() >= 2)
CAN_SHARD = HAS_GLOO and ACCELERATOR is None
can_decode = pytest.mark.skipif(
    not CAN_DECODE, reason="needs gloo, or two devices where PyTorch is built for an accelerator"
)
can_shard = pytest.mark.skipif(
    not CAN_SHARD,
    reason="needs gloo, and accelerate's FSDP on CPUs is only for a PyTorch built for nothing else",
)

pytestmark = pytest.mark.slow  # two processes that import everything: 18 s of two cores; .ci/run runs them
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

PLACEMENTS = ("device", "adapter")

# What both the worker and the test run: train two steps, refresh, train on.
STEPS = """
import torch
from t3d.training.lora import add_adapter
from t3d.training.reference import build_reference

IDS = torch.arange(24).reshape(2, 12) % 37

def log_probs(model):
    return model(input_ids=IDS, use_cache=False).logits.log_softmax(-1)

def build_whole(load_model, folder, placement):
    student = load_model(folder, device="cpu", dtype="float64").model.train()
    if placement == "adapter":
        torch.manual_seed(0)
        student = add_adapter(student, 4)
    optimizer = torch.optim.SGD([w for w in student.parameters() if w.requires_grad], lr=1.0)
    return student, optimizer, build_reference(student, placement)

def run(student, optimizer, reference):
    seen = []
    def look():
        with reference.active() as model:
            seen.append(log_probs(model))
    def train():
        for _ in range(2):
            optimizer.zero_grad()
            scores = log_probs(student)
            look()  # between the student's forward and backward, as in training
            scores[..., 3].mean().backward()
            optimizer.step()
    look()
    train()
    with torch.no_grad():
        log_probs(student)  # as an evaluation: what FSDP gathers for it is not freed by a backward
    reference.refresh(student)
    look()
    train()
    return seen
"""
IMPORTS = (
    """
import json, os, sys
import t3d.models
from transformers import AutoConfig

work = json.loads(sys.argv[1])
with open(os.path.join(work["output"], "config"), "w") as stream:
    stream.write(type(AutoConfig.for_model("sdar")).__name__)

from accelerate import Accelerator, FullyShardedDataParallelPlugin, PartialState
from accelerate.utils import DistributedType
from t3d import LLM, DecodeParams
from t3d.models.loading import load_model
"""
    + STEPS
)
DECODE = """
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
with open(os.path.join(work["output"], "decode" + os.environ["RANK"] + ".json"), "w") as stream:
    json.dump(result, stream)
"""
SHARD = """
torch.set_num_threads(1)
accelerator = Accelerator(cpu=True)
# accelerate offers FSDP2 on accelerators only, but nothing in it needs one.
accelerator.state.distributed_type = PartialState().distributed_type = DistributedType.FSDP
accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(
    fsdp_version=2, auto_wrap_policy="transformer_based_wrap", cpu_ram_efficient_loading=False
)

def build(placement):
    student, optimizer, reference = build_whole(load_model, work["folders"]["untied"], placement)
    student, optimizer = accelerator.prepare(student, optimizer)
    reference.prepare(accelerator)
    return student, optimizer, reference

results = {}
for placement in work["placements"]:
    folder = os.path.join(work["output"], placement)
    os.makedirs(folder, exist_ok=True)
    student, optimizer, reference = build(placement)
    seen = run(student, optimizer, reference)
    shares = [w.to_local().numel() / w.numel() for w in reference._weights().values()]
    reference.score = 0.25
    reference.save(folder)
    accelerator.wait_for_everyone()
    _, _, resumed = build(placement)
    resumed.load(folder)
    assert resumed.score == 0.25
    with resumed.active() as model:
        seen.append(log_probs(model))
    results[placement] = {"seen": seen, "shares": shares}
torch.save(results, os.path.join(work["output"], os.environ["RANK"] + ".pt"))
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
def output(tmp_path_factory, folders):
    """Folder with what each of two processes made of every work."""
    output = tmp_path_factory.mktemp("ranks")
    work = {"folders": {name: str(path) for name, path in folders.items()}, "output": str(output)}
    work |= {"engine": ENGINE, "prompts": PROMPTS, "settings": SETTINGS, "placements": PLACEMENTS}
    works = [DECODE] * CAN_DECODE + [SHARD] * CAN_SHARD
    run_two_processes(IMPORTS, works, output, [json.dumps(work)])
    return output


@pytest.fixture(scope="module")
def shared(output):
    """What each of two processes that share the models makes of the prompts."""
    return [json.loads((output / f"decode{rank}.json").read_text()) for rank in (0, 1)]


@can_decode
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


@can_decode
def test_a_shared_model_is_told_from_a_whole_one_by_its_number_of_processes_alone(folders, shared):
    """In fewer bits its sums round otherwise, so results of both are not to stand in one folder."""
    for name, folder in folders.items():
        expected = load_model(folder, dtype="float64").identity()
        expected["tensor_parallel"] = 2
        assert [shared[rank][name]["identity"] for rank in (0, 1)] == [expected] * 2


@can_shard
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_sharded_reference_scores_as_a_whole_one_before_and_after_a_refresh(checkpoint, output, placement):
    names: dict = {}
    exec(STEPS, names)
    student, optimizer, reference = names["build_whole"](load_model, checkpoint, placement)
    expected = names["run"](student, optimizer, reference)
    assert (expected[-1] - expected[0]).abs().max() > 0.01  # the refresh shows
    for rank in (0, 1):
        result = torch.load(output / f"{rank}.pt")[placement]
        *seen, resumed = result["seen"]
        for own, other in zip(seen, expected, strict=True):
            torch.testing.assert_close(own, other, rtol=1e-9, atol=1e-9)
        assert torch.equal(resumed, seen[-1])
        assert sum(result["shares"]) < 0.6 * len(result["shares"])
    saved = load_file(output / placement / REFERENCE_FILE)
    assert saved.keys() == reference._weights().keys()
    for name, weight in reference._weights().items():
        torch.testing.assert_close(saved[name], weight.detach(), rtol=1e-9, atol=1e-9)


def test_importing_the_models_registers_the_auto_classes(output):
    """Looked at in a process that had imported nothing else of t3d; here they are registered already."""
    assert (output / "config").read_text() == "SDARConfig"
