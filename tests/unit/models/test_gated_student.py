"""A student's weights act where the gate is and nowhere else, and are there what the student is."""

import dataclasses
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_gated import EVERYWHERE, GATE, forward, keys_of

from t3d.decoding import engine
from t3d.decoding.llm import LLM
from t3d.errors import InputError
from t3d.models.drafter import told_hash, with_drafter
from t3d.models.gated import attached
from t3d.models.gated_student import gate_student
from t3d.models.loading import load_model


@pytest.mark.parametrize("make", ["make_model", "make_moe_model"])
def test_with_the_gate_everywhere_the_logits_are_the_students(make, request):
    model, student = request.getfixturevalue(make)(), request.getfixturevalue(make)(seed=1)
    expected, base = forward(student), forward(model)
    gate_student(model, student)
    torch.testing.assert_close(forward(model, EVERYWHERE), expected, rtol=1e-11, atol=1e-11)
    assert (expected - base).abs().max() > 0.1


@pytest.mark.parametrize("make", ["make_model", "make_moe_model"])
def test_with_the_weights_of_the_base_nothing_changes(make, request):
    model, twin = request.getfixturevalue(make)(), request.getfixturevalue(make)()
    expected = forward(model)
    gate_student(model, twin)
    torch.testing.assert_close(forward(model, GATE), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_tokens_that_are_not_gated_are_bit_for_bit_the_bases(make_model, dtype):
    """They see no gated token, as in decoding, so that their keys and values are the base's, too."""
    model = make_model(dtype=dtype)
    base, keys = forward(model), keys_of(model, None)
    gated = gate_student(model, make_model(seed=1, dtype=dtype))
    mixed = forward(model, GATE)
    assert torch.equal(mixed[~GATE], base[~GATE])
    assert ((mixed - base)[GATE].abs().amax(-1) > 0.001).all()
    for before, after in zip(keys, keys_of(model, GATE), strict=True):
        assert torch.equal(before[~GATE], after[~GATE])
    assert torch.equal(forward(model), base)
    gated.detach()
    assert torch.equal(forward(model, GATE), base) and attached(model) is None


def test_gated_tokens_read_the_bases_keys_of_the_others(make_model):
    """Not what the student would write there: it is as if the student went on behind the base's cache."""
    model, student = make_model(), make_model(seed=1)
    alone = forward(student)
    gate_student(model, student)
    assert (forward(model, GATE) - alone)[GATE].abs().max() > 0.01


def test_chosen_logits_are_those_of_all_positions(make_model):
    model = make_model()
    gate_student(model, make_model(seed=1))
    expected = forward(model, GATE).flatten(0, 1)
    for chosen in (torch.tensor([0, 9, 11, 13, 23]), torch.tensor([1, 2]), torch.tensor([8, 20])):
        found = forward(model, GATE, logit_positions=chosen)
        torch.testing.assert_close(found, expected[chosen], rtol=1e-11, atol=1e-11)


def test_models_that_cannot_read_each_others_keys_are_refused(make_model):
    for fields in ({"head_dim": 16}, {"num_hidden_layers": 3}, {"vocab_size": 48}, {"rms_norm_eps": 1e-5}):
        ((name, value),) = fields.items()
        with pytest.raises(InputError, match=f"its {name} is {value}, that of its base"):
            gate_student(make_model(), make_model(**fields))
    with pytest.raises(InputError, match="its rope_parameters is"):
        gate_student(make_model(), make_model(rope_parameters={"rope_type": "default", "rope_theta": 5.0}))
    model = make_model()
    gate_student(model, make_model(seed=1))
    with pytest.raises(InputError, match="has a drafter already"):
        gate_student(model, make_model(seed=2))


def test_a_folder_of_a_student_drafts_for_its_teacher_and_no_other(checkpoint, tmp_path, monkeypatch):
    student = tmp_path / "student"
    shutil.copytree(checkpoint, student)
    loaded = load_model(checkpoint, device="cpu", dtype="bfloat16")
    drafted = with_drafter(loaded, student)
    assert drafted.drafter is attached(loaded.model)
    assert {weight.dtype for weight in drafted.drafter.parameters()} == {torch.bfloat16}
    assert not any(weight.requires_grad for weight in drafted.drafter.parameters())
    assert (
        drafted.identity()["drafter"] == load_model(student, device="cpu").weights_hash == told_hash(student)
    )
    drafted.drafter.detach()
    path = student / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["normalizer"] = {"type": "Lowercase"}
    path.write_text(json.dumps(tokenizer))
    monkeypatch.setattr(engine, "can_pack", lambda dtype: False)  # whatever this CPU has
    for refused in ({"max_batch_size": 0}, {"pack_weights": True}):
        with pytest.raises(InputError, match="".join(f"{name}={value}" for name, value in refused.items())):
            LLM(loaded, drafter=checkpoint, **refused)
        assert attached(loaded.model) is None, "an error leaves nothing behind"
    with pytest.raises(InputError, match=r"drafter=.*its tokenizer_hash is \w+, that of its base"):
        with_drafter(loaded, student)
    assert attached(loaded.model) is None


def test_a_student_with_weights_that_are_no_numbers_or_another_mask_is_refused(checkpoint, tmp_path):
    loaded = load_model(checkpoint, device="cpu")
    shutil.copytree(checkpoint, tmp_path / "broken")
    path = tmp_path / "broken" / "model.safetensors"
    weights = load_file(path)
    weights["model.layers.1.mlp.up_proj.weight"][0, 0] = torch.nan
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(
        InputError, match=r"weight model\.layers\.1\.mlp\.up_proj\.weight is not a finite number"
    ):
        with_drafter(loaded, tmp_path / "broken")
    other = dataclasses.replace(loaded, mask_token_id=3)
    with pytest.raises(InputError, match="its mask_token_id is"):
        with_drafter(other, checkpoint)
    assert attached(loaded.model) is None


def test_rows_of_one_forward_are_not_those_of_the_next(make_model):
    model = make_model()
    gate_student(model, make_model(seed=1))
    chosen = torch.tensor([9, 11])
    before = forward(model, None, logit_positions=chosen)
    forward(model, GATE, logit_positions=chosen)
    given = torch.ones(2, 32, dtype=torch.float64)
    assert torch.equal(model.lm_head(given), given @ model.lm_head.weight.T)
    assert torch.equal(forward(model, None, logit_positions=chosen), before)
