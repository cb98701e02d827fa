"""Which students and which cells each table takes.

A *cell* is one student under one decoding setting on all tasks.
"""

import dataclasses
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t3d.decoding.rollout_filter import RolloutFilter
from t3d.errors import InputError
from t3d.reproduce.settings import DIVERSITY, DYNAMIC, GRID_SETTINGS, LAMBDA_SETTINGS, STATIC_SETTINGS
from t3d.reproduce.suites import Budget, Suite
from t3d.training.choices import RoundStart
from t3d.training.preset_rounds import ROUNDS, preset_rollouts
from t3d.training.presets import SOLUTION_PRESETS, override_text

ORIGINAL = "original"
MAIN_METHODS = (ORIGINAL, "sft", "redi", "dparallel", "naive_td", "t3d")
ABLATIONS = ("naive_td_path", "naive_td_random", "naive_td_path_random", "ddo", "ddo_random")
TABLE_5_METHODS = (ORIGINAL, "sft", "redi", "naive_td", *ABLATIONS, "t3d")
TABLE_6_METHODS = (ORIGINAL, "sft", "redi", "naive_td", *ABLATIONS, "ddo_path", "t3d")
LAMBDAS = (0.05, 0.2, 0.5)
"""0.2 is the preset's."""
TABLES = tuple(range(1, 8))


def tables_of(name: str) -> tuple[int, ...]:
    """``table1`` to ``table7``, or ``all``. Raises InputError for another name."""
    names = {f"table{table}": (table,) for table in TABLES} | {"all": TABLES}
    if name not in names:
        raise InputError("table", name, "not known", f"use one of {', '.join(names)}")
    return names[name]


_LABEL_LENGTH = 150
"""Of a student's name in that of a file, which has the hash besides."""


def learns_solutions(method: str) -> bool:
    """Whether a method learns real solutions; any other learns its teacher's rollouts."""
    return method in SOLUTION_PRESETS


def default_of(method: str) -> dict[str, Any]:
    """The ``num_rounds``, ``num_samples`` and ``rollout_filter`` of a method unless it is told otherwise."""
    return {"num_rounds": 1, "num_samples": 1, "rollout_filter": "none", **ROUNDS.get(method, {})}


@dataclass(frozen=True, kw_only=True)
class StudentSpec:
    """One student, or, as method ``original``, its teacher."""

    teacher: str
    method: str
    """A preset of training, or ``original``."""
    seed: int
    """Draws prompts, held-out problems, sampling noise and training noise."""
    learning_rate: float | None = None
    """None: original, or not chosen yet."""
    overrides: tuple[tuple[str, Any], ...] = ()
    """T3DConfig fields over the preset's."""
    num_rounds: int = 1
    """Of rollout and training. That of one round less is another student, which rolls out in the last."""
    rollout_settings: tuple[str, ...] = ()
    """Labels of decoding settings, one for each round, which say how its rollouts are decoded; else as the
    suite's are."""
    round_start: RoundStart = "student"
    """Whose weights a later round begins with: those of the one before, or the teacher's."""
    num_samples: int = 1
    """Responses drawn for each prompt, of rounds whose rollouts are greedy one."""
    rollout_filter: RolloutFilter = "none"
    """Which of them it learns from."""

    @property
    def name(self) -> str:
        """Method and overrides, as the tables and :mod:`t3d.reproduce.paper` name them; then the rounds."""
        settings = [*self.overrides, *([("num_rounds", self.num_rounds)] if self.num_rounds > 1 else [])]
        if self.rollout_settings != preset_rollouts(self.method, self.num_rounds):
            settings.append(("rollouts", ",".join(self.rollout_settings)))
        settings += [("round_start", self.round_start)] if self.round_start != "student" else []
        for name in ("num_samples", "rollout_filter"):
            if getattr(self, name) != default_of(self.method)[name]:
                settings.append((name, getattr(self, name)))
        return " ".join([self.method, *(f"{field}={value}" for field, value in settings)])

    @property
    def rounds(self) -> "list[StudentSpec]":
        """The students of its rounds, itself last."""
        return [self.after(number) for number in range(1, self.num_rounds + 1)]

    def after(self, num_rounds: int) -> "StudentSpec":
        """The student of the first rounds alone."""
        settings = self.rollout_settings[:num_rounds]
        start = self.round_start if num_rounds > 1 else "student"
        return dataclasses.replace(self, num_rounds=num_rounds, rollout_settings=settings, round_start=start)


