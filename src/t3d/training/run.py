"""A whole distillation run: train, and export a drafter, or a student that loads where its teacher does."""

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from t3d.errors import InputError
from t3d.models.drafter import save_drafter
from t3d.models.export import export_model
from t3d.models.gated import GatedAdapter, add_gated_adapter
from t3d.models.linear_layers import TARGET_MODULES
from t3d.models.loading import LoadedModel, load_model
from t3d.models.placement import DTYPES, export_precision
from t3d.training.config import T3DConfig
from t3d.training.config_checks import warmup_covers_run
from t3d.training.freed_memory import keep_freed_memory
from t3d.training.lora import add_adapter, is_adapted, merge_adapter, merge_in_place, remove_adapter
from t3d.training.selection import as_trajectories
from t3d.training.sharding import is_sharded_model, whole_weights
from t3d.training.trainer import Evaluator, T3DTrainer
from t3d.trajectory import Trajectory
from t3d.work.checkpoints import newest_checkpoint
from t3d.work.digests import check_digests, digests
from t3d.work.files import check_output_file, read_json, write_errors, write_text
from t3d.work.kept import claim
from t3d.work.own import lines_with
from t3d.work.plan import fingerprint, full_plan, is_whole, sealed, take_finished
from t3d.work.weights import first_not_finite

STUDENT_PLAN = "training.json"
"""File of an exported student that holds the plan of its training."""
LOG_ENDING = ".log.jsonl"
"""Behind the name of a student's folder: the file beside it that holds the log of its training."""
_logger = logging.getLogger(__name__)


def distil(
    loaded: LoadedModel,
    trajectories: Any,
    config: T3DConfig,
    student_folder: Path,
    export_dtype: torch.dtype | None = None,
    evaluator: Evaluator | None = None,
    own_settings: Mapping[str, Any] | None = None,
    soft_target_model: LoadedModel | None = None,
) -> Path:
    """Train ``loaded.model`` in place and export it to ``student_folder``, in ``export_dtype`` (by default
    as it is, or in bfloat16 if the base's files have 16 bits) and with ``own_settings`` (by default
    T3DTrainer's). The trajectories are a sequence of them, or a rollout as a ``datasets.Dataset``.

    With LoRA an adapter is trained, and merged into the model at the end; with objective
    ``prefix_acceptance`` it is a drafter's, the model stays as it is, and the folder holds the drafter alone.
    ``evaluator`` scores the student every ``config.eval_steps``; ``soft_target_model`` is T3DTrainer's.

    Checkpoints go to ``config.output_dir``; a run that was cut continues from the newest, and a student
    that the same call finished is not trained again. The log stands beside the student, by
    ``LOG_ENDING``. Raises InputError if another run is using
    ``config.output_dir``, if that or the student belongs to other settings, trajectories or weights, or
    if the newest checkpoint or a file of the student is damaged, and DivergedError for a loss or weights that
    are not finite, which are neither saved nor exported. Of several processes only the first claims
    the folder: its refusal does not reach the others, which their launcher (torchrun does) has to end.
    """
    torch.manual_seed(config.seed)
    trajectories, folder = as_trajectories(trajectories), Path(str(config.output_dir))
    identity = loaded.identity()  # of the teacher: the trainer says how a student decodes
    told = soft_target_model and soft_target_model.identity()
    student = _start(loaded, config)
    with write_errors(folder):
        how: dict[str, Any] = {"own_settings": own_settings, "soft_target_model": soft_target_model}
        trainer = T3DTrainer(student, config, trajectories, loaded.tokenizer, evaluator=evaluator, **how)
    plan = _plan(identity, trajectories, config, export_dtype, {**how, "soft_target_model": told})
    is_first = trainer.is_world_process_zero()
    with claim(folder, plan, "checkpoint-*") if is_first else nullcontext():
        newest = newest_checkpoint(folder)
        if _is_finished(student_folder, plan):
            _finish(loaded, student)
            if not isinstance(student, GatedAdapter):
                _load_weights(loaded, student_folder)
            if is_first:
                _seal_older(student_folder)
            return student_folder
        if is_first:
            check_output_file(_log_path(student_folder), is_own=lines_with("step"))
        _warn_of_warmup(config)
        trainer.train_from(newest)
        trainer.check_weights()
        is_shared = is_sharded_model(loaded.model)
        _merge(loaded, student, in_place=is_shared)
        if not isinstance(student, GatedAdapter):
            loaded.model.to(export_dtype or export_precision(loaded.checkpoint_dtype, loaded.model.dtype))
        weights = whole_weights(loaded.model, keep=is_first) if is_shared else None
        if is_first:
            _write_log(trainer, student_folder)
            _export(loaded, student, student_folder, plan, weights)
    return student_folder


def _merge(loaded: LoadedModel, student: Any, *, in_place: bool) -> None:
    """Leave the trained weights in ``loaded.model``, with those of an adapter that is no drafter's."""
    if in_place and is_adapted(student):
        student = merge_in_place(student)
    merged = merge_adapter(student) if is_adapted(student) else None
    _finish(loaded, student)
    if merged is not None:
        loaded.model.load_state_dict(merged.state_dict())


def _warn_of_warmup(config: T3DConfig) -> None:
    if warmup_covers_run(config):
        _logger.warning(
            f"warmup_steps={config.warmup_steps:g} covers all {config.max_steps} optimizer steps: the "
            f"learning rate, 0 at first, never reaches {config.learning_rate:g}. Use fewer warmup_steps"
        )


