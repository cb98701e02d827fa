"""The work behind a cell: trajectories, a student, its evaluation; each is kept and made only once.

``OUTPUT/records`` has the trajectories of a teacher and seed, which all methods share; ``OUTPUT/students``
the students' weights; ``OUTPUT/evaluations`` every response of a cell. Each goes by the hash of its
configuration, and is made again where that was another.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from t3d.decoding.rollout_filter import is_graded
from t3d.decoding.sample_choice import SampleChoice
from t3d.decoding.teacher_scorer import TeacherScorer
from t3d.errors import InputError
from t3d.interchange.solutions import solution_trajectory
from t3d.models.loading import load_tokenizer
from t3d.models.placement import resolve_device
from t3d.problems.problem import Problem
from t3d.reproduce.pipeline import Pipeline
from t3d.reproduce.recipes import ORIGINAL, CellSpec, StudentSpec, cell_command, learns_solutions
from t3d.reproduce.resolve import (
    ADDED_LATER,
    Resolved,
    evaluation_params,
    resolve_cell,
    resolve_records,
    resolve_student,
    student_rollout,
    training_fields,
)
from t3d.reproduce.rounds import Round, run_rounds
from t3d.reproduce.suites import Budget, Suite, split_problems
from t3d.tasks.task import PosedTask
from t3d.training.config import T3DConfig
from t3d.training.presets import override_text
from t3d.trajectory import Trajectory, read_trajectories
from t3d.work.kept import Product
from t3d.work.lock import locked
from t3d.work.versions import versions


@dataclass
class Workshop:
    """Makes students and their cells below ``output``."""

    suite: Suite
    quick: bool
    output: Path
    _posed: dict[tuple[str, str, int], list[Problem]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        suite = self.suite
        self.budget = suite.budget(quick=self.quick)
        self._pipeline = Pipeline(device=suite.device, dtype=suite.dtype, batch_size=suite.batch_size)

    def check(self, cells: Sequence[CellSpec]) -> None:
        """Find out before the work whether all that these cells read is there and can be used.

        Raises InputError for a device that is not here, a teacher without tokenizer, problems that are
        missing or too few, a grader that does not work, and files of somebody else where those of the work
        belong.
        """
        resolve_device(self.suite.device)
        for teacher in dict.fromkeys(cell.student.teacher for cell in cells):
            load_tokenizer(teacher)
        for split, seed in dict.fromkeys((cell.split, cell.student.seed) for cell in cells):
            for task in split_problems(self.suite, self.budget, split)[0]:
                self._problems(task, split, seed)
        self._check_own(cells)
        missing = [spec for spec in _trained(cells) if not self.student(spec).is_made]
        for spec in missing:
            self._choice(spec)
        for source in dict.fromkeys(
            (one.seed, learns_solutions(one.method), one.num_rounds) for one in missing
        ):
            self._training_problems(*source)

    def _check_own(self, cells: Sequence[CellSpec]) -> None:
        for cell in cells:
            self.evaluation(cell).check_is_own()
        for student in (one for spec in _trained(cells) for one in spec.rounds):
            self.student(student).check_is_own()
            if not learns_solutions(student.method):
                self.records(student).check_is_own()

    def make_cell(self, cell: CellSpec) -> dict[str, Any]:
        """Train the student if its weights are missing, evaluate it, and return the record of the cell."""
        source, training_seconds = self.make_student(cell.student)
        tasks, _ = split_problems(self.suite, self.budget, cell.split)
        resolved = resolve_cell(self.suite, self.budget, cell)
        evaluation = self.evaluation(cell)
        problems = {task: self._problems(task, cell.split, cell.student.seed) for task in tasks}
        entries = self._pipeline.evaluate(
            evaluation,
            source,
            [PosedTask(task=self.suite.data.task(task), problems=problems[task]) for task in tasks],
            {name: evaluation_params(self.suite, cell, name) for name in cell.settings},
            samples_per_prompt=cell.samples_per_prompt,
            label=cell.label,
        )
        by_setting = [entry for name in cell.settings for entry in entries if entry["setting"] == name]
        return {
            "config_hash": resolved.hash,
            "command": cell_command(self.suite, cell, quick=self.quick),
            "teacher": cell.student.teacher,
            "method": cell.student.name,
            "learning_rate": cell.student.learning_rate,
            "seed": cell.student.seed,
            "split": cell.split,
            "results": [_row(entry) for entry in by_setting],
            "seconds": evaluation.seconds,
            "training_seconds": training_seconds,
            **self.training_cost(cell.student),
            "num_threads": torch.get_num_threads(),
            "model": self._pipeline.load(source).identity(),
            "versions": versions(),
            "config": resolved.full,
        }

    def training_cost(self, spec: StudentSpec) -> dict[str, dict[str, int]]:
        """What a student's rounds took, as ``training_cost``; empty for the original, and where rollouts that
        it was made of are no longer there."""
        if spec.method == ORIGINAL:
            return {}
        config = training_config(self.suite, self.budget, spec, self.output)
        cost = {"optimizer_steps": spec.num_rounds * config.max_steps}
        if not learns_solutions(spec.method):
            files = [self.records(one).path for one in spec.rounds]
            if not all(file.is_file() for file in files):
                return {}
            kept = [trajectory for file in files for trajectory in read_trajectories(file)]
            drawn = self.budget.num_prompts * sum(self._choice(one).num_samples for one in spec.rounds)
            cost |= {"rollouts": drawn, "kept_rollouts": len(kept)}
            cost["kept_tokens"] = sum(one.visible_length for one in kept)
            cost["kept_forwards"] = sum(max(one.step_map) for one in kept)
        return {"training_cost": cost}

    def make_student(self, spec: StudentSpec) -> tuple[str | Path, float]:
        """The student's checkpoint, trained now if need be, and the seconds of its training (0 for the
        original), of several rounds the last.

        A training that was cut goes on from its last checkpoint, and its seconds count from there.
        """
        if spec.method == ORIGINAL:
            return spec.teacher, 0.0
        student = self.student(spec)
        if student.is_made or learns_solutions(spec.method):
            config = training_config(self.suite, self.budget, spec, student.unfinished[0])
            read, teacher = partial(self._solutions, spec), spec.teacher
            self._pipeline.train(student, teacher, read, config, soft_targets_from=teacher)
        else:
            rounds = [self._round(one) for one in spec.rounds]
            running = partial(_alone, student)
            run_rounds(self._pipeline, spec.teacher, rounds, running=running, start=spec.round_start)
        return student.path, student.seconds

    def _round(self, spec: StudentSpec) -> Round:
        """The last of a student's rounds."""
        student = self.student(spec)
        return Round(
            number=spec.num_rounds,
            rollouts=self.records(spec),
            training=student,
            problems=self._training_problems(spec.seed, is_solved=False, number=spec.num_rounds),
            params=student_rollout(self.suite, spec),
            config=training_config(self.suite, self.budget, spec, student.unfinished[0]),
            choice=self._choice(spec),
        )

    def _choice(self, spec: StudentSpec) -> SampleChoice:
        grader = self.suite.data.sample_grader() if is_graded(spec.rollout_filter) else None
        how: dict[str, Any] = {"rollout_filter": spec.rollout_filter, "grader": grader}
        if spec.rollout_filter == "teacher":
            how["scorer"] = TeacherScorer(spec.teacher, self.suite.device, self.suite.dtype)
        choice = SampleChoice(num_samples=spec.num_samples, **how)
        return choice.of_round(student_rollout(self.suite, spec))

    def evaluation(self, cell: CellSpec) -> Product:
        """A cell's responses, to be made or made."""
        resolved = resolve_cell(self.suite, self.budget, cell)
        return self._product("evaluations", resolved.hash, resolved)

    def student(self, spec: StudentSpec) -> Product:
        """A student's weights, to be made or made; those of the original never are."""
        resolved = resolve_student(self.suite, self.budget, spec)
        checkpoints = self.output / "checkpoints" / resolved.hash
        return self._product("students", resolved.hash, resolved, checkpoints)

    def records(self, spec: StudentSpec) -> Product:
        """The trajectories that a student learns from; real solutions are not kept."""
        resolved = resolve_records(self.suite, self.budget, spec)
        chunks = self.output / "records" / f"{resolved.hash}.parquet.chunks"
        return self._product("records", f"{resolved.hash}.parquet", resolved, chunks)

    def _product(self, kind: str, name: str, resolved: Resolved, *unfinished: Path) -> Product:
        path = self.output / kind / name
        return Product(
            path=path,
            record=path.with_name(f"{name}.made.json"),
            plan=resolved.full,
            unfinished=unfinished,
            added_later=ADDED_LATER,
        )

    def _problems(self, task: str, split: str, seed: int) -> list[Problem]:
        """The problems of a task, posed and checked once."""
        key = (task, split, seed)
        if key not in self._posed:
            _, limit = split_problems(self.suite, self.budget, split)
            problems = self.suite.data.problems(task, split, limit, seed)
            if not problems:
                problem, fix = f"no {split} problem of {task}", "put some into its data"
                raise InputError("data", str(self.suite.data), problem, fix)
            for problem in problems:
                self.suite.data.task(task).check(problem)
            self._posed[key] = problems
        return self._posed[key]

    def _training_problems(self, seed: int, is_solved: bool, number: int = 1) -> list[Problem]:
        """Those of a round: what so many rounds take and one less does not."""
        count = self.budget.num_prompts
        problems = self.suite.data.training_problems(number * count, seed, solved=is_solved)
        if number == 1:
            return problems
        before = self.suite.data.training_problems((number - 1) * count, seed, solved=is_solved)
        taken = {problem.id for problem in before}
        return [problem for problem in problems if problem.id not in taken]

    def _solutions(self, spec: StudentSpec) -> list[Trajectory]:
        problems = self._training_problems(spec.seed, is_solved=True)
        tokenizer = load_tokenizer(spec.teacher)
        return [solution_trajectory(problem, tokenizer, T3DConfig.block_size) for problem in problems]