def _of_method(
    method: str,
    teacher: str,
    seed: int,
    learning_rate: float | None,
    overrides: tuple[tuple[str, Any], ...] = (),
) -> StudentSpec:
    """A student in the rounds of its method."""
    told = default_of(method)
    num_rounds = told["num_rounds"]
    return StudentSpec(
        teacher=teacher,
        method=method,
        seed=seed,
        learning_rate=learning_rate,
        overrides=overrides,
        num_rounds=num_rounds,
        rollout_settings=preset_rollouts(method, num_rounds),
        num_samples=told["num_samples"],
        rollout_filter=told["rollout_filter"],
    )


@dataclass(frozen=True, kw_only=True)
class CellSpec:
    """One student under some decoding settings: one on test problems, all of a criterion on validation."""

    student: StudentSpec
    settings: tuple[str, ...]
    split: str = "test"
    samples_per_prompt: int = 1

    @property
    def label(self) -> str:
        """Short text for file names and progress."""
        student = self.student
        where = self.settings[0] if len(self.settings) == 1 else "grid"
        has_rate = self.split == "validation" and student.learning_rate is not None
        rate = f".lr{student.learning_rate:g}" if has_rate else ""
        split = "" if self.split in ("validation", "test") else f".{self.split}"
        name = re.sub(r"[ =/]", "-", student.name)[:_LABEL_LENGTH]
        return f"{Path(student.teacher).name}.{name}.seed{student.seed}{rate}{split}.{where}"


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What a table wants of a method: these settings for these seeds."""

    table: int
    teacher: str
    method: str
    settings: tuple[str, ...]
    seeds: tuple[int, ...]
    overrides: tuple[tuple[str, Any], ...] = ()
    samples_per_prompt: int = 1

    @property
    def name(self) -> str:
        """The student's."""
        return self.student(0, None).name

    def student(self, seed: int, learning_rate: float | None) -> StudentSpec:
        """The student of one seed."""
        rate = None if self.method == ORIGINAL else learning_rate
        return _of_method(self.method, self.teacher, seed, rate, self.overrides)

    def cells(self, learning_rate: float | None) -> list[CellSpec]:
        """One cell per seed and setting."""
        return [
            CellSpec(
                student=self.student(seed, learning_rate),
                settings=(setting,),
                samples_per_prompt=self.samples_per_prompt,
            )
            for seed in self.seeds
            for setting in self.settings
        ]


AddedRow = tuple[str, tuple[tuple[str, Any], ...]]
"""A preset, and T3DConfig fields over its own."""


def demands(
    suite: Suite,
    tables: Sequence[int],
    num_seeds: int,
    budget: Budget,
    added: Sequence[AddedRow] = (),
) -> list[Demand]:
    """Everything that these tables take, with ``added`` rows at the end of each.

    ``num_seeds`` seeds for the main teacher, one for the other. Where all tables are wanted, only Tables 1
    and 2 get more than one seed.
    """
    main, *others = suite.teachers
    found: list[Demand] = []
    for table in tables:
        num_of_table = num_seeds if len(tables) == 1 or table in (1, 2) else 1
        of_main = _main_demands(table, main, tuple(range(num_of_table)), budget, added)
        found += of_main
        for teacher in others if table in (1, 2) else ():
            found += [
                dataclasses.replace(demand, teacher=teacher, seeds=(0,))
                for demand in of_main
                if demand.settings != (DIVERSITY,)
            ]
    return found


