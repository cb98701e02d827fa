"""The reference is a frozen earlier student, wherever it is kept."""

import copy
import math
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import nn
from transformers import TrainerControl, TrainerState, TrainingArguments

from t3d.errors import InputError
from t3d.models.sdar import SDARForCausalLM
from t3d.training.lora import add_adapter
from t3d.training.reference import (
    REFERENCE_FILE,
    Reference,
    RefreshReference,
    build_reference,
)

PLACEMENTS = ("device", "cpu", "adapter")
IDS = torch.arange(24).reshape(2, 12) % 37


def log_probs(model: nn.Module) -> torch.Tensor:
    """Of a forward in which every position sees all others."""
    mask = torch.ones(2, 1, 12, 12, dtype=torch.bool)
    positions = torch.arange(12).expand(2, -1)
    output = model(input_ids=IDS, position_ids=positions, attention_mask=mask, use_cache=False)
    return output.logits.log_softmax(-1)


def reference_log_probs(reference) -> torch.Tensor:
    with reference.active() as model:
        return log_probs(model)


def student_log_probs(student: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return log_probs(student)


def trained(student: nn.Module, num_optimizer_steps: int = 1) -> nn.Module:
    """Move the student's trainable weights, as training does."""
    optimizer = torch.optim.AdamW([w for w in student.parameters() if w.requires_grad], lr=0.05)
    for _ in range(num_optimizer_steps):
        optimizer.zero_grad()
        log_probs(student)[..., 3].mean().backward()
        optimizer.step()
    return student


@pytest.fixture
def make_student(make_model):
    """Factory of students for a placement, in training mode: with an adapter for ``adapter``."""

    def make(placement: str, **overrides) -> nn.Module:
        model = make_model(**overrides)
        return (add_adapter(model, 4) if placement == "adapter" else model).train()

    return make


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_reference_stays_while_the_student_trains_and_is_the_student_right_after_a_refresh(
    make_student, placement, tied
):
    student = make_student(placement, tie_word_embeddings=tied)
    reference = build_reference(student, placement)
    before = student_log_probs(student)
    assert torch.equal(reference_log_probs(reference), before)
    trained(student)
    after = student_log_probs(student)
    assert (after - before).abs().max() > 0.01
    assert torch.equal(reference_log_probs(reference), before)
    reference.refresh(student)
    assert torch.equal(reference_log_probs(reference), after)
    trained(student)
    assert torch.equal(reference_log_probs(reference), after)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_every_placement_scores_as_a_deep_copy_does(make_student, placement):
    student = make_student(placement)
    reference = build_reference(student, placement)
    trained(student)
    reference.refresh(student)
    twin = copy.deepcopy(student).eval()
    trained(student)
    assert torch.equal(reference_log_probs(reference), student_log_probs(twin))


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_saved_and_loaded_reference_is_the_same_to_the_last_bit(make_student, tmp_path, placement):
    student = trained(make_student(placement))
    reference = build_reference(student, placement)
    reference.score = 1 / 3
    reference.save(tmp_path)
    other = build_reference(make_student(placement, seed=1), placement)
    assert other.score is None
    other.load(tmp_path)
    pairs = zip(reference._weights().items(), other._weights().items(), strict=True)
    assert all(own[0] == loaded[0] and torch.equal(own[1], loaded[1]) for own, loaded in pairs)
    assert other.score == 1 / 3


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_loading_what_is_absent_or_of_another_shape_is_an_input_error(make_student, tmp_path, placement):
    reference = build_reference(make_student(placement), placement)
    with pytest.raises(InputError, match=f"has no {REFERENCE_FILE}"):
        reference.load(tmp_path)
    build_reference(make_student(placement, intermediate_size=16), placement).save(tmp_path)
    before = reference_log_probs(reference)
    with pytest.raises(InputError, match=r"does not fit the reference: .*mlp"):
        reference.load(tmp_path)
    assert torch.equal(reference_log_probs(reference), before)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_using_a_reference_changes_nothing_of_the_student(make_student, placement):
    """Its gradients are those of a student without reference, to the last bit; so is everything else."""
    alone, student = make_student(placement), make_student(placement)
    student.load_state_dict(alone.state_dict())
    reference = build_reference(student, placement)
    frozen = {name: w.requires_grad for name, w in student.named_parameters()}
    training = {name: module.training for name, module in student.named_modules()}
    for model in (alone, student):
        scores = log_probs(model)
        if model is student:
            with reference.active() as frozen_model:
                assert not frozen_model.training
                assert not log_probs(frozen_model).requires_grad
        scores[..., 3].mean().backward()
    assert {name: w.requires_grad for name, w in student.named_parameters()} == frozen
    assert {name: module.training for name, module in student.named_modules()} == training
    gradients = {name: w.grad for name, w in student.named_parameters() if w.grad is not None}
    expected = {name: w.grad for name, w in alone.named_parameters() if w.grad is not None}
    assert gradients.keys() == expected.keys()
    assert all(torch.equal(gradients[name], expected[name]) for name in expected)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_student_is_as_before_when_a_reference_forward_fails(make_student, placement):
    student = make_student(placement)
    reference = build_reference(student, placement)
    before = student_log_probs(trained(student))
    with pytest.raises(RuntimeError, match="inside"), reference.active():
        raise RuntimeError("inside")
    assert student.training
    assert torch.is_grad_enabled()
    assert torch.equal(student_log_probs(student), before)


def test_weights_of_an_offloaded_reference_are_on_no_device_between_forwards(make_student):
    student = make_student("cpu")
    reference = build_reference(student, "cpu")
    reference_log_probs(reference)
    kinds = {name: weight.device.type for name, weight in reference._model.named_parameters()}
    assert kinds.pop("lm_head.weight") == "cpu"
    assert set(kinds.values()) == {"meta"}


class _ReadsTheHead(SDARForCausalLM):
    """Uses the head's weights without calling the head."""

    def forward(self, **inputs):
        output = super().forward(**inputs)
        hidden = self.model(**inputs).last_hidden_state
        output.logits = hidden @ self.lm_head.weight.T
        return output


@pytest.mark.parametrize("tied", [False, True])
def test_an_offloaded_reference_may_read_its_head_without_calling_it(make_student, tied):
    student = make_student("cpu", tie_word_embeddings=tied)
    student.__class__ = _ReadsTheHead
    reference = build_reference(student, "cpu")
    trained(student)
    reference.refresh(student)
    assert torch.equal(reference_log_probs(reference), student_log_probs(student))


def test_placements_that_do_not_go_with_the_student_are_input_errors(make_student):
    with pytest.raises(InputError, match=r"placement='adapter'.*no adapter"):
        build_reference(make_student("device"), "adapter")
    adapted = make_student("adapter")
    for placement in ("device", "cpu"):
        with pytest.raises(InputError, match=rf"placement='{placement}'.*Fix: use 'adapter'"):
            build_reference(adapted, placement)
    adapted.get_base_model().lm_head.weight.requires_grad_(True)
    with pytest.raises(InputError, match=r"besides the adapter are trained: .*lm_head"):
        build_reference(adapted, "adapter")


def accelerator(
    kind: DistributedType, is_fsdp2: bool = False, zero_stage: int | None = None, precision: str = "no"
):
    """Says that it is an accelerator of this kind."""
    plugin = None if zero_stage is None else SimpleNamespace(zero_stage=zero_stage)
    facts = {"distributed_type": kind, "is_fsdp2": is_fsdp2, "deepspeed_plugin": plugin}
    facts["mixed_precision"] = precision
    return Mock(spec=Accelerator, is_main_process=True, **facts)


def test_where_a_reference_cannot_be_sharded_as_the_student_training_does_not_begin(make_student):
    copied, offloaded, adapter = (build_reference(make_student(name), name) for name in PLACEMENTS)
    for reference in (copied, offloaded, adapter):
        reference.prepare(accelerator(DistributedType.NO))
        reference.prepare(accelerator(DistributedType.MULTI_GPU))
        reference.prepare(accelerator(DistributedType.DEEPSPEED, zero_stage=2))
        with pytest.raises(InputError, match=r"distributed='DeepSpeed ZeRO-3'.*Fix: use FSDP2"):
            reference.prepare(accelerator(DistributedType.DEEPSPEED, zero_stage=3))
        with pytest.raises(InputError, match=r"distributed='FSDP1'.*Fix: use FSDP2"):
            reference.prepare(accelerator(DistributedType.FSDP))
    with pytest.raises(InputError, match=r"placement='cpu'.*Fix: use 'device'"):
        offloaded.prepare(accelerator(DistributedType.FSDP, is_fsdp2=True))


def test_a_reference_is_rounded_where_deepspeed_rounds_the_student_and_nowhere_else(make_student):
    """Its buffers stay, as the student's do."""
    students = [make_student(name).float() for name in PLACEMENTS]
    copied, offloaded, adapter = map(build_reference, students, PLACEMENTS)
    rounding = accelerator(DistributedType.DEEPSPEED, zero_stage=1, precision="bf16")
    with pytest.raises(InputError, match="placement='cpu': does not go with DeepSpeed in bfloat16"):
        offloaded.prepare(rounding)
    adapter.prepare(rounding)  # a part of the student, which DeepSpeed rounds as a whole
    copied.prepare(accelerator(DistributedType.MULTI_GPU, precision="bf16"))
    with copied.active() as model:
        assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    copied.prepare(rounding)
    with copied.active() as model:
        assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
        assert {buffer.dtype for buffer in model.buffers()} == {torch.float32}


def test_only_the_first_process_writes(make_student, tmp_path):
    reference = build_reference(make_student("device"), "device")
    other = accelerator(DistributedType.MULTI_GPU)
    other.is_main_process = False
    reference.prepare(other)
    reference.save(tmp_path)
    assert not list(tmp_path.iterdir())


class _Recorder(Reference):
    """Only remembers which students it was refreshed from."""

    active = _weights = None

    def __init__(self) -> None:
        self.copies: list[str] = []

    def refresh(self, student: str) -> None:
        self.copies.append(student)


def run_callback(callback: RefreshReference, tmp_path, steps: range) -> None:
    args = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none")
    state, control = TrainerState(), TrainerControl()
    callback.on_train_begin(args, state, control)
    for step in steps:
        state.global_step = step
        callback.on_step_end(args, state, control, model=f"student {step}")


def test_latest_student_is_copied_at_every_refresh(tmp_path):
    reference = _Recorder()
    run_callback(RefreshReference(reference, 3), tmp_path, range(1, 10))
    assert reference.copies == ["student 3", "student 6", "student 9"]


def test_best_keeps_the_best_student_seen_at_a_refresh(tmp_path):
    """Scores 0.5 untouched, then 0.4, 0.6, 0.55, 0.6: copied at the second and, as good, at the fourth."""
    reference, scores = _Recorder(), iter([0.5, 0.4, 0.6, 0.55, 0.6])
    run_callback(RefreshReference(reference, 2, "best", lambda: next(scores)), tmp_path, range(1, 9))
    assert reference.copies == ["student 4", "student 8"]
    assert reference.score == 0.6
    assert next(scores, math.inf) == math.inf


def test_a_resumed_run_goes_on_with_the_score_of_the_checkpoint(tmp_path):
    """0.6 came with the checkpoint, so the first score asked for is that of step 6."""
    reference, scores = _Recorder(), iter([0.55, 0.7])
    reference.score = 0.6
    run_callback(RefreshReference(reference, 2, "best", lambda: next(scores)), tmp_path, range(5, 9))
    assert reference.copies == ["student 8"]
