"""An adapter starts as the teacher, trains alone beside its reference, and merges into a plain model."""

import sys

import pytest
import torch
from torch import nn

from t3d.errors import InputError
from t3d.models.sdar import SDARForCausalLM
from t3d.training.lora import add_adapter, base_of, is_adapted, merge_adapter, remove_adapter
from t3d.training.reference import REFERENCE_ADAPTER, build_reference

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
IDS = torch.arange(24).reshape(2, 12) % 37


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits


def perturbed(model: nn.Module) -> nn.Module:
    """Give the adapter weights as training does: a new one adds nothing."""
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.normal_(std=0.2)
    return model


@pytest.mark.parametrize("make", ["make_model", "make_moe_model"])
def test_a_new_adapter_changes_nothing_and_is_all_that_trains(make, request):
    model = request.getfixturevalue(make)()
    before = logits(model)
    adapted = add_adapter(model, 4, target_modules=ATTENTION)
    assert is_adapted(adapted)
    assert torch.equal(logits(adapted), before)
    trainable = {name for name, weight in adapted.named_parameters() if weight.requires_grad}
    assert len(trainable) == 2 * len(ATTENTION) * model.config.num_hidden_layers
    assert all(".lora_A.default." in name or ".lora_B.default." in name for name in trainable)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("make", ["make_model", "make_moe_model"])
def test_merged_model_is_plain_and_has_the_adapted_models_logits(make, tied, request):
    model = request.getfixturevalue(make)(tie_word_embeddings=tied)
    kind, names = type(model), [name for name, _ in model.named_parameters()]
    start = logits(model)
    adapted = perturbed(add_adapter(model, 4, target_modules=ATTENTION))
    merged = merge_adapter(adapted)
    assert type(merged) is kind
    assert [name for name, _ in merged.named_parameters()] == names
    torch.testing.assert_close(logits(merged), logits(adapted.eval()), rtol=1e-9, atol=1e-9)
    assert (logits(merged) - start).abs().max() > 0.1


def test_merging_leaves_the_adapted_model_as_it_is(make_model):
    adapted = perturbed(add_adapter(make_model(), 4))
    state = {name: weight.clone() for name, weight in adapted.state_dict().items()}
    merged = merge_adapter(adapted)
    for weight in merged.parameters():
        weight.data.zero_()
    assert adapted.state_dict().keys() == state.keys()
    assert all(torch.equal(weight, state[name]) for name, weight in adapted.state_dict().items())
    assert adapted.active_adapters == ["default"]


def test_merging_takes_the_students_adapter_and_drops_the_references(make_model):
    adapted = add_adapter(make_model(), 4)
    build_reference(adapted, "adapter")
    perturbed(adapted)
    merged = merge_adapter(adapted)
    torch.testing.assert_close(logits(merged), logits(adapted.eval()), rtol=1e-9, atol=1e-9)
    assert not any("reference" in name for name in merged.state_dict())


def test_a_merged_model_is_saved_loaded_and_trained_as_any_other(make_model, tmp_path):
    adapted = perturbed(add_adapter(make_model(), 4))
    merged = merge_adapter(adapted)
    assert all(weight.requires_grad for weight in merged.parameters())
    merged.save_pretrained(tmp_path)
    loaded = SDARForCausalLM.from_pretrained(tmp_path, dtype=torch.float64)
    assert torch.equal(logits(loaded), logits(merged))
    assert is_adapted(add_adapter(merged, 4))


def test_a_reference_adds_one_frozen_adapter_to_the_student(make_model):
    student = add_adapter(make_model(), 4)
    next(weight for weight in student.parameters() if weight.requires_grad).requires_grad_(False)
    num_before = sum(weight.numel() for weight in student.parameters())
    trainable = {name for name, weight in student.named_parameters() if weight.requires_grad}
    num_adapter = sum(weight.numel() for name, weight in student.named_parameters() if "lora" in name)
    reference = build_reference(student, "adapter")
    assert sum(weight.numel() for weight in student.parameters()) == num_before + num_adapter
    for _ in range(2):
        assert {name for name, weight in student.named_parameters() if weight.requires_grad} == trainable
        assert student.active_adapters == ["default"]
        with reference.active():
            assert student.active_adapters == [REFERENCE_ADAPTER]