def trained_methods(found: Sequence[Demand]) -> list[str]:
    """Whose learning rates these demands take."""
    return list(dict.fromkeys(demand.method for demand in found if demand.method != ORIGINAL))


def _main_demands(
    table: int, teacher: str, seeds: tuple[int, ...], budget: Budget, added: Sequence[AddedRow]
) -> list[Demand]:
    methods, settings = {
        1: (MAIN_METHODS, STATIC_SETTINGS),
        2: (MAIN_METHODS, ("B4-T1",)),
        3: (tuple(name for name in MAIN_METHODS if name != "sft"), DYNAMIC),
        4: (("t3d",), LAMBDA_SETTINGS),
        5: (TABLE_5_METHODS, ("B4-T1",)),
        6: (TABLE_6_METHODS, ("B8-T2",)),
        7: (TABLE_6_METHODS, ("B8-T4",)),
    }[table]
    found = [
        Demand(table=table, teacher=teacher, method=method, settings=settings, seeds=seeds)
        for method in methods
    ]
    if table == 4:
        overrides = [(("path_weight", value),) if value != 0.2 else () for value in LAMBDAS]
        found = [dataclasses.replace(found[0], overrides=item) for item in overrides]
    found += [dataclasses.replace(found[0], method=name, overrides=fields) for name, fields in added]
    if table == 1:
        answers = {"samples_per_prompt": budget.samples_per_prompt}
        found += [
            dataclasses.replace(demand, settings=(DIVERSITY,), seeds=(0,), **answers) for demand in found
        ]
    return found


def grid_cells(suite: Suite, method: str) -> list[CellSpec]:
    """The validation cells, one per learning rate, that choose a method's (main teacher, seed 0)."""
    teacher = next(iter(suite.teachers))
    return [
        CellSpec(
            student=_of_method(method, teacher, 0, rate),
            settings=GRID_SETTINGS,
            split="validation",
        )
        for rate in suite.learning_rates
    ]


def best_rate(rates: Sequence[float], scores: Mapping[float, float]) -> float | None:
    """What a finished grid chooses, the smaller of two equal ones; None: some rate has no score."""
    if any(rate not in scores for rate in rates):
        return None
    return max(scores, key=lambda rate: (scores[rate], -rate))


def cell_command(suite: Suite, cell: CellSpec, *, quick: bool) -> str:
    """A command that trains the cell's student and evaluates it, whatever the learning-rate grid says."""
    student = cell.student
    words = ["t3d", "reproduce", "cell", "--suite", suite.name, "--teacher", student.teacher]
    words += ["--method", student.method, "--seed", str(student.seed)]
    if student.method != ORIGINAL:
        words += ["--learning-rate", f"{student.learning_rate!r}"]
    if student.overrides:
        words += ["--override", *(override_text(name, value) for name, value in student.overrides)]
    told = default_of(student.method)
    if student.num_rounds != told["num_rounds"]:
        words += ["--num-rounds", str(student.num_rounds)]
    if student.rollout_settings != preset_rollouts(student.method, student.num_rounds):
        words += ["--rollout-settings", *student.rollout_settings]
    if student.round_start != "student":
        words += ["--round-start", student.round_start]
    if student.num_samples != told["num_samples"]:
        words += ["--num-samples", str(student.num_samples)]
    if student.rollout_filter != told["rollout_filter"]:
        words += ["--rollout-filter", student.rollout_filter]
    words += ["--settings", *cell.settings]
    if cell.split != "test":
        words += ["--split", cell.split]
    if cell.samples_per_prompt != 1:
        words += ["--samples-per-prompt", str(cell.samples_per_prompt)]
    if quick:
        words.append("--quick")
    return shlex.join([*words, *suite.flags, "--output", "runs/cell"])
