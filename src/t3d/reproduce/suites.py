"""What the tables are reproduced on: teachers, tasks, decoding settings and budgets by suite.

One student per method learns all tasks of its suite together; the paper trains one for math and one for code.
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from t3d.data.prompt_styles import PromptKind, user_turn
from t3d.data.prompts import Problem, read_prompt_file
from t3d.decoding.params import DecodeParams
from t3d.demo import MAX_NEW_TOKENS, SETTINGS
from t3d.errors import InputError
from t3d.evaluation.benchmarks import PROMPT_KINDS, load_benchmark
from t3d.evaluation.task import Task
from t3d.mini.tasks import TASKS
from t3d.reproduce.paper import BENCHMARKS, LARGE, SMALL

STATIC = ("B4-T1", "B4-T2", "B4-T4", "B8-T1", "B8-T2", "B8-T4", "B8-T8")
FEW_STEPS = ("B4-T2", "B8-T2", "B4-T4", "B8-T4")
"""Of Table 1."""
DYNAMIC = ("B4-dynamic", "B4-dynamic-sampled")
"""Confidence of the model itself, and of the tempered distribution, as the paper's engine takes it."""
LAMBDA_SETTINGS = ("B4-T1", "B8-T1", "B8-T2", "B4-T4", "B8-T4", "B8-T8")
"""Rows of Table 4."""
GRID_SETTINGS = ("B4-T1", "B8-T2", "B8-T4")
"""Of Tables 5 to 7; their mean accuracy on validation problems chooses a learning rate."""
DIVERSITY = "B4-T1-temperature-1"
"""Full steps at temperature 1, for distinct answers per prompt."""


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


@runtime_checkable
class SuiteData(Protocol):
    """The suite's problems."""

    def task(self, name: str) -> Task:
        """The verifier of a task."""
        ...

    def problems(self, task: str, split: str, limit: int | None, seed: int) -> list[Problem]:
        """Held-out problems (``validation`` or ``test``)."""
        ...

    def training_problems(self, count: int, seed: int, *, solved: bool) -> list[Problem]:
        """Training prompts of all tasks; ``solved``: with the real solutions that SFT learns."""
        ...

    def identity(self, *, solved: bool) -> dict[str, str]:
        """What tells the training problems from others of the same count and seed; part of the hash."""
        ...

    def paths(self, tasks: Sequence[str]) -> list[Path]:
        """Files and folders that are read for training and these tasks, for the user to check."""
        ...


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

    def budget(self, *, quick: bool) -> Budget:
        """The budget of one student."""
        return self.quick if quick else self.full

    @property
    def middle_learning_rate(self) -> float:
        """Where nothing is known of the grid."""
        return sorted(self.learning_rates)[len(self.learning_rates) // 2]


def _settings(max_new_tokens: int) -> dict[str, DecodeParams]:
    dynamic = SETTINGS["B4-dynamic"]
    settings = {name: SETTINGS[name] for name in STATIC} | {
        "B4-dynamic": dynamic,
        "B4-dynamic-sampled": dataclasses.replace(dynamic, confidence="sampled"),
        DIVERSITY: dataclasses.replace(SETTINGS["B4-T1"], temperature=1.0),
    }
    return {
        name: dataclasses.replace(params, max_new_tokens=max_new_tokens) for name, params in settings.items()
    }


class MiniData:
    """Problems of the built-in tasks."""

    def task(self, name: str) -> Task:
        """The verifier of a task."""
        return TASKS[name]

    def problems(self, task: str, split: str, limit: int | None, seed: int) -> list[Problem]:
        """Held-out problems, drawn with this seed."""
        return TASKS[task].problems(split, limit, seed)

    def training_problems(self, count: int, seed: int, *, solved: bool) -> list[Problem]:
        """The same number of every task; each comes with a solution anyway."""
        del solved
        share = -(-count // len(TASKS))
        return [problem for task in TASKS.values() for problem in task.problems("train", share, seed)]

    def identity(self, *, solved: bool) -> dict[str, str]:
        """The seed says it all."""
        del solved
        return {}

    def paths(self, tasks: Sequence[str]) -> list[Path]:
        """Nothing is read."""
        del tasks
        return []


@dataclass(frozen=True)
class SdarData:
    """Real data in one folder: ``train.jsonl`` (question, task math, function or stdio), ``solutions.jsonl``
    (with a solution each, for SFT), and a folder per benchmark. Prompts are the paper's (C.3)."""

    folder: Path

    def task(self, name: str) -> Task:
        """The benchmark's verifier."""
        return load_benchmark(name, self.folder)

    def problems(self, task: str, split: str, limit: int | None, seed: int) -> list[Problem]:
        """A benchmark's problems; GSM8K's validation problems are of its training split."""
        split = "train" if (task, split) == ("gsm8k", "validation") else split
        problems = load_benchmark(task, self.folder).problems(split, limit, seed)
        return [_with_prompt(problem, PROMPT_KINDS[task]) for problem in problems]

    def training_problems(self, count: int, seed: int, *, solved: bool) -> list[Problem]:
        """The first ``count`` lines of the file; the seed draws nothing.

        Raises InputError for a file with fewer, since every method is to learn from as many.
        """
        del seed
        kinds: dict[str, PromptKind] = {"math": "math", "function": "function", "stdio": "stdio"}
        problems = read_prompt_file(self._training_file(solved=solved))[:count]
        if len(problems) < count:
            problem = f"{self._training_file(solved=solved)} has only {len(problems)} lines"
            raise InputError("num_prompts", count, problem, "add some, or give --num-prompts")
        for problem in problems:
            if problem.task not in kinds:
                fix = f"use one of {', '.join(kinds)}"
                raise InputError("task", problem.task, f"problem {problem.id!r}: not a kind of prompt", fix)
        return [_with_prompt(problem, kinds[problem.task]) for problem in problems]

    def identity(self, *, solved: bool) -> dict[str, str]:
        """SHA-256 of the file, once it is there."""
        file = self._training_file(solved=solved)
        return {"sha256": _sha256(file) if file.is_file() else "missing"}

    def paths(self, tasks: Sequence[str]) -> list[Path]:
        """What has to be in the folder."""
        return [self.folder / name for name in ("train.jsonl", "solutions.jsonl", *tasks)]

    def _training_file(self, *, solved: bool) -> Path:
        return self.folder / ("solutions.jsonl" if solved else "train.jsonl")


@cache
def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _with_prompt(problem: Problem, kind: PromptKind) -> Problem:
    return dataclasses.replace(problem, question=user_turn(problem.question, "paper", kind))


MINI = Suite(
    name="mini",
    teachers={"mini": LARGE, "mini-small": SMALL},
    tasks=tuple(TASKS),
    validation_tasks=tuple(TASKS),
    settings=_settings(MAX_NEW_TOKENS),
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
        settings=_settings(2000),
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
    suites: Sequence[str] = ("mini", "sdar")
    if name not in suites:
        raise InputError("suite", name, "not known", f"use one of {', '.join(suites)}")
    return MINI if name == "mini" else sdar_suite(data or "data")
