"""A whole distillation run: train, and export a student that loads anywhere its teacher does."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch

from t3d.atomic import write_text
from t3d.errors import InputError
from t3d.models.loading import LoadedModel, export_model
from t3d.training.config import T3DConfig
from t3d.training.trainer import T3DTrainer
from t3d.trajectory import Trajectory


def distil(
    loaded: LoadedModel,
    trajectories: Sequence[Trajectory],
    config: T3DConfig,
    student_folder: Path,
    export_dtype: torch.dtype | None = None,
) -> Path:
    """Train ``loaded.model`` in place and export it to ``student_folder`` (in ``export_dtype``, if given).

    Checkpoints go to ``config.output_dir``; a run that was cut continues from its last complete one.
    Raises InputError if that folder holds the checkpoints of a run with other settings, trajectories
    or weights.
    """
    torch.manual_seed(config.seed)
    trainer = T3DTrainer(loaded.model, config, trajectories, processing_class=loaded.tokenizer)
    checkpoints = Path(str(config.output_dir))
    _claim(checkpoints, _plan(loaded, trajectories, config))
    trainer.train(resume_from_checkpoint=last_complete_checkpoint(checkpoints))
    loaded.model.eval()
    if export_dtype is not None:
        loaded.model.to(export_dtype)  # pyright: ignore[reportArgumentType]
    if trainer.is_world_process_zero():
        export_model(loaded, student_folder)
    return student_folder


def last_complete_checkpoint(folder: Path) -> str | None:
    """The newest ``checkpoint-N`` whose writing was not cut, if there is one."""
    complete = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json")]
    newest = max(complete, key=lambda path: int(path.name.removeprefix("checkpoint-")), default=None)
    return None if newest is None else str(newest)


def _plan(loaded: LoadedModel, trajectories: Sequence[Trajectory], config: T3DConfig) -> str:
    """Hash of what the student depends on; where and how often to save and log are not part of it."""
    free = ("output_dir", "logging_", "save_", "report_to", "disable_tqdm", "run_name", "dataloader_")
    settings = {name: value for name, value in config.to_dict().items() if not name.startswith(free)}
    digest = hashlib.sha256(repr((sorted(settings.items()), loaded.weights_hash)).encode())
    for trajectory in trajectories:
        digest.update(repr((trajectory.id, trajectory.response_ids, trajectory.step_map)).encode())
    return digest.hexdigest()


def _claim(checkpoints: Path, plan: str) -> None:
    file = checkpoints / "plan"
    if last_complete_checkpoint(checkpoints) is not None and (not file.is_file() or file.read_text() != plan):
        problem = "holds checkpoints of a run with other settings, trajectories or weights"
        raise InputError("output", str(checkpoints), problem, "use another output, or delete the folder")
    write_text(file, plan)
