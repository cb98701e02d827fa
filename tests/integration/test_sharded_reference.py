"""Two processes that shard student and reference (FSDP2) have the reference of one that holds them whole."""

import json

import pytest
import torch
from process_helpers import run_two_processes
from safetensors.torch import load_file

from t3d.models.loading import load_model
from t3d.training.reference import REFERENCE_FILE

pytestmark = pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available())
    or torch.accelerator.current_accelerator() is not None,
    reason="needs gloo, and accelerate's FSDP on CPUs is only for a PyTorch built for nothing else",
)

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
    STEPS
    + """
import json, os, sys
from accelerate import Accelerator, FullyShardedDataParallelPlugin, PartialState
from accelerate.utils import DistributedType
from t3d.models.loading import load_model
"""
)
WORKER = """
torch.set_num_threads(1)
work = json.loads(sys.argv[1])
accelerator = Accelerator(cpu=True)
# accelerate offers FSDP2 on accelerators only, but nothing in it needs one.
accelerator.state.distributed_type = PartialState().distributed_type = DistributedType.FSDP
accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(
    fsdp_version=2, auto_wrap_policy="transformer_based_wrap", cpu_ram_efficient_loading=False
)

def build(placement):
    student, optimizer, reference = build_whole(load_model, work["folder"], placement)
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
torch.distributed.destroy_process_group()
"""


@pytest.fixture(scope="module")
def sharded(checkpoint, tmp_path_factory):
    """Folder with what each of two processes saw, and the references they saved."""
    output = tmp_path_factory.mktemp("sharded")
    work = {"folder": str(checkpoint), "output": str(output), "placements": PLACEMENTS}
    run_two_processes(IMPORTS, WORKER, output, [json.dumps(work)])
    return output


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_sharded_reference_scores_as_a_whole_one_before_and_after_a_refresh(checkpoint, sharded, placement):
    names: dict = {}
    exec(STEPS, names)
    student, optimizer, reference = names["build_whole"](load_model, checkpoint, placement)
    expected = names["run"](student, optimizer, reference)
    assert (expected[-1] - expected[0]).abs().max() > 0.01  # the refresh shows
    for rank in (0, 1):
        result = torch.load(sharded / f"{rank}.pt")[placement]
        *seen, resumed = result["seen"]
        for own, other in zip(seen, expected, strict=True):
            torch.testing.assert_close(own, other, rtol=1e-9, atol=1e-9)
        assert torch.equal(resumed, seen[-1])
        assert sum(result["shares"]) < 0.6 * len(result["shares"])
    saved = load_file(sharded / placement / REFERENCE_FILE)
    assert saved.keys() == reference._weights().keys()
    for name, weight in reference._weights().items():
        torch.testing.assert_close(saved[name], weight.detach(), rtol=1e-9, atol=1e-9)