def _trained(cells: Sequence[CellSpec]) -> list[StudentSpec]:
    students = dict.fromkeys(cell.student for cell in cells)
    return [student for student in students if student.method != ORIGINAL]


def _alone(held: Product, name: str, product: Product) -> AbstractContextManager[object]:
    """Lock what another process may just be making too; ``held`` is locked already."""
    del name
    return nullcontext() if product.is_made or product.path == held.path else locked(product.path)


def training_config(suite: Suite, budget: Budget, spec: StudentSpec, checkpoints: Path) -> T3DConfig:
    """The training of a student. Raises InputError for a learning rate or overrides that cannot be used."""
    fields: dict[str, Any] = {"save_steps": 50, "save_total_limit": 1, "dataloader_pin_memory": False}
    fields |= training_fields(suite, budget, spec)
    rate = fields["learning_rate"]
    if not 0 < rate < math.inf:
        raise InputError("learning_rate", rate, "not a positive number", "use for example 5e-4")
    try:
        return T3DConfig(output_dir=str(checkpoints), use_cpu=suite.device_kind == "cpu", **fields)
    except InputError:
        raise
    except (TypeError, ValueError) as error:  # of TrainingArguments
        problem = f"no setting of this training ({str(error).splitlines()[0]})"
        overrides = [override_text(*item) for item in spec.overrides]
        raise InputError("override", overrides, problem, "leave it out, or use another value") from error


def _row(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What the record of a cell keeps of an evaluation's entry."""
    costs = ("tokens_per_step", "tokens_per_forward", "tokens_per_second", "seconds")
    costs += ("mean_denoising_steps", "mean_length", "stopped")
    kept = ("setting", "task", "num_correct", "verdicts", "n", "num_prompts", "distinct_answers_per_prompt")
    return {
        **{name: entry[name] for name in kept},
        "latency": round(entry["latency"], 6),
        "finish_reasons": entry["finish_reasons"],
        **{name: round(entry[name], 6) for name in costs},
    }
