"""The commands that reproduce the paper's tables, and single cells of them."""

import json
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich import box
from rich.console import Console
from rich.table import Table

from t3d.cli.options import LOG_WIDTH
from t3d.errors import InputError
from t3d.evaluation.finished import CELLS
from t3d.reproduce.cell_choice import CellChoice
from t3d.reproduce.recipes import tables_of
from t3d.reproduce.study import read_study
from t3d.reproduce.suite_choice import ReproduceConfig, check_cells
from t3d.reproduce.suites import Suite, load_suite
from t3d.work.files import check_output_file, check_output_folder, write_text
from t3d.work.lock import locked
from t3d.work.own import json_with, text_from
from t3d.work.progress import duration
from t3d.work.shards import join

if TYPE_CHECKING:
    from t3d.reproduce.eta import Plan
    from t3d.reproduce.runner import Reproduction


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
        tables = tables_of(self.table)
        load_suite(self.suite, self.data)
        from t3d.report.html.page import add_report
        from t3d.reproduce.dry_run import budget_lines, configurations
        from t3d.reproduce.report import check_report, write_report
        from t3d.reproduce.runner import Reproduction

        reproduction = Reproduction(self, tables)
        console = _console()
        if self.configurations is not None:
            if not self.dry_run:
                problem = "only a dry run writes them"
                raise InputError("configurations", self.configurations, problem, "add --dry-run")
            check_output_file(self.configurations, is_own=text_from("---\nstudent: "))
            write_text(self.configurations, "".join(configurations(reproduction)))
        print_plan(console, reproduction.plan(), f"{self.table}, suite {self.suite}", [reproduction.suite])
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
class ReproduceCell(CellChoice):
    """Make one cell again: train the student it names, evaluate it, print and keep the result."""

    output: str = "runs/cell"
    """Folder for cell.json, cells, the student and the records it learns from."""

    def run(self) -> None:
        """Run the command."""
        suite, cell = self.spec(self.output)
        self.require_data()
        from t3d.reproduce.report import OWN_NAMES
        from t3d.reproduce.store import CellStore
        from t3d.reproduce.students import Workshop

        output = Path(self.output)
        check_output_folder(output, OWN_NAMES)
        check_output_file(output / "cell.json", is_own=json_with("config_hash", "command", "results"))
        workshop = Workshop(suite=suite, quick=self.quick, output=output)
        workshop.check([cell])
        join(output / "cells", {"suite": suite.name}, CELLS)
        with locked(workshop.student(cell.student).path):
            record = workshop.make_cell(cell)
            path = CellStore(output / "cells").write(cell.label, record)
            with locked(output / "cell.json", wait=True):  # cells of other students may be made there too
                write_text(output / "cell.json", json.dumps(record, indent=1) + "\n")
        for row in record["results"]:
            print(f"{row['setting']} {row['task']}: {row['num_correct']} of {row['n']}")
        print(path)


@dataclass(frozen=True, kw_only=True)
class ReproduceStudy:
    """Make the cells of a study, students and settings of your own choice, and tabulate them.

    The file names groups of rows, whose keys are the flags of t3d reproduce cell (docs/reproduce.md).
    """

    file: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """YAML file."""
    output: str = "runs/study"
    """Folder for cells, students, study.md and study.json. The same command continues a killed run, and
    processes with the same output share the work."""
    cells: str | None = None
    """Folder of finished cells to reuse, as of another study."""
    dry_run: bool = False
    """Print which cells are there and which are missing, and do nothing."""

    def run(self) -> None:
        """Run the command."""
        check_cells(self.cells)
        study, output = read_study(self.file), Path(self.output)
        for choice in study.choices():
            choice.require_data()
        from t3d.reproduce.study_report import check_study_output, write_study
        from t3d.reproduce.study_run import StudyRun

        check_study_output(output)
        run = StudyRun(study, output, None if self.cells is None else Path(self.cells))
        missing = set(run.missing())
        if self.dry_run:
            for choice in study.choices():
                print(f"{'missing' if choice in missing else 'there'}: {run.label(choice)}")
            print(f"{len(missing)} cells are missing")
        print_plan(_console(), run.plan(), study.title, run.suites)
        if self.dry_run:
            return
        run.run(lambda text: print(text, flush=True))
        with locked(output / "report", wait=True):
            for path in write_study(run, f"t3d reproduce study {self.file}"):
                print(path)


def _console() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else LOG_WIDTH)


def print_plan(console: Console, plan: "Plan", title: str, suites: Iterable[Suite]) -> None:
    """What is missing, and the time that it takes."""
    from t3d.reproduce.eta import speed

    console.print(plan_table(plan, title))
    on_cpu = any(suite.device_kind == "cpu" for suite in suites)
    cores = f", at {speed():.1f} times one core" if on_cpu else ""
    console.print(f"total ETA {duration(plan.seconds)}{cores}", soft_wrap=True)


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
