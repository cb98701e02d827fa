"""A whole distillation run: train, and export a student that loads anywhere its teacher does."""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers.trainer_utils import get_last_checkpoint

from t3d.models.loading import LoadedModel, export_model
from t3d.training.config import T3DConfig
from t3d.training.trainer import T3DTrainer
from t3d.trajectory import Trajectory


def distil(
    loaded: LoadedModel, trajectories: Sequence[Trajectory], config: T3DConfig, student_folder: Path
) -> Path:
    """Train ``loaded.model`` in place and export it to ``student_folder``.

    Checkpoints go to ``config.output_dir``; a run that was cut continues from the last of them.
    """
    checkpoints = str(config.output_dir)
    last = get_last_checkpoint(checkpoints) if Path(checkpoints).is_dir() else None
    torch.manual_seed(config.seed)
    trainer = T3DTrainer(loaded.model, config, trajectories, processing_class=loaded.tokenizer)
    trainer.train(resume_from_checkpoint=last)
    loaded.model.eval()
    if trainer.is_world_process_zero():
        export_model(loaded, student_folder)
    return student_folder