def test_dropout_is_of_the_student_only(make_model):
    student = add_adapter(make_model(), 4, dropout=0.5)
    perturbed(student)
    reference = build_reference(student.train(), "adapter")
    state = torch.get_rng_state()
    outputs = []
    for _ in range(2):
        with reference.active() as model:
            outputs.append(logits(model))
    assert torch.equal(*outputs)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(logits(student), logits(student))


@pytest.mark.filterwarnings(
    "ignore:.gradient_checkpointing_enable"
)  # its new name is not in transformers 5.20
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpointed_student_recomputes_with_its_own_adapter(make_model, use_reentrant):
    """Recomputation runs in the backward pass, after the reference's forward."""
    gradients = []
    for is_checkpointed in (False, True):
        torch.manual_seed(0)
        student = add_adapter(make_model(), 4).train()
        reference = build_reference(student, "adapter")  # the teacher: adds nothing
        perturbed(student)
        if is_checkpointed:
            student.enable_input_require_grads()
            student.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
        scores = student(input_ids=IDS, use_cache=False).logits.log_softmax(-1)
        with reference.active() as model:
            assert (logits(model) - scores).abs().max() > 0.1
        scores[..., 3].mean().backward()
        gradients.append({name: w.grad for name, w in student.named_parameters() if w.requires_grad})
    plain, recomputed = gradients
    assert all(gradient.abs().max() > 0 for gradient in plain.values())
    assert all(torch.equal(plain[name], recomputed[name]) for name in plain)


def test_a_second_reference_on_the_same_adapter_starts_from_the_student(make_model):
    student = add_adapter(make_model(), 4)
    build_reference(student, "adapter")
    perturbed(student)
    reference = build_reference(student, "adapter")
    with reference.active() as model:
        scores = logits(model)
    assert torch.equal(scores, logits(student.eval()))


def test_a_removed_adapter_leaves_the_model_that_it_was_added_to(make_model):
    model = make_model()
    before, names = logits(model), [name for name, _ in model.named_parameters()]
    adapted = perturbed(add_adapter(model, 4))
    build_reference(adapted, "adapter")
    assert base_of(adapted) is model
    assert remove_adapter(adapted) is base_of(model) is model
    assert [name for name, weight in model.named_parameters() if weight.requires_grad] == names
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize("make", ["make_model", "make_moe_model"])
def test_a_saved_adapter_is_loaded_to_the_last_bit_beside_a_reference(make, request, tmp_path):
    """As the Trainer resumes: into the adapter of that name, which stays the one that trains."""
    students = []
    for _ in range(2):
        model = request.getfixturevalue(make)()
        student = add_adapter(model, 4, target_modules=ATTENTION)
        build_reference(student, "adapter")
        students.append(student)
    perturbed(students[0]).save_pretrained(tmp_path, selected_adapters=["default"])
    assert not (tmp_path / REFERENCE_ADAPTER).exists()
    trainable = [name for name, weight in students[1].named_parameters() if weight.requires_grad]
    students[1].load_adapter(tmp_path, "default", is_trainable=True)
    saved, loaded = (dict(student.named_parameters()) for student in students)
    assert all(torch.equal(loaded[name], saved[name]) for name in trainable)
    assert [name for name, weight in loaded.items() if weight.requires_grad] == trainable


def test_layers_that_the_model_does_not_have_are_named_with_those_it_has(make_moe_model):
    """The experts' projections are stacked in two tensors, not layers."""
    expected = (
        r"no linear layer gate_proj, up_proj, down_proj\. Fix: choose from k_proj, o_proj, q_proj, v_proj"
    )
    with pytest.raises(InputError, match=expected):
        add_adapter(make_moe_model(), 16)


def test_a_model_gets_one_adapter_only(make_model):
    model = make_model()
    adapted = add_adapter(model, 4)
    for again in (adapted, model):
        with pytest.raises(InputError, match="has an adapter already"):
            add_adapter(again, 4)


def test_merging_without_an_adapter_is_an_input_error(make_model):
    with pytest.raises(InputError, match="no adapter to merge"):
        merge_adapter(make_model())


def test_without_peft_the_package_to_install_is_named(make_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(InputError, match=r"pip install t3d\[peft\]"):
        add_adapter(make_model(), 16)
