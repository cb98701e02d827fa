"""Rounds: a model rolls out prompts, a student is trained on that, and is the model of the next round.

A round that was cut goes on where it was, and a finished one is read: its rollouts and its student are
products (:class:`~t3d.work.kept.Product`) of :class:`Pipeline`. The demo, ``t3d distil`` and
``t3d reproduce`` run them.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from t3d.decoding.params import DecodeParams
from t3d.decoding.sample_choice import ONE_SAMPLE, SampleChoice
from t3d.problems.problem import Problem
from t3d.problems.prompt_styles import PromptKind, PromptStyle
from t3d.reproduce.pipeline import Pipeline
from t3d.training.choices import RoundStart
from t3d.training.config import T3DConfig
from t3d.trajectory import Trajectory, read_trajectories
from t3d.work.kept import Product

Running = Callable[[str, Product], AbstractContextManager[object]]
"""Shows a stage by its name while it runs (:meth:`~t3d.work.progress.Stages.running`)."""


@dataclass(frozen=True, kw_only=True)
class Round:
    """A rollout, and the training on it. No two rounds share the id of a problem."""

    number: int
    """From 1."""
    rollouts: Product
    training: Product
    problems: Sequence[Problem]
    params: DecodeParams
    """Of the rollout."""
    config: T3DConfig
    style: PromptStyle = "plain"
    kind: PromptKind = "math"
    choice: SampleChoice = ONE_SAMPLE
    own_temperature: float | None = None
    """That of the student's own settings. None: of its rollouts."""


def run_rounds(
    pipeline: Pipeline,
    teacher: str | Path,
    rounds: Sequence[Round],
    *,
    running: Running,
    start: RoundStart = "student",
    num_old_rounds: int = 0,
) -> Path:
    """The folder of the last round's student.

    The teacher rolls out in the first round, the student of the round before in the others. A round's
    training reads its own trajectories and those of at most ``num_old_rounds`` rounds before it. Soft
    targets, where a round's settings weigh a teacher's, are this teacher's in all rounds.
    """
    source: str | Path = teacher
    for index, one in enumerate(rounds):
        with running(rollout_stage(one.number), one.rollouts):
            how = {"style": one.style, "kind": one.kind, "choice": one.choice}
            pipeline.roll_out(one.rollouts, source, one.problems, one.params, **how)
        with running(training_stage(one.number), one.training):
            learnt = rounds[max(0, index - num_old_rounds) : index + 1]
            begin, read = teacher if start == "teacher" else source, partial(_trajectories, learnt)
            pipeline.train(
                one.training,
                begin,
                read,
                one.config,
                soft_targets_from=teacher,
                own_temperature=one.own_temperature,
            )
        source = one.training.path
    return Path(source)


def _trajectories(rounds: Sequence[Round]) -> list[Trajectory]:
    return [trajectory for one in rounds for trajectory in read_trajectories(one.rollouts.path)]


def rollout_stage(number: int) -> str:
    """The name of a round's stage, as of the next."""
    return f"rollout round {number}"


def training_stage(number: int) -> str:
    """Of a round, counted from 1."""
    return f"distil round {number}"