def _write_log(trainer: T3DTrainer, student_folder: Path) -> None:
    """What the checkpoints' states have too, which end with the work: a line for each entry."""
    lines = "".join(json.dumps(entry, sort_keys=True) + "\n" for entry in trainer.state.log_history)
    write_text(_log_path(student_folder), lines)


def _log_path(student_folder: Path) -> Path:
    return student_folder.with_name(student_folder.name + LOG_ENDING)


def _export(
    loaded: LoadedModel,
    student: Any,
    folder: Path,
    plan: Mapping[str, Any],
    weights: Mapping[str, Tensor] | None,
) -> None:
    """Write the trained model, or the drafter alone, with the record of its files; ``weights`` as there."""
    seal = partial(_write_record, full_plan(plan))
    if isinstance(student, GatedAdapter):
        save_drafter(student, loaded, folder, seal)
    else:
        export_model(loaded, folder, seal, weights)


def _start(loaded: LoadedModel, config: T3DConfig) -> Any:
    """What is trained: the model, or an adapter on it, which is frozen then."""
    if loaded.model.device.type == "cpu":
        keep_freed_memory()
    options: dict[str, Any] = {"alpha": config.lora_alpha, "dropout": config.lora_dropout}
    if config.objective == "prefix_acceptance":
        if config.lora_target_modules != TARGET_MODULES:  # else those that suit the model
            options["target_modules"] = config.lora_target_modules
        if config.lora_mask_embedding:
            options["mask_token_id"] = loaded.mask_token_id
        adapter = add_gated_adapter(loaded.model, config.lora_rank, **options)
        loaded.model.requires_grad_(False)
        return adapter
    if config.lora_rank:
        options["target_modules"] = config.lora_target_modules
        return add_adapter(loaded.model, config.lora_rank, **options)
    return loaded.model


def _finish(loaded: LoadedModel, student: Any) -> None:
    """Take an adapter off the model again, which is as it was given; that of a drafter keeps its weights."""
    if isinstance(student, GatedAdapter):
        student.detach()
        loaded.model.requires_grad_(True)
    elif is_adapted(student):
        remove_adapter(student)
    loaded.model.eval()


def _plan(
    teacher: Mapping[str, Any],
    trajectories: Sequence[Trajectory],
    config: T3DConfig,
    export_dtype: torch.dtype | None,
    others: Mapping[str, Any],
) -> dict[str, Any]:
    """What the student depends on; where and how often to save and log are not part of it, nor are ``others``
    that are None."""
    free = ("output_dir", "logging_", "save_", "report_to", "disable_tqdm", "run_name")
    free += ("dataloader_num_workers", "dataloader_pin_memory", "dataloader_prefetch_factor")
    if config.reference_choice == "latest":  # then scores change nothing
        free += ("eval_", "metric_for_best_model", "greater_is_better")
    settings = {name: value for name, value in config.to_dict().items() if not name.startswith(free)}
    records = [dataclasses.asdict(trajectory) | {"teacher": ""} for trajectory in trajectories]
    return {
        **settings,
        "num_processes": config.world_size,
        "export_dtype": str(export_dtype),
        "model": teacher,
        "trajectories": {"count": len(trajectories), "sha256": fingerprint(records)},
        **{name: dict(value) for name, value in others.items() if value is not None},
    }


def _is_finished(student_folder: Path, plan: dict[str, Any]) -> bool:
    """Whether this plan's student is there, each of its files as it was made.

    Raises InputError for a student of another plan, one that nothing tells to be this one's, and for a file
    of it that is damaged or gone. One of an earlier version has a plan alone.
    """
    if not student_folder.exists():
        return False
    record = student_folder / STUDENT_PLAN
    fix = f"delete {student_folder}; the same command then makes it again, from its last checkpoint"
    match read_json(record):
        case {"plan": dict() as before, "files": dict() as files} as found:
            if not is_whole(found):
                raise InputError("output", str(record), "damaged", fix)
            take_finished(student_folder, before, plan)
            check_digests(files, student_folder, record, fix)
        case before:
            take_finished(student_folder, before, plan)
    return True


def _write_record(plan: Mapping[str, Any], student_folder: Path) -> None:
    files = digests(student_folder, student_folder)
    files.pop(STUDENT_PLAN, None)  # an older record, which is replaced
    record = {"plan": plan, "files": files}
    write_text(student_folder / STUDENT_PLAN, json.dumps(sealed(record), indent=1, sort_keys=True))


def _seal_older(student_folder: Path) -> None:
    """Keep the SHA-256 of a student's files from now on, where an earlier version kept its plan alone."""
    path = student_folder / STUDENT_PLAN
    before = read_json(path)
    if "files" not in before:
        _logger.warning(
            "%s was finished by an earlier version, without checksums: its files are taken as they are, "
            "and checked from now on",
            student_folder,
        )
        with suppress(InputError):  # a disk that is read-only
            _write_record(before, student_folder)


def _load_weights(loaded: LoadedModel, student_folder: Path) -> None:
    (dtype,) = (name for name, value in DTYPES.items() if value == loaded.model.dtype)
    student = load_model(student_folder, device=str(loaded.model.device), dtype=dtype)
    broken = first_not_finite(student.model.named_parameters())
    if broken is not None:  # earlier versions exported what had diverged
        fix = "delete it, and begin again with a lower learning_rate and another output"
        problem = f"its weight {broken} is not a finite number"
        raise InputError("output", str(student_folder), problem, fix)
    loaded.model.load_state_dict(student.model.state_dict())
