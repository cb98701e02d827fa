"""accelerate's settings for several processes: the shipped ones, a user's file, and what they may not say."""

import dataclasses
import json
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from t3d.errors import InputError

_SHIPPED = Path(__file__).parent / "accelerate_configs"
_KINDS = ("MULTI_GPU", "FSDP", "DEEPSPEED")
"""Of accelerate's kinds those whose launcher starts every process, on CPUs too."""
_UNSHARDED = "the reference cannot be sharded like the student, which it is compared with and refreshed from"
_FSDP2 = "use FSDP2: --accelerate-config fsdp2, or fsdp_version: 2 in accelerate's settings"


def accelerate_file(name: str) -> Path:
    """accelerate's settings: shipped ones by their name, or a YAML file. Raises InputError for neither."""
    shipped = {path.stem: path for path in sorted(_SHIPPED.glob("*.yaml"))}
    if name not in shipped and not Path(name).is_file():
        fix = f"use one of {', '.join(shipped)}, or a YAML file that accelerate config wrote"
        raise InputError("accelerate_config", name, "not known, and no such file", fix)
    return shipped.get(name, Path(name))


def checked_file(name: str, device: str) -> Path:
    """The same, once what it says is known to accelerate and can train on this kind of device.

    Raises InputError for keys that accelerate does not know (it would leave out those of ``fsdp_config`` and
    ``deepspeed_config`` without a word), for kinds whose launcher starts one process only, for FSDP1 and
    DeepSpeed ZeRO-3, and for DeepSpeed where it is not installed or would train elsewhere.
    """
    path = accelerate_file(name)
    told = _read(path)
    _check_keys(path, told)
    kind = told.get("distributed_type")
    if kind not in _KINDS:
        fix = f"use one of {', '.join(_KINDS)}"
        raise _refused(path, f"distributed_type={kind} does not start processes that train together", fix)
    if kind == "FSDP":
        _check_fsdp(path, told.get("fsdp_config") or {})
    if kind == "DEEPSPEED":
        _check_deepspeed(path, told.get("deepspeed_config") or {}, device)
    return path


def check_started() -> None:
    """Raise InputError where accelerate or torchrun started this process to share what cannot be shared."""

    def is_on(name: str) -> bool:
        return os.environ.get(name, "false").lower() == "true"

    stage = os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE")
    if is_on("ACCELERATE_USE_DEEPSPEED") and stage == "3":
        raise InputError("distributed", "DeepSpeed ZeRO-3", _UNSHARDED, f"{_FSDP2}, or ZeRO-1 or 2")
    if is_on("ACCELERATE_USE_FSDP") and os.environ.get("FSDP_VERSION", "1") != "2":
        raise InputError("distributed", "FSDP1", _UNSHARDED, _FSDP2)


def _check_fsdp(path: Path, told: Mapping[str, Any]) -> None:
    """Raise InputError for FSDP1, which is accelerate's default."""
    if str(told.get("fsdp_version", 1)) != "2":
        raise _refused(path, f"FSDP1: {_UNSHARDED}", _FSDP2)


def _check_deepspeed(path: Path, told: Mapping[str, Any], device: str) -> None:
    further = told.get("deepspeed_config_file")
    stage = told.get("zero_stage")
    if further is not None:
        stage = _stage_of(path, Path(further))
    if stage == 3:
        raise _refused(path, f"DeepSpeed ZeRO-3: {_UNSHARDED}", f"{_FSDP2}, or ZeRO-1 or 2")
    if find_spec("deepspeed") is None:
        raise _refused(path, "it needs the package deepspeed", "pip install deepspeed, or use fsdp2")
    if device == "cpu" and _has_accelerator():
        problem = "DeepSpeed would train on this machine's accelerator, not on its CPUs"
        raise _refused(path, problem, "leave device out, or use ddp or the CPU build of PyTorch")


def _has_accelerator() -> bool:
    import torch

    return torch.accelerator.current_accelerator() is not None


def _stage_of(path: Path, further: Path) -> Any:
    try:
        told = json.loads(further.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        problem = f"its deepspeed_config_file {further} cannot be read ({type(error).__name__})"
        raise _refused(path, problem, "name a JSON file of DeepSpeed") from error
    return told.get("zero_optimization", {}).get("stage")


def _read(path: Path) -> dict[str, Any]:
    try:
        told = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = f"no YAML: {str(error).splitlines()[0]}"
        raise _refused(path, problem, "let accelerate config write it") from error
    if not isinstance(told, dict):
        raise _refused(path, "no settings of accelerate", "let accelerate config write it")
    return told


def _check_keys(path: Path, told: Mapping[str, Any]) -> None:
    from accelerate.commands.config.config_args import ClusterConfig
    from accelerate.commands.launch import launch_command_parser

    known = {field.name for field in dataclasses.fields(ClusterConfig)} | {"fp16", "dynamo_backend"}
    flags = {action.dest for action in launch_command_parser()._actions} | {"fsdp_ignored_modules"}
    unknown = sorted(told.keys() - known)
    for key in told.get("fsdp_config") or {}:
        if (key if key.startswith("fsdp") else f"fsdp_{key}") not in flags:
            unknown.append(f"fsdp_config.{key}")
    unknown += [f"deepspeed_config.{key}" for key in told.get("deepspeed_config") or {} if key not in flags]
    if unknown:
        raise _refused(path, f"not known to accelerate: {', '.join(unknown)}", "correct or remove them")


def _refused(path: Path, problem: str, fix: str) -> InputError:
    return InputError("accelerate_config", str(path), problem, fix)
