"""What the number of a cell depends on, and the hash that it goes by.

The hash leaves out settings at their defaults: a setting that is new, and at its default changes nothing,
leaves it as it is. The record of a cell has them all, so that a changed default is noticed.
"""

import dataclasses
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache

from t3d.decoding.params import DecodeParams
from t3d.decoding.settings import static_setting
from t3d.model_choice import BUNDLED_MODELS, checkpoint_of
from t3d.reproduce.recipes import ORIGINAL, CellSpec, StudentSpec, learns_solutions
from t3d.reproduce.suites import Budget, Suite, split_problems
from t3d.training.config import T3DConfig
from t3d.training.presets import preset_fields
from t3d.work.plan import file_sha256, fingerprint

_OF_DRAFTERS = (
    "draft_targets",
    "draft_rides",
    "first_error_weight",
    "draft_open_prob",
    "lora_mask_embedding",
)
_OF_CROSS_ENTROPY = ("left_to_right_weight", "soft_target_weight", "soft_target_source")
_OF_CROSS_ENTROPY += ("soft_target_context", "soft_target_direction", "soft_target_top_k")
_OF_CROSS_ENTROPY += ("soft_target_below",)
ADDED_LATER = frozenset(
    {"context", "predicts", "draft_groups", "max_draft_tokens", *_OF_CROSS_ENTROPY, *_OF_DRAFTERS}
)
"""Fields that a record from before they existed may lack: what it made counts as made with their defaults."""
_FREE = {
    "remove_unused_columns",
    "logging_steps",
    "logging_nan_inf_filter",
    "report_to",
    "save_total_limit",
    "metric_for_best_model",
    "greater_is_better",
    "attention",
}
"""T3DConfig fields that change no number."""
_OTHER_FILES = (
    "config.json",
    "generation_config.json",
    "*token*.json",
    "*token*.model",
    "vocab.*",
    "merges.txt",
    "chat_template.*",
)
"""Patterns of the files of a checkpoint, besides its weights, that change what a model says."""


def training_fields(suite: Suite, budget: Budget, student: StudentSpec) -> dict[str, Any]:
    """T3DConfig fields of a student: those of all methods, its preset's, its overrides."""
    accumulation = suite.training.get("gradient_accumulation_steps", 1)
    return {
        **suite.training,
        "max_steps": budget.num_optimizer_steps,
        "per_device_train_batch_size": budget.train_batch_size // accumulation,
        "learning_rate": student.learning_rate,
        "seed": student.seed,
        **preset_fields(student.method),
        **dict(student.overrides),
    }


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """What a number depends on: in full, for the record, and without defaults, for the hash."""

    full: dict[str, Any]
    hash: str


def resolve_student(suite: Suite, budget: Budget, student: StudentSpec) -> Resolved:
    """The student's configuration. Raises InputError for an unknown method."""
    return _resolved(_student_config(suite, budget, student))


def resolve_records(suite: Suite, budget: Budget, student: StudentSpec) -> Resolved:
    """What the student is trained on; methods share it, except for SFT's real solutions."""
    return _resolved(_records_config(suite, budget, student))


def resolve_cell(suite: Suite, budget: Budget, cell: CellSpec) -> Resolved:
    """The cell's configuration: its student's, and how it is evaluated."""
    tasks, limit = split_problems(suite, budget, cell.split)
    how: dict[str, Any] = {
        "split": cell.split,
        "limit": limit,
        "seed": cell.student.seed,
        "tasks": list(tasks),
        "samples_per_prompt": cell.samples_per_prompt,
    }
    identities = {task: suite.data.evaluation_identity(task, cell.split) for task in tasks}
    how |= {"data_and_graders": identities} if any(identities.values()) else {}
    how |= {"batch_size": suite.batch_size} if suite.is_below_float32 else {}
    how["settings"] = {name: evaluation_params(suite, cell, name).record() for name in cell.settings}
    return _resolved({**_student_config(suite, budget, cell.student), "evaluation": how})


def evaluation_params(suite: Suite, cell: CellSpec, setting: str) -> DecodeParams:
    """How a cell decodes. Raises InputError for an unknown setting."""
    suite.check_setting(setting)
    return dataclasses.replace(suite.settings[setting], seed=cell.student.seed)


