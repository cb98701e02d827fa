"""accelerate's settings: the shipped ones, a file, and what is refused before anything is loaded."""

import argparse
from types import SimpleNamespace

import pytest
import torch
import yaml
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

from t3d.cli import accelerate_settings
from t3d.cli.accelerate_settings import accelerate_file, check_started, checked_file
from t3d.errors import InputError

SHIPPED = ("ddp", "fsdp2", "zero1")
FSDP2 = yaml.safe_load(accelerate_file("fsdp2").read_text())
ZERO1 = yaml.safe_load(accelerate_file("zero1").read_text())


def launched(name: str) -> argparse.Namespace:
    """What accelerate's launcher makes of the settings."""
    line = ["--config_file", str(accelerate_file(name)), "--num_processes", "2", "-m", "t3d", "train"]
    return _validate_launch_command(launch_command_parser().parse_args(line))[0]


def test_the_shipped_settings_are_named_in_the_help_and_known_to_accelerate(monkeypatch):
    monkeypatch.setattr(accelerate_settings, "find_spec", lambda name: SimpleNamespace(name=name))
    assert tuple(path.stem for path in sorted(accelerate_file("ddp").parent.iterdir())) == SHIPPED
    for name in SHIPPED:
        assert checked_file(name, "cuda") == accelerate_file(name)
        assert launched(name).num_processes == 2


def test_accelerate_tells_the_processes_what_the_shipped_settings_say():
    told = prepare_multi_gpu_env(launched("fsdp2"))
    names = ("ACCELERATE_USE_FSDP", "FSDP_VERSION", "FSDP_RESHARD_AFTER_FORWARD", "FSDP_AUTO_WRAP_POLICY")
    assert [told[name] for name in names] == ["true", "2", "true", "TRANSFORMER_BASED_WRAP"]
    assert told["FSDP_CPU_RAM_EFFICIENT_LOADING"] == "false"


def test_zero1_is_what_accelerate_tells_deepspeed(monkeypatch):
    """All that can be seen of it without the package."""
    arguments = launched("zero1")
    assert arguments.use_deepspeed
    arguments.deepspeed_fields_from_accelerate_config = ""
    told = prepare_deepspeed_cmd_env(arguments)[1]
    names = ("USE_DEEPSPEED", "DEEPSPEED_ZERO_STAGE", "DEEPSPEED_ZERO3_INIT", "GRADIENT_ACCUMULATION_STEPS")
    assert [told[f"ACCELERATE_{name}"] for name in names] == ["true", "1", "false", "auto"]
    assert told["ACCELERATE_GRADIENT_CLIPPING"] == "auto"  # the trainer's


def test_deepspeed_is_refused_where_it_is_absent_or_would_train_elsewhere(monkeypatch):
    monkeypatch.setattr(accelerate_settings, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs the package deepspeed\. Fix: pip install deepspeed"):
        checked_file("zero1", "cuda")
    monkeypatch.setattr(accelerate_settings, "find_spec", lambda name: SimpleNamespace(name=name))
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: None)
    assert checked_file("zero1", "cpu") == accelerate_file("zero1")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    with pytest.raises(InputError, match="DeepSpeed would train on this machine's accelerator"):
        checked_file("zero1", "cpu")


def changed(told: dict, section: str, **further) -> dict:
    return {**told, section: {**told[section], **further}}


@pytest.mark.parametrize(
    ("told", "match"),
    [
        ("{", "no YAML"),
        ("- 1", "no settings of accelerate"),
        ({**FSDP2, "num_procs": 2}, "not known to accelerate: num_procs. Fix: correct"),
        (changed(FSDP2, "fsdp_config", fsdp_verion=2), "not known to accelerate: fsdp_config.fsdp_verion"),
        (changed(ZERO1, "deepspeed_config", stage=1), "not known to accelerate: deepspeed_config.stage"),
        ({"distributed_type": "MULTI_CPU"}, "MULTI_CPU does not start processes that train together"),
        ({"distributed_type": "NO"}, "NO does not start"),
        ({"mixed_precision": "no"}, "distributed_type=None does not start"),
        (changed(FSDP2, "fsdp_config", fsdp_version=1), "FSDP1: the reference cannot be sharded"),
        ({"distributed_type": "FSDP"}, "FSDP1: the reference cannot be sharded"),
        (
            changed(ZERO1, "deepspeed_config", zero_stage=3),
            "DeepSpeed ZeRO-3: the reference cannot be sharded like the student.*Fix: use FSDP2",
        ),
    ],
)
def test_a_file_that_cannot_train_is_refused_by_what_it_says(tmp_path, told, match):
    path = tmp_path / "mine.yaml"
    path.write_text(told if isinstance(told, str) else yaml.safe_dump(told))
    with pytest.raises(InputError, match=match) as caught:
        checked_file(str(path), "cuda")
    assert str(path) in str(caught.value)


def test_zero3_in_deepspeeds_own_file_is_refused(tmp_path):
    (tmp_path / "ds.json").write_text('{"zero_optimization": {"stage": 3}}')
    told = {"distributed_type": "DEEPSPEED"}
    told["deepspeed_config"] = {"deepspeed_config_file": str(tmp_path / "ds.json")}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(told))
    with pytest.raises(InputError, match="DeepSpeed ZeRO-3"):
        checked_file(str(tmp_path / "mine.yaml"), "cuda")


def test_a_file_of_accelerate_config_is_taken(tmp_path):
    told = {"distributed_type": "MULTI_GPU", "num_processes": 4, "gpu_ids": "all", "downcast_bf16": "no"}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(told))
    assert checked_file(str(tmp_path / "mine.yaml"), "cpu") == tmp_path / "mine.yaml"


def test_processes_that_accelerate_started_to_share_more_are_refused(monkeypatch):
    check_started()
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(InputError, match="distributed='FSDP1'"):
        check_started()
    monkeypatch.setenv("FSDP_VERSION", "2")
    check_started()
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "3")
    with pytest.raises(InputError, match="distributed='DeepSpeed ZeRO-3'"):
        check_started()
