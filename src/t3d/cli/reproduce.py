"""The commands that reproduce the paper's tables, and single cells of them."""

import difflib
import json
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich import box
from rich.console import Console
from rich.table import Table

from t3d.cli.options import LOG_WIDTH
from t3d.errors import InputError, require_once, require_positive
from t3d.reproduce.suite_choice import ReproduceConfig, SuiteChoice
from t3d.work.files import check_output_file, check_output_folder, write_text
from t3d.work.lock import locked
from t3d.work.own import json_with, text_from
from t3d.work.progress import duration
from t3d.work.shards import join

if TYPE_CHECKING:
    from t3d.reproduce.eta import Plan
    from t3d.reproduce.recipes import CellSpec
    from t3d.reproduce.runner import Reproduction
    from t3d.reproduce.suites import Suite


@dataclass(frozen=True, kw_only=True)
class Reproduce(ReproduceConfig):
    """Make a table of the paper, or all: train and evaluate what is missing, reuse what is there.

    One cell is made again by a command of its own, t3d reproduce cell.
    """

    table: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TABLE")]
    """table1 to table7, or all."""
    dry_run: bool = False
    """Print the plan, every student and the budget, and do nothing."""
    configurations: str | None = None
    """With dry-run: YAML file to write, with every student's configuration, paths and cells' commands."""

    def run(self) -> None:
        """Run the command."""
        from t3d.report.html.page import add_report
        from t3d.reproduce.dry_run import budget_lines, configurations
        from t3d.reproduce.eta import speed
        from t3d.reproduce.report import check_report, write_report
        from t3d.reproduce.runner import Reproduction, tables_of

        reproduction = Reproduction(self, tables_of(self.table))
        console = Console(highlight=False, width=None if sys.stdout.isatty() else LOG_WIDTH)
        if self.configurations is not None:
            if not self.dry_run:
                problem = "only a dry run writes them"
                raise InputError("configurations", self.configurations, problem, "add --dry-run")
            check_output_file(self.configurations, is_own=text_from("---\nstudent: "))
            write_text(self.configurations, "".join(configurations(reproduction)))
        plan = reproduction.plan()
        console.print(plan_table(plan, f"{self.table}, suite {self.suite}"))
        cores = f", at {speed():.1f} times one core" if reproduction.suite.device_kind == "cpu" else ""
        console.print(f"total ETA {duration(plan.seconds)}{cores}", soft_wrap=True)
        if self.dry_run:
            console.print(students_table(reproduction))
            for line in budget_lines(reproduction):
                console.print(line, soft_wrap=True)
            where = self.configurations or "FILE.yaml, by --configurations FILE.yaml"
            console.print(f"every configuration, path and command: {where}", soft_wrap=True)
            return
        self.require_data()
        check_report(reproduction)
        reproduction.run(lambda text: console.print(text, soft_wrap=True))
        with locked(reproduction.output / "report", wait=True):
            for path in write_report(reproduction):
                print(path)
            add_report(reproduction.output)