def rollout_params(suite: Suite, seed: int, setting: str | None = None) -> DecodeParams:
    """How a teacher decodes its trajectories, as a setting says if one is named."""
    decode = suite.rollout if setting is None else static_setting("rollout_settings", setting, suite.rollout)
    return dataclasses.replace(decode, seed=seed)


def student_rollout(suite: Suite, student: StudentSpec) -> DecodeParams:
    """How the trajectories of its last round are decoded."""
    return rollout_params(suite, student.seed, *student.rollout_settings[student.num_rounds - 1 :])


def _student_config(suite: Suite, budget: Budget, student: StudentSpec) -> dict[str, Any]:
    config: dict[str, Any] = {
        "suite": suite.name,
        "teacher": _identity(student.teacher),
        "dtype": suite.dtype,
        "method": student.name,
    }
    config |= {"device": suite.device_kind} if suite.is_below_float32 else {}
    if student.method == ORIGINAL:
        return config
    defaults, own = _defaults(T3DConfig), inspect.get_annotations(T3DConfig)
    known = {name: defaults[name] for name in own if name not in _FREE}
    training = known | training_fields(suite, budget, student)
    records = _records_config(suite, budget, student)
    if student.round_start != "student":
        config["round_start"] = student.round_start
    return {**config, **_source(suite, budget, student), "training": training, "records": records}


def _records_config(suite: Suite, budget: Budget, student: StudentSpec) -> dict[str, Any]:
    is_solved = learns_solutions(student.method)
    config: dict[str, Any] = {"count": budget.num_prompts, "seed": student.seed, "suite": suite.name}
    config |= suite.data.identity(solved=is_solved)
    if is_solved:
        return {**config, "source": "solutions"}
    config |= {"source": "rollouts", "teacher": _identity(student.teacher)}
    if suite.is_below_float32:
        config |= {"device": suite.device_kind, "batch_size": suite.batch_size}
    config |= _source(suite, budget, student)
    if student.rollout_filter != "none":
        config["filter"] = student.rollout_filter
    if student.num_samples != 1:
        config["samples"] = student.num_samples
    return {**config, "decode": student_rollout(suite, student).record()}


def _source(suite: Suite, budget: Budget, student: StudentSpec) -> dict[str, Any]:
    """Whose rollouts and weights the last of several rounds begins with; of the first one the teacher's."""
    if student.num_rounds == 1:
        return {}
    before = student.after(student.num_rounds - 1)
    return {"round": student.num_rounds, "before": resolve_student(suite, budget, before).hash}


def _identity(teacher: str) -> dict[str, str]:
    """Name, and the SHA-256 of a local checkpoint's weights or, once it is on this disk, a hub id's commit.

    Of a checkpoint that is not bundled ``files`` is the SHA-256 of configuration and tokenizer.
    """
    folder = Path(checkpoint_of(teacher))
    if not folder.is_dir():
        return {"name": teacher, "weights": _commit(teacher)}
    weights = "".join(file_sha256(file) for file in sorted(folder.glob("*.safetensors")))
    identity = {"name": Path(teacher).name, "weights": weights}
    if teacher not in BUNDLED_MODELS:
        files = {file.name: file_sha256(file) for pattern in _OTHER_FILES for file in folder.glob(pattern)}
        identity["files"] = fingerprint(files)
    return identity


def _commit(hub_id: str) -> str:
    """The commit of the hub's checkpoint on this disk, which loading would take; empty without one."""
    path = try_to_load_from_cache(hub_id, "config.json")
    return Path(path).parent.name if isinstance(path, str) else ""


def _resolved(config: Mapping[str, Any]) -> Resolved:
    return Resolved(full=json.loads(json.dumps(config)), hash=fingerprint(_without_defaults(config))[:16])


def _without_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same without what is at its default in the settings of training, of rollouts and of evaluations."""
    sparse = dict(config)
    for name, owner in (("training", T3DConfig), ("decode", DecodeParams)):
        if name in config:
            defaults = _defaults(owner)
            sparse[name] = {key: value for key, value in config[name].items() if value != defaults[key]}
    for name in ("records", "evaluation"):
        if name in config:
            sparse[name] = _without_defaults(config[name])
    if "settings" in config:
        by_name = config["settings"].items()
        sparse["settings"] = {
            name: _without_defaults({"decode": params})["decode"] for name, params in by_name
        }
    return sparse


def _defaults(owner: Any) -> dict[str, Any]:
    return {item.name: item.default for item in dataclasses.fields(owner)}
