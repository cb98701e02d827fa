"""What the tables are reproduced on: teachers, tasks, decoding settings and budgets, by suite.

One student per method learns all tasks of its suite together; the paper trains one for math and one for code.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t3d.decoding.params import BATCH_SIZE, DecodeParams
from t3d.errors import InputError
from t3d.reproduce.paper import LARGE, PAPER_TASKS, SMALL
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
    batch_size: int = BATCH_SIZE
    """Requests decoded together."""

    def budget(self, *, quick: bool) -> Budget:
        """The budget of one student."""
        return self.quick if quick else self.full

    def check_setting(self, name: str) -> None:
        """Raise InputError for a name that is none of its decoding settings."""
        if name not in self.settings:
            raise InputError("settings", name, "not known", f"use some of {', '.join(self.settings)}")

    @property
    def device_kind(self) -> str:
        """``cpu`` or ``cuda``, which need not be here."""
        from t3d.models.placement import resolve_device  # noqa: PLC0415 - torch, not for flags

        return resolve_device("auto").type if self.device == "auto" else self.device.partition(":")[0]

    @property
    def is_below_float32(self) -> bool:
        """Whether rounding, and so every number, depends on the kind of device and the size of a batch."""
        return self.dtype not in ("float32", "float64")

    @property
    def middle_learning_rate(self) -> float:
        """Where nothing is known of the grid."""
        return sorted(self.learning_rates)[len(self.learning_rates) // 2]


def split_problems(suite: Suite, budget: Budget, split: str) -> tuple[tuple[str, ...], int | None]:
    """Which tasks are evaluated on a split, and on how many problems of each.

    Raises InputError for a split that the suite does not have.
    """
    if split not in suite.data.splits:
        problem = f"suite {suite.name!r} has no such split"
        raise InputError("split", split, problem, f"use {' or '.join(suite.data.splits)}")
    if split == "validation":
        return suite.validation_tasks, budget.validation_limit
    return suite.tasks, budget.limit


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
        tasks=PAPER_TASKS,
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