@dataclass(frozen=True, kw_only=True)
class ReproduceCell(SuiteChoice):
    """Make one cell again: train the student it names, evaluate it, print and keep the result."""

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
    """Decoding settings by name, one for each round, whose blocks and steps the rollouts take, such as B8-T8.
    Default: the suite's full steps in all."""
    split: Literal["validation", "test"] = "test"
    samples_per_prompt: int = 1
    """Answers drawn for each prompt."""
    output: str = "runs/cell"
    """Folder for cell.json, cells, the student and the records it learns from."""
    quick: bool = False
    """Half the prompts and optimizer steps (sdar: a fifth)."""

    def spec(self) -> "tuple[Suite, CellSpec]":
        """The suite and the cell. Raises InputError for what suite or training do not have."""
        from t3d.reproduce.recipes import ORIGINAL, CellSpec, StudentSpec, default_rounds, learns_solutions
        from t3d.reproduce.resolve import resolve_cell
        from t3d.reproduce.students import training_config
        from t3d.training.ignored import check_training_fields
        from t3d.training.presets import PRESETS, parse_overrides

        require_positive(self, "samples_per_prompt", "num_rounds")
        known = (ORIGINAL, *(name for name in PRESETS if name != "drafter"))  # that is no student
        if self.method not in known:
            close = difflib.get_close_matches(self.method, known, n=1)
            meant = f"did you mean {close[0]}? It is" if close else "use"
            raise InputError("method", self.method, "not known", f"{meant} one of {', '.join(known)}")
        suite = self.chosen_suite(() if self.teacher is None else (self.teacher,))
        if (self.learning_rate is None) != (self.method == ORIGINAL):
            fix = "give it for a method that is trained, and only then"
            raise InputError("learning_rate", self.learning_rate, f"method={self.method!r}", fix)
        if self.override and self.method == ORIGINAL:
            problem = f"method={self.method!r} is not trained"
            raise InputError("override", list(self.override), problem, "leave it out")
        num_rounds = default_rounds(self.method) if self.num_rounds is None else self.num_rounds
        if num_rounds > 1 and (self.method == ORIGINAL or learns_solutions(self.method)):
            problem = f"method={self.method!r} learns no rollouts"
            raise InputError("num_rounds", num_rounds, problem, "leave it out")
        self._check_rollouts(suite, num_rounds)
        overrides = parse_overrides(self.override)
        if "num_train_epochs" in overrides:
            problem = "ignored: a cell trains for max_steps optimizer steps"
            fix = "override max_steps; an epoch is num_prompts trajectories by those of a step"
            raise InputError("override", f"num_train_epochs={overrides['num_train_epochs']}", problem, fix)
        student = StudentSpec(
            teacher=next(iter(suite.teachers)),
            method=self.method,
            seed=self.seed,
            learning_rate=self.learning_rate,
            overrides=tuple(overrides.items()),
            num_rounds=num_rounds,
            rollout_settings=self.rollout_settings,
        )
        how = {"split": self.split, "samples_per_prompt": self.samples_per_prompt}
        cell = CellSpec(student=student, settings=self.settings, **how)
        if not self.settings:
            fix = f"use some of {', '.join(suite.settings)}"
            raise InputError("settings", self.settings, "empty", fix)
        require_once("settings", self.settings)
        budget = suite.budget(quick=self.quick)
        resolve_cell(suite, budget, cell)
        if self.method != ORIGINAL:
            check_training_fields(training_config(suite, budget, student, Path(self.output)))
        return suite, cell

    def _check_rollouts(self, suite: "Suite", num_rounds: int) -> None:
        from t3d.reproduce.recipes import ORIGINAL, learns_solutions

        given = self.rollout_settings
        if given and (self.method == ORIGINAL or learns_solutions(self.method)):
            problem = f"method={self.method!r} learns no rollouts"
            raise InputError("rollout_settings", given, problem, "leave it out")
        if given and len(given) != num_rounds:
            fix = f"name {num_rounds} settings, or leave it out"
            raise InputError("rollout_settings", given, f"num_rounds={num_rounds}", fix)
        for name in given:
            if name not in suite.settings:
                raise InputError(
                    "rollout_settings", name, "not known", f"use some of {', '.join(suite.settings)}"
                )

    def run(self) -> None:
        """Run the command."""
        from t3d.reproduce.report import OWN_NAMES
        from t3d.reproduce.store import FINISHED, CellStore
        from t3d.reproduce.students import Workshop

        suite, cell = self.spec()
        self.require_data()
        output = Path(self.output)
        check_output_folder(output, OWN_NAMES)
        check_output_file(output / "cell.json", is_own=json_with("config_hash", "command", "results"))
        workshop = Workshop(suite=suite, quick=self.quick, output=output)
        workshop.check([cell])
        join(output / "cells", {"suite": suite.name}, FINISHED)
        with locked(workshop.student(cell.student).path):
            record = workshop.make_cell(cell)
            path = CellStore(output / "cells").write(cell.label, record)
            with locked(output / "cell.json", wait=True):  # cells of other students may be made there too
                write_text(output / "cell.json", json.dumps(record, indent=1) + "\n")
        for row in record["results"]:
            print(f"{row['setting']} {row['task']}: {row['num_correct']} of {row['n']}")
        print(path)


def students_table(reproduction: "Reproduction") -> Table:
    """Every student that is trained, by the hash that names its folder, and its number of cells."""
    from t3d.reproduce.dry_run import all_students

    cells = Counter(cell.student for cell in reproduction.all_cells())
    table = Table("student", "teacher", "seed", "learning rate", "hash", "cells", box=box.SIMPLE_HEAD)
    for student in all_students(reproduction):
        folder = reproduction.workshop.student(student).path.name
        row = (student.name, Path(student.teacher).name, student.seed, student.learning_rate, folder)
        table.add_row(*map(str, row), str(cells[student]))
    return table


def plan_table(plan: "Plan", title: str) -> Table:
    """Students and cells by teacher and method: what is there, what is missing, how long it takes."""
    from t3d.reproduce.tables import method_title

    table = Table(title=title)
    for name in ("teacher", "method", "cells done", "missing", "to train", "ETA"):
        table.add_column(name, justify="left" if name in ("teacher", "method") else "right")
    for (teacher, method), line in plan.lines.items():
        needed = duration(line.seconds) if line.seconds else "-"
        counts = map(str, (line.num_done, line.num_missing, line.num_students))
        table.add_row(Path(teacher).name, method_title(method), *counts, needed)
    if plan.num_rollouts:
        needed = duration(plan.rollout_seconds) if plan.rollout_seconds else "-"
        table.add_row("", "rollouts of the teachers", "", str(plan.num_rollouts), "", needed)
    return table
