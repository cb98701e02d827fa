"""The folder of a drafter: PEFT's files, for one base, and nothing that another adapter could smuggle in."""

import importlib
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from t3d.errors import InputError
from t3d.models.drafter import load_drafter, save_drafter
from t3d.models.gated import add_gated_adapter, attached
from t3d.models.loading import adopt_model, load_model

IDS = torch.arange(12)[None]
EVERYWHERE = torch.arange(12)


@pytest.fixture(scope="module")
def saved(checkpoint, tmp_path_factory):
    """(folder of a drafter with random weights, its logits on masks with the gate everywhere)."""
    folder = tmp_path_factory.mktemp("drafters") / "drafter"
    loaded = load_model(checkpoint, device="cpu", dtype="float64")
    adapter = add_gated_adapter(loaded.model, 3, alpha=6.0, mask_token_id=loaded.mask_token_id)
    with torch.no_grad():
        for weight in adapter.parameters():
            weight.normal_(std=0.2)
    save_drafter(adapter, loaded, folder, lambda made: (made / "training.json").write_text("{}"))
    return folder, logits(loaded)


def logits(loaded, gated=True):
    ids = torch.full_like(IDS, loaded.mask_token_id)
    gate = {"gated_positions": EVERYWHERE} if gated else {}
    with torch.no_grad():
        return loaded.model(input_ids=ids, use_cache=False, **gate).logits


def changed(saved, tmp_path, name, **fields):
    folder = tmp_path / "changed"
    shutil.copytree(saved[0], folder)
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return folder


def test_a_drafter_comes_back_as_it_was(checkpoint, saved):
    folder, expected = saved
    loaded = load_model(checkpoint, device="cpu", dtype="float64")
    adapter = load_drafter(loaded, folder)
    assert attached(loaded.model) is adapter
    assert not any(weight.requires_grad for weight in adapter.parameters())
    assert torch.equal(logits(loaded), expected)
    assert sorted(path.name for path in folder.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "drafter.json",
        "training.json",
    ]


def test_it_takes_the_precision_of_its_base(checkpoint, saved):
    loaded = load_model(checkpoint, device="cpu", dtype="bfloat16")
    adapter = load_drafter(loaded, saved[0])
    assert {weight.dtype for weight in adapter.parameters()} == {torch.bfloat16}
    assert torch.isfinite(logits(loaded)).all()


def test_peft_loads_it_too(checkpoint, saved):
    peft = importlib.import_module("peft")
    folder, expected = saved
    loaded = load_model(checkpoint, device="cpu", dtype="float64")
    adapted = peft.PeftModel.from_pretrained(loaded.model, folder, autocast_adapter_dtype=False).eval()
    with torch.no_grad():
        ids = torch.full_like(IDS, loaded.mask_token_id)
        found = adapted(input_ids=ids, use_cache=False).logits
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


def test_another_base_is_refused_in_one_line(saved, checkpoint, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(checkpoint, other)
    weights = load_file(other / "model.safetensors")
    name = next(iter(weights))
    save_file({**weights, name: weights[name] + 1}, other / "model.safetensors", {"format": "pt"})
    loaded = load_model(other, device="cpu")
    with pytest.raises(InputError) as error:
        load_drafter(loaded, saved[0])
    assert error.value.field == "drafter" and str(saved[0]) in str(error.value)
    assert "drafts for the weights" in str(error.value) and "\n" not in str(error.value)
    assert attached(loaded.model) is None


def test_a_folder_of_a_drafter_is_no_model(saved):
    with pytest.raises(InputError, match="an adapter, without the model"):
        load_model(saved[0], device="cpu")


def test_a_drafter_beside_weights_of_a_model_is_still_refused(saved, checkpoint, tmp_path):
    folder = tmp_path / "both"
    shutil.copytree(checkpoint, folder)
    shutil.copy(saved[0] / "adapter_config.json", folder)
    with pytest.raises(InputError, match=r"adapter_config\.json"):
        load_model(folder, device="cpu")


@pytest.mark.parametrize(
    ("name", "fields", "problem"),
    [
        ("adapter_config.json", {"use_dora": True}, "use_dora"),
        ("adapter_config.json", {"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ("adapter_config.json", {"rank_pattern": {"q_proj": 9}}, "rank_pattern"),
        ("adapter_config.json", {"peft_type": "IA3"}, "peft_type"),
        ("adapter_config.json", {"r": 4}, "do not fit"),
        ("adapter_config.json", {"r": None}, "cannot be read"),
        ("adapter_config.json", {"target_modules": ["q_proj"]}, "do not fit"),
        ("adapter_config.json", {"target_modules": ["nope"]}, "no linear layer nope"),
        ("adapter_config.json", {"trainable_token_indices": [5]}, "token 5"),
        ("drafter.json", {"base": {}}, "names no base"),
    ],
)
def test_adapters_of_another_kind_are_refused(checkpoint, saved, tmp_path, name, fields, problem):
    loaded = load_model(checkpoint, device="cpu")
    with pytest.raises(InputError, match=problem):
        load_drafter(loaded, changed(saved, tmp_path, name, **fields))
    assert attached(loaded.model) is None


def test_missing_damaged_and_linked_files_are_refused(checkpoint, saved, tmp_path):
    loaded = load_model(checkpoint, device="cpu")
    with pytest.raises(InputError, match=r"no adapter_config\.json"):
        load_drafter(loaded, tmp_path)
    folder = changed(saved, tmp_path, "drafter.json")
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:50])
    with pytest.raises(InputError, match="cannot be read"):
        load_drafter(loaded, folder)
    weights.unlink()
    weights.symlink_to(saved[0] / "adapter_model.safetensors")
    with pytest.raises(InputError, match="link"):
        load_drafter(loaded, folder)


def test_a_base_without_files_and_broken_weights_are_not_saved(checkpoint, tmp_path):
    loaded = load_model(checkpoint, device="cpu")
    adapter = add_gated_adapter(loaded.model, 2)
    unknown = adopt_model(loaded.model, loaded.tokenizer)
    with pytest.raises(InputError, match="not loaded from a checkpoint"):
        save_drafter(adapter, unknown, tmp_path / "drafter")
    with torch.no_grad():
        next(adapter.parameters())[0] = torch.nan
    with pytest.raises(InputError, match="not a finite number"):
        save_drafter(adapter, loaded, tmp_path / "drafter")
    assert list(tmp_path.iterdir()) == []
