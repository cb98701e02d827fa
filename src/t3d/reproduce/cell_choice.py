"""Settings of one cell: a student, how its rounds roll out, and how it is evaluated."""

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from t3d.decoding.rollout_filter import RolloutFilter
from t3d.decoding.settings import static_setting
from t3d.errors import InputError, require_once, require_positive
from t3d.reproduce.recipes import (
    ORIGINAL,
    CellSpec,
    StudentSpec,
    default_of,
    learns_solutions,
)
from t3d.reproduce.suite_choice import SuiteChoice
from t3d.reproduce.suites import Suite
from t3d.training.choices import RoundStart
from t3d.training.preset_rounds import preset_rollouts
from t3d.training.presets import PRESETS, parse_overrides

_OF_ROLLOUTS = ("num_rounds", "rollout_settings", "round_start", "num_samples", "rollout_filter")
"""Fields of a student that learns rollouts."""


@dataclass(frozen=True, kw_only=True)
class CellChoice(SuiteChoice):
    """The flags of ``t3d reproduce cell``, and the keys of a row of a study."""

    method: str
    """A preset of training, or original."""
    settings: tuple[str, ...]
    """Decoding settings by name, for example B8-T2."""
    teacher: str | None = None
    """One of the suite's, or a checkpoint folder; None: the suite's main one."""
    seed: int = 0
    """Of the prompts, the rollouts and the training."""
    learning_rate: float | None = None
    """Of the training; original has none."""
    override: tuple[str, ...] = ()
    """T3DConfig fields over the preset's, as name=value."""
    num_rounds: int | None = None
    """Of rollout and training, each with all prompts and optimizer steps of the budget, as of t3d distil: the
    student of a round writes the trajectories of the next, on other prompts, and goes on from its weights.
    Default: 1, or the method's."""
    rollout_settings: tuple[str, ...] = ()
    """Block size and tokens per step of the rollouts, one for each round, such as B8-T8, or
    B8-T8-temperature-1. Default: the method's, else the suite's full steps in all."""
    round_start: RoundStart = "student"
    """Whose weights a later round's training begins with: those of the round before, or the teacher's."""
    num_samples: int | None = None
    """Responses drawn for each prompt in the rounds of a temperature above 0. Default: 1, or the method's."""
    rollout_filter: RolloutFilter | None = None
    """What is kept of them, as of t3d rollout. Default: none, or the method's."""
    split: Literal["validation", "test", "ood"] = "test"
    """Of suite mini also ood: numbers that training never has in their place."""
    samples_per_prompt: int = 1
    """Answers drawn for each prompt."""
    quick: bool = False
    """Half the prompts and optimizer steps (sdar: a fifth)."""

    def spec(self, output: str | Path = "") -> tuple[Suite, CellSpec]:
        """The suite and the cell. Raises InputError for what suite or training do not have."""
        require_positive(self, "samples_per_prompt", "num_rounds", "num_samples")
        self._check_method()
        suite = self.chosen_suite(() if self.teacher is None else (self.teacher,))
        student = self._student(suite)
        how = {"split": self.split, "samples_per_prompt": self.samples_per_prompt}
        cell = CellSpec(student=student, settings=self.settings, **how)
        if not self.settings:
            fix = f"use some of {', '.join(suite.settings)}"
            raise InputError("settings", self.settings, "empty", fix)
        require_once("settings", self.settings)
        for name in self.settings:
            suite.check_setting(name)
        # torch is not for flags
        from t3d.reproduce.resolve import resolve_cell  # noqa: PLC0415
        from t3d.reproduce.students import training_config  # noqa: PLC0415
        from t3d.training.ignored import check_training_fields  # noqa: PLC0415

        budget = suite.budget(quick=self.quick)
        resolve_cell(suite, budget, cell)
        if self.method != ORIGINAL:
            check_training_fields(training_config(suite, budget, student, Path(output)))
        return suite, cell

    def _check_method(self) -> None:
        known = (ORIGINAL, *(name for name in PRESETS if name != "drafter"))  # that is no student
        if self.method not in known:
            close = difflib.get_close_matches(self.method, known, n=1)
            meant = f"did you mean {close[0]}? It is" if close else "use"
            raise InputError("method", self.method, "not known", f"{meant} one of {', '.join(known)}")
        if (self.learning_rate is None) != (self.method == ORIGINAL):
            fix = "give it for a method that is trained, and only then"
            raise InputError("learning_rate", self.learning_rate, f"method={self.method!r}", fix)
        if self.override and self.method == ORIGINAL:
            problem = f"method={self.method!r} is not trained"
            raise InputError("override", list(self.override), problem, "leave it out")
        if self.method == ORIGINAL or learns_solutions(self.method):
            for name in _OF_ROLLOUTS:
                value = getattr(self, name)
                if value not in (getattr(CellChoice, name), 1):
                    problem = f"method={self.method!r} learns no rollouts"
                    raise InputError(name, value, problem, "leave it out")

    def _student(self, suite: Suite) -> StudentSpec:
        names = ("num_rounds", "num_samples", "rollout_filter")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        told = default_of(self.method) | given
        num_rounds = told["num_rounds"]
        settings = self._rollout_settings(suite, num_rounds)
        self._check_rounds(suite, settings, num_rounds, told["num_samples"])
        overrides = parse_overrides(self.override)
        if "num_train_epochs" in overrides:
            problem = "ignored: a cell trains for max_steps optimizer steps"
            fix = "override max_steps; an epoch is num_prompts trajectories by those of a step"
            raise InputError("override", f"num_train_epochs={overrides['num_train_epochs']}", problem, fix)
        return StudentSpec(
            teacher=next(iter(suite.teachers)),
            method=self.method,
            seed=self.seed,
            learning_rate=self.learning_rate,
            overrides=tuple(overrides.items()),
            num_rounds=num_rounds,
            rollout_settings=settings,
            round_start=self.round_start,
            num_samples=told["num_samples"],
            rollout_filter=told["rollout_filter"],
        )

    def _rollout_settings(self, suite: Suite, num_rounds: int) -> tuple[str, ...]:
        """One for each round, a temperature written in one way: the student goes by these names."""
        given = self.rollout_settings
        if given and len(given) != num_rounds:
            fix = f"name {num_rounds} settings, or leave it out"
            raise InputError("rollout_settings", given, f"num_rounds={num_rounds}", fix)
        found, static = [], [name for name in suite.settings if re.fullmatch(r"B\d+-T\d+", name)]
        for name in given or preset_rollouts(self.method, num_rounds):
            plain, drawn, _ = name.partition("-temperature-")
            if plain not in static:
                problem = "no block size and tokens per step of the suite"
                raise InputError("rollout_settings", name, problem, f"use some of {', '.join(static)}")
            params = static_setting("rollout_settings", name, suite.rollout)
            found.append(f"{plain}{drawn}{params.temperature:g}" if drawn else plain)
        return tuple(found)

    def _check_rounds(
        self, suite: Suite, settings: tuple[str, ...], num_rounds: int, num_samples: int
    ) -> None:
        rounds = [static_setting("rollout_settings", name, suite.rollout) for name in settings]
        if not any(params.samples_differ for params in rounds):
            (*rounds, suite.rollout)[0].check_samples("num_samples", num_samples)
        if self.round_start == "teacher" and num_rounds == 1:
            problem = f"num_rounds={num_rounds}, whose training begins with the teacher anyway"
            raise InputError("round_start", self.round_start, problem, "leave it out")
