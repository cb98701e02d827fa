"""What the tables are reproduced on: teachers, tasks, decoding settings and budgets, by suite or by flags.

One student per method learns all tasks of its suite together; the paper trains one for math and one for code.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t3d.decoding.params import DecodeParams
from t3d.errors import InputError, require_positive
from t3d.models.placement import DTYPES, require_training_device, resolve_device
from t3d.reproduce.paper import BENCHMARKS, LARGE, SMALL
from t3d.reproduce.settings import MAX_NEW_TOKENS, TABLE_SETTINGS
from t3d.reproduce.suite_data import MiniData, SdarData, SuiteData
from t3d.tasks.mini.suite import TASKS

MEAN_TEST_PROBLEMS = 620
"""GSM8K 1,319, MATH500 500, MBPP 500, HumanEval 164."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much is spent on a student; the same for every method."""

    num_prompts: int
    """Trajectories (or real solutions), over all tasks."""
    num_optimizer_steps: int
    train_batch_size: int
    """Trajectories per optimizer step."""
    limit: int | None
    """Test problems per task; None: all."""
    validation_limit: int
    """Validation problems per task, of the learning-rate grid."""
    samples_per_prompt: int = 2
    """Answers to a prompt where distinct answers are counted."""


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Everything that the recipes need to know."""

    name: str
    teachers: Mapping[str, str]
    """The paper's model that a teacher stands for; the main one first."""
    tasks: tuple[str, ...]
    validation_tasks: tuple[str, ...]
    settings: Mapping[str, DecodeParams]
    rollout: DecodeParams
    training: Mapping[str, Any]
    """T3DConfig fields of all methods, where they are not the defaults."""
    learning_rates: tuple[float, ...]
    full: Budget
    quick: Budget
    dtype: str
    """Of decoding. Training keeps float32 weights; bf16 autocast is a field of ``training``."""
    data: SuiteData
    flags: tuple[str, ...] = ()
    """Of a command that takes this suite, besides its name."""
    device: str = "auto"
    """Where its models run."""
    batch_size: int = 256
    """Requests decoded together."""

    def budget(self, *, quick: bool) -> Budget:
        """The budget of one student."""
        return self.quick if quick else self.full

    @property
    def device_kind(self) -> str:
        """``cpu`` or ``cuda``, which need not be here."""
        return resolve_device("auto").type if self.device == "auto" else self.device.partition(":")[0]

    @property
    def is_below_float32(self) -> bool:
        """Whether rounding, and so every number, depends on the kind of device and the size of a batch."""
        return DTYPES[self.dtype].itemsize < DTYPES["float32"].itemsize

    @property
    def middle_learning_rate(self) -> float:
        """Where nothing is known of the grid."""
        return sorted(self.learning_rates)[len(self.learning_rates) // 2]


def split_problems(suite: Suite, budget: Budget, split: str) -> tuple[tuple[str, ...], int | None]:
    """Which tasks are evaluated on a split (``validation`` or ``test``), and on how many problems of each."""
    if split == "test":
        return suite.tasks, budget.limit
    return suite.validation_tasks, budget.validation_limit


MINI = Suite(
    name="mini",
    teachers={"mini": LARGE, "mini-small": SMALL},
    tasks=tuple(TASKS),
    validation_tasks=tuple(TASKS),
    settings=TABLE_SETTINGS,
    rollout=DecodeParams(temperature=0.0, max_new_tokens=MAX_NEW_TOKENS),
    training={},
    learning_rates=(2e-4, 5e-4, 1.2e-3),
    full=Budget(
        num_prompts=3072, num_optimizer_steps=150, train_batch_size=32, limit=512, validation_limit=150
    ),
    quick=Budget(
        num_prompts=1536, num_optimizer_steps=75, train_batch_size=32, limit=512, validation_limit=150
    ),
    dtype="float32",
    data=MiniData(),
)
"""Rollouts are greedy, the paper's are drawn at T = 0.1: docs/LOG.md says why."""


def sdar_suite(folder: str | Path) -> Suite:
    """SDAR-4B-Chat and SDAR-1.7B-Chat on GSM8K, MATH500, MBPP and HumanEval, for one large GPU.

    Temperature, epochs, batch, warmup and learning rate are the released configuration's.
    """
    full = Budget(
        num_prompts=15_000, num_optimizer_steps=1770, train_batch_size=256, limit=None, validation_limit=200
    )
    return Suite(
        name="sdar",
        teachers={f"JetLM/{LARGE}": LARGE, f"JetLM/{SMALL}": SMALL},
        tasks=BENCHMARKS,
        validation_tasks=("gsm8k", "mbpp"),
        settings={
            name: dataclasses.replace(params, max_new_tokens=2000) for name, params in TABLE_SETTINGS.items()
        },
        rollout=DecodeParams(max_new_tokens=2000),
        training={
            "bf16": True,
            "gradient_checkpointing": True,
            "max_length": 4096,
            "gradient_accumulation_steps": 64,
        },
        learning_rates=(5e-6, 1e-5, 2e-5),
        full=full,
        quick=dataclasses.replace(full, num_prompts=3000, num_optimizer_steps=354),
        dtype="bfloat16",
        data=SdarData(Path(folder)),
        flags=("--data", str(folder)),
    )


def load_suite(name: str, data: str | None = None) -> Suite:
    """A suite by name; ``sdar`` reads its data from a folder. Raises InputError for an unknown name."""
    if name not in ("mini", "sdar"):
        raise InputError("suite", name, "not known", "use one of mini, sdar")
    return MINI if name == "mini" else sdar_suite(data or "data")


_CHANGES = ("num_prompts", "num_optimizer_steps", "limit", "max_new_tokens")


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
    num_prompts: int | None = None
    """Trajectories (or real solutions) of a student, in place of the suite's."""
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
    batch_size: int = Suite.batch_size
    """Requests decoded together."""

    def __post_init__(self) -> None:
        require_positive(self, *_CHANGES, "batch_size")
        require_training_device(self.device)

    def chosen_suite(self, teachers: Sequence[str] = ()) -> Suite:
        """The suite; ``teachers``, if any, in place of its own, the main one first.

        A teacher is one of the suite's or a checkpoint folder. Raises InputError for anything else.
        """
        suite = load_suite(self.suite, self.data)
        suite = dataclasses.replace(suite, device=self.device, batch_size=self.batch_size)
        given = [(name, getattr(self, name)) for name in (*_CHANGES, "rollout_temperature")]
        flags: list[tuple[str, ...]] = [
            (f"--{name.replace('_', '-')}", str(value)) for name, value in given if value is not None
        ]
        flags += [("--tasks", *self.tasks)] if self.tasks else []
        if suite.is_below_float32:
            flags += [("--device", suite.device_kind), ("--batch-size", str(self.batch_size))]
        tasks = self._chosen_tasks(suite)
        return dataclasses.replace(
            suite,
            teachers=_models_by_teacher(suite, teachers) if teachers else suite.teachers,
            tasks=tasks,
            validation_tasks=tuple(task for task in suite.validation_tasks if task in tasks)
            or suite.validation_tasks,
            full=self._budget(suite.full),
            quick=self._budget(suite.quick),
            settings={
                name: _changed(params, max_new_tokens=self.max_new_tokens)
                for name, params in suite.settings.items()
            },
            rollout=self._rollout(suite.rollout),
            flags=(*suite.flags, *(word for flag in flags for word in flag)),
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
        validation = None if self.limit is None else min(self.limit, budget.validation_limit)
        return _changed(
            budget,
            num_prompts=self.num_prompts,
            num_optimizer_steps=self.num_optimizer_steps,
            limit=self.limit,
            validation_limit=validation,
        )

    def _rollout(self, params: DecodeParams) -> DecodeParams:
        try:
            return _changed(params, max_new_tokens=self.max_new_tokens, temperature=self.rollout_temperature)
        except InputError as error:
            raise InputError("rollout_temperature", error.value, error.problem, error.fix) from None


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
