"""Checkpoints of transformers' Trainer that are whole or not there, and training that continues from them."""

import json
import os
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import ProgressCallback
from transformers.trainer_utils import TrainOutput

from t3d.errors import InputError
from t3d.work.files import atomic_folder, beside, discard
from t3d.work.plan import file_sha256
from t3d.work.weights import first_not_finite

FILES_NAME = "files.json"
"""Name and SHA-256 of a checkpoint's other files."""


class DivergedError(InputError):
    """Training has left the finite numbers; the message names the optimizer step and what is kept."""


def checkpoints(folder: Path) -> list[Path]:
    """The folders ``checkpoint-N``, the newest last."""
    found = [(path.name.removeprefix("checkpoint-"), path) for path in folder.glob("checkpoint-*")]
    return [path for _, path in sorted((int(number), path) for number, path in found if number.isdecimal())]


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint to continue from, if there is one."""
    return next(reversed(checkpoints(folder)), None)


def check_checkpoint(folder: Path) -> None:
    """Raise InputError, naming the file, unless every file of a checkpoint is as it was written."""

    def refuse(path: Path, problem: str) -> InputError:
        fix = f"delete {folder}; the same command then continues from the checkpoint before it"
        return InputError("checkpoint", str(path), problem, fix)

    try:
        expected = json.loads((folder / FILES_NAME).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError) as error:
        raise refuse(folder / FILES_NAME, "missing or damaged") from error
    for name, digest in expected.items():
        path = folder / name
        if not path.is_file():
            raise refuse(path, "missing")
        if file_sha256(path) != digest:
            raise refuse(path, "truncated or damaged")


class LogAtSave(TrainerCallback):
    """Logs with every checkpoint, so that no average of the log spans a cut."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Runs after the Trainer's own callback, which decides about saving."""
        del args, state, kwargs
        if control.should_save:
            control.should_log = True


class CheckpointingTrainer(Trainer):
    """A Trainer that may be killed at any moment, in the middle of a checkpoint or of removing one too.

    It saves no weights that are not finite: DivergedError ends such a run, the checkpoints before are kept.
    It keeps the newest ``save_total_limit`` checkpoints, and the best one if it was evaluated when saved.
    Continue with ``train_from(newest_checkpoint(folder))``; a subclass adds files in
    :meth:`save_further_files`.
    """

    _unfinished: Path | None = None
    """Where the Trainer writes while a checkpoint is being saved."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.add_callback(LogAtSave)

    def train_from(self, checkpoint: Path | None) -> None:
        """Train on from a checkpoint, or from the start; load the weights only where training was over.

        Raises InputError for a damaged checkpoint, and for one whose weights are not finite.
        """
        if checkpoint is None:
            self.train()
            return
        check_checkpoint(checkpoint)
        state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
        if state.global_step < state.max_steps:
            self.train(resume_from_checkpoint=str(checkpoint))
        else:  # The Trainer would add a step if this is not an epoch's end.
            self.state = state
            super()._load_from_checkpoint(str(checkpoint))
            self._check_loaded(checkpoint)

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """As the Trainer does. A bar goes before an error, and else has a line of its own."""
        try:
            return super().train(*args, **kwargs)
        except BaseException as error:
            for callback in self.callback_handler.callbacks:
                if isinstance(callback, ProgressCallback) and callback.training_bar is not None:
                    callback.training_bar.leave = not isinstance(error, Exception)  # of one who interrupts
                    callback.training_bar.close()
            raise

    def check_weights(self) -> None:
        """Raise DivergedError, in all processes, if a weight in one of them is not a finite number."""
        name = first_not_finite(self._weights())
        found = torch.tensor([0.0 if name is None else 1.0], device=self.args.device)
        if self.accelerator.reduce(found).item():
            raise self.diverged(f"weight {name or 'of another process'} is not a finite number")

    def diverged(self, what: str) -> DivergedError:
        """The error for a run at this optimizer step, of which ``what`` is not finite.

        A lower learning rate is another plan, which the same output refuses.
        """
        folder, step = Path(str(self.args.output_dir)), self.state.global_step
        newest = newest_checkpoint(folder)
        kept = (
            "no checkpoint was saved before" if newest is None else f"the last checkpoint is kept ({newest})"
        )
        problem = f"training diverged: {what} after {step} optimizer steps; {kept}"
        fix = "begin again with a lower learning_rate and another output"
        if not step:  # no rate has been used yet
            return DivergedError(
                "model", str(self.args.output_dir), problem, "check the weights of the model"
            )
        return DivergedError("learning_rate", self.args.learning_rate, problem, fix)

    def save_further_files(self, folder: Path) -> None:
        """Called in all processes with the folder of an unfinished checkpoint; the first is to write."""

    def _get_output_dir(self, trial: Any) -> str:
        return super()._get_output_dir(trial) if self._unfinished is None else str(self._unfinished)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        self.check_weights()
        run_folder = Path(self._get_output_dir(trial))
        folder = run_folder / f"checkpoint-{self.state.global_step}"
        partial = beside(folder, "partial")
        with atomic_folder(folder) if self.args.should_save else nullcontext():
            self.accelerator.wait_for_everyone()
            self._unfinished = partial
            try:
                super()._save_checkpoint(model, trial)
            finally:
                self._unfinished = None
            self.accelerator.wait_for_everyone()
            self.save_further_files(partial)
            if self.args.should_save:
                for path in (partial / folder.name).iterdir():
                    os.replace(path, partial / path.name)
                (partial / folder.name).rmdir()
                self._name_best(run_folder)
                self.state.save_to_json(str(partial / TRAINER_STATE_NAME))
                files = sorted(path for path in partial.rglob("*") if path.is_file())
                digests = {path.relative_to(partial).as_posix(): file_sha256(path) for path in files}
                (partial / FILES_NAME).write_text(json.dumps(digests, indent=1), encoding="utf-8")
        if self.args.should_save and self.args.save_total_limit:
            best = self.state.best_model_checkpoint
            for old in checkpoints(run_folder)[: -self.args.save_total_limit]:
                if str(old) != best:
                    discard(old)

    def _name_best(self, run_folder: Path) -> None:
        """The Trainer looks for the best checkpoint in the unfinished folder: say where it will be."""
        best = run_folder / f"checkpoint-{self.state.best_global_step}"
        if self.state.best_global_step == self.state.global_step or best.is_dir():
            self.state.best_model_checkpoint = str(best)

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: torch.nn.Module | None = None
    ) -> None:
        check_checkpoint(Path(resume_from_checkpoint))
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self._check_loaded(Path(resume_from_checkpoint))

    def _check_loaded(self, checkpoint: Path) -> None:
        """Raise InputError for a checkpoint whose weights are not finite, which earlier versions saved."""
        name = first_not_finite(self._weights())
        if name is not None:
            fix = f"delete {checkpoint}; the same command then continues from the checkpoint before it"
            raise InputError("checkpoint", str(checkpoint), f"its weight {name} is not a finite number", fix)

    def _weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        assert self.model is not None
        return self.model.named_parameters()
