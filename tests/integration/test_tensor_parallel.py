"""What is asked of processes that share a model; what they decode is in test_two_processes.py."""

import pytest
import torch

from t3d import LLM
from t3d.errors import InputError
from t3d.models.export import export_model
from t3d.models.loading import load_model

ACCELERATOR = torch.accelerator.current_accelerator()
needs_two_devices = pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available())
    or (ACCELERATOR is not None and torch.accelerator.device_count() < 2),
    reason="needs gloo, or two devices where PyTorch is built for an accelerator",
)


@pytest.fixture
def launched(monkeypatch):
    """Make this process look like one that torchrun started, of as many as are asked for."""

    def launch(size):
        for name, value in (("RANK", 0), ("LOCAL_RANK", 0), ("WORLD_SIZE", size)):
            monkeypatch.setenv(name, str(value))

    return launch


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
