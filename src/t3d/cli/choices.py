"""Flags that several commands share: which model, which problems, how to decode."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from t3d.data.prompts import Problem
from t3d.decoding.params import DecodeParams
from t3d.errors import InputError, require_positive
from t3d.evaluation.task import PromptFileTask, Task
from t3d.mini.tasks import mini_task
from t3d.models.loading import LoadedModel, load_model

Flat = Annotated[DecodeParams, tyro.conf.arg(name="")]
"""Decoding settings as top-level flags."""


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """Which model, and where it runs."""

    model: str
    """Local folder or hub id of an SDAR checkpoint; 'mini' and 'mini-small' are bundled teachers."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    dtype: str = "float32"
    """float32, bfloat16 or float64; auto is the checkpoint's own (not for training)."""

    def load(self) -> LoadedModel:
        """Load it."""
        return load_model(self.model, device=self.device, dtype=self.dtype)


@dataclass(frozen=True, kw_only=True)
class ProblemChoice:
    """Which problems: a task of the mini suite, or a JSONL file."""

    task: str | None = None
    """Task of the mini suite, for example chain."""
    prompts: str | None = None
    """JSONL file with a "question" per line, and optional "id", "answer" and "solution"."""
    limit: int | None = None
    """At most this many problems."""
    problem_seed: int = 0
    """Seed that draws the problems of a mini task."""

    def resolve(self, split: str) -> tuple[Task, list[Problem]]:
        """The task and its problems. Raises InputError unless exactly one source is given."""
        if (self.task is None) == (self.prompts is None):
            raise InputError(
                "task", self.task, f"prompts={self.prompts!r}: give one of the two", "set task or prompts"
            )
        require_positive(self, "limit")
        task = PromptFileTask(self.prompts) if self.prompts is not None else mini_task(str(self.task))
        return task, task.problems(split, self.limit, self.problem_seed)
