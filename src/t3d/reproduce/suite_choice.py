"""Settings of a reproduction: the suite, and what changes its teachers, rollouts, budget and answers' length.

What they change is part of the hash of every cell, like the suite itself. Device and size of batches are so
below float32, where the rounding of every number depends on them.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from t3d.decoding.params import BATCH_SIZE, DecodeParams
from t3d.errors import InputError, require_choices, require_once, require_positive
from t3d.evaluation.finished import CELLS
from t3d.model_choice import require_training_device
from t3d.reproduce.suites import Budget, Suite, load_suite

COMMITTED_CELLS = "docs/results/cells"
_CHANGES = ("num_prompts", "num_optimizer_steps", "limit", "max_new_tokens")
Regime = Literal["short", "paper"]
"""How a budget of optimizer steps is spent: ``short``, on the suite's prompts with fresh noise, or as in the
``paper``'s released configuration, on so many that each is seen in 30 epochs, with noise drawn once."""
PAPER_EPOCHS = 30


@dataclass(frozen=True, kw_only=True)
class SuiteChoice:
    """The flags that choose a suite, and change its teachers, rollouts, budget and length of answers.

    What they change is part of the hash of every cell, like the suite itself. Device and size of batches are
    so below float32, where the rounding of every number depends on them.
    """

    suite: str = "mini"
    """mini (built in), or sdar: SDAR-4B-Chat and SDAR-1.7B-Chat on the real benchmarks, on a GPU."""
    data: str | None = None
    """Of suite sdar: folder of train.jsonl, solutions.jsonl and the benchmarks."""
    quick: bool = False
    """Half the prompts and optimizer steps (sdar: a fifth); of tables also one seed, and no learning-rate
    grid: the kept one's choice, else the middle."""
    regime: Regime = "short"
    """paper: 30 epochs with noise drawn once, on as few prompts as the optimizer steps then take (mini: 160);
    short: the suite's prompts, fresh noise."""
    num_prompts: int | None = None
    """Trajectories (or real solutions) of a student, in place of the suite's and the regime's."""
    num_optimizer_steps: int | None = None
    """Of a student, in place of the suite's."""
    limit: int | None = None
    """Problems per task, in place of the suite's; at most so many validation problems too."""
    max_new_tokens: int | None = None
    """Length limit of a response, in rollouts and evaluation, in place of the suite's."""
    rollout_temperature: float | None = None
    """Of the rollouts that students learn from, in place of the suite's; 0 is greedy, the paper's is 0.1."""
    tasks: tuple[str, ...] = ()
    """Of the suite's, those that are evaluated; none: all. Training stays that of all."""
    device: str = "auto"
    """auto, cpu or cuda."""
    batch_size: int = BATCH_SIZE
    """Requests decoded together."""

    def __post_init__(self) -> None:
        require_positive(self, *_CHANGES, "batch_size")
        require_choices(self)
        require_once("tasks", self.tasks)
        require_training_device(self.device)

    def chosen_suite(self, teachers: Sequence[str] = ()) -> Suite:
        """The suite; ``teachers``, if any, in place of its own, the main one first.

        A teacher is one of the suite's or a checkpoint folder. Raises InputError for anything else.
        """
        suite = load_suite(self.suite, self.data)
        suite = dataclasses.replace(suite, device=self.device, batch_size=self.batch_size)
        changes = {name: getattr(self, name) for name in (*_CHANGES, "rollout_temperature")}
        is_paper = self.regime == "paper"
        flags = ["--regime", self.regime] if is_paper else []
        flags += [
            word
            for name, value in changes.items()
            if value is not None
            for word in (f"--{name.replace('_', '-')}", str(value))
        ]
        flags += ["--tasks", *self.tasks] if self.tasks else []
        if suite.is_below_float32:
            flags += ["--device", suite.device_kind, "--batch-size", str(self.batch_size)]
        tasks = self._chosen_tasks(suite)
        length = {"max_new_tokens": self.max_new_tokens}
        return dataclasses.replace(
            suite,
            teachers=_models_by_teacher(suite, teachers) if teachers else suite.teachers,
            tasks=tasks,
            validation_tasks=tuple(task for task in suite.validation_tasks if task in tasks)
            or suite.validation_tasks,
            full=self._budget(suite.full),
            quick=self._budget(suite.quick),
            settings={name: _changed(params, **length) for name, params in suite.settings.items()},
            rollout=self._rollout(suite.rollout),
            training={**suite.training, **({"noise_refresh": "once"} if is_paper else {})},
            flags=(*suite.flags, *flags),
        )

    def require_data(self) -> None:
        """Raise InputError if the suite reads data and no folder is named."""
        if self.suite != "mini" and self.data is None:
            fix = "give the folder, or --dry-run of a table"
            raise InputError("data", None, f"suite {self.suite!r} reads its data", fix)

    def _chosen_tasks(self, suite: Suite) -> tuple[str, ...]:
        for task in self.tasks:
            if task not in suite.tasks:
                raise InputError("tasks", task, "not the suite's", f"use some of {', '.join(suite.tasks)}")
        return tuple(task for task in suite.tasks if not self.tasks or task in self.tasks)

    def _budget(self, budget: Budget) -> Budget:
        changes = {name: getattr(self, name) for name in ("num_prompts", "num_optimizer_steps", "limit")}
        validation = None if self.limit is None else min(self.limit, budget.validation_limit)
        changed: Budget = _changed(budget, **changes, validation_limit=validation)
        if self.regime == "short" or self.num_prompts is not None:
            return changed
        num_seen = changed.num_optimizer_steps * changed.train_batch_size
        return dataclasses.replace(changed, num_prompts=max(1, num_seen // PAPER_EPOCHS))

    def _rollout(self, params: DecodeParams) -> DecodeParams:
        try:
            return _changed(params, max_new_tokens=self.max_new_tokens, temperature=self.rollout_temperature)
        except InputError as error:
            raise InputError("rollout_temperature", error.value, error.problem, error.fix) from None


@dataclass(frozen=True, kw_only=True)
class ReproduceConfig(SuiteChoice):
    """Settings of a reproduction."""

    teachers: tuple[str, ...] = ()
    """Checkpoint folders in place of the suite's teachers, the main one first; with one, tables have no
    second."""
    rows: tuple[str, ...] = ()
    """Further rows of every table: presets, with T3DConfig fields over their own, such as t3d-plus or
    "naive_td path_weight=0.1". They take the preset's rounds and the rate that its grid chooses."""
    seeds: int = 1
    """Seeds with the main teacher; of ``all``, for Tables 1 and 2. The other teacher has one."""
    output: str = "runs/reproduce"
    """Folder for cells, students, tables.md, tables.json and plots. Processes with the same output share
    the work."""
    cells: str | None = COMMITTED_CELLS
    """Folder of finished cells of earlier runs to reuse, or None. The default's may be missing."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "seeds")
        if self.quick and self.seeds != 1:
            raise InputError("seeds", self.seeds, "quick has one", "leave out one of the two")
        if self.cells != COMMITTED_CELLS:
            check_cells(self.cells)


def check_cells(folder: str | None) -> None:
    """Raise InputError for a folder of cells that has none: without them everything would be made again."""
    if folder is not None and not any(Path(folder).glob(CELLS)):
        problem = "no finished cells there" if Path(folder).is_dir() else "no such folder"
        raise InputError("cells", folder, problem, "give a folder of LABEL.HASH.json files, or None")


def _changed(settings: Any, **fields: Any) -> Any:
    """A dataclass with these fields, except those that are None."""
    given = {name: value for name, value in fields.items() if value is not None}
    return dataclasses.replace(settings, **given)


def _models_by_teacher(suite: Suite, teachers: Sequence[str]) -> dict[str, str]:
    """The paper's model that each teacher stands for: its own, else by its place."""
    models = list(suite.teachers.values())
    if len(set(teachers)) != len(teachers) or len(teachers) > len(models):
        fix = f"give at most {len(models)}, the main one first"
        raise InputError("teachers", list(teachers), "too many, or one twice", fix)
    for teacher in teachers:
        if teacher not in suite.teachers and not (Path(teacher) / "config.json").is_file():
            fix = f"use one of {', '.join(suite.teachers)}, or a checkpoint folder"
            raise InputError("teacher", teacher, "neither the suite's nor a checkpoint folder", fix)
    return {name: suite.teachers.get(name, model) for name, model in zip(teachers, models, strict=False)}
