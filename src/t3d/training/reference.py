"""The reference model of DDO: a frozen earlier student."""

import copy
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from t3d.errors import InputError

REFERENCE_FILE = "reference.safetensors"


class Reference:
    """A frozen copy of the student, refreshed in place."""

    def __init__(self, student: nn.Module) -> None:
        self.model = copy.deepcopy(student).eval().requires_grad_(False)

    @torch.no_grad()
    def refresh(self, student: nn.Module) -> None:
        """Copy the student's current weights."""
        for own, other in zip(self.model.parameters(), student.parameters(), strict=True):
            own.copy_(other)

    def save(self, folder: str | Path) -> None:
        """Write the weights into an unfinished checkpoint's folder."""
        weights = {name: value.contiguous() for name, value in self.model.named_parameters()}
        save_file(weights, Path(folder) / REFERENCE_FILE)

    @torch.no_grad()
    def load(self, folder: str | Path) -> None:
        """Read the weights from a checkpoint folder. Raises InputError if they are not there."""
        path = Path(folder) / REFERENCE_FILE
        if not path.is_file():
            problem = f"the checkpoint has no {REFERENCE_FILE}"
            raise InputError(
                "resume_from_checkpoint", str(folder), problem, "resume from a complete checkpoint"
            )
        weights = load_file(path)
        for name, value in self.model.named_parameters():
            value.copy_(weights[name])


class RefreshReference(TrainerCallback):
    """Copies the student into the reference after every ``refresh_every`` optimizer steps (C.2)."""

    def __init__(self, reference: Reference, refresh_every: int) -> None:
        self.reference, self.refresh_every = reference, refresh_every

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs
    ) -> None:
        """``state.global_step`` counts optimizer steps, this one included."""
        del args, control
        if state.global_step % self.refresh_every == 0:
            self.reference.refresh(kwargs["model"])
