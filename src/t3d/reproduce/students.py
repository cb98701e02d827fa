"""The work behind a cell: trajectories, a student, its evaluation; each is kept and made only once.

``OUTPUT/records`` has the trajectories of a teacher and seed, which all methods share; ``OUTPUT/students``
the students' weights. Each goes by the hash of its configuration, and is made again where that was another.
"""

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from t3d.decoding.rollout import roll_out_to_file
from t3d.errors import InputError
from t3d.evaluation.evaluate import EvalResult, evaluate
from t3d.interchange.solutions import solution_trajectory
from t3d.models.loading import LoadedModel, load_model, load_tokenizer
from t3d.models.placement import DTYPES, resolve_device
from t3d.problems.problem import Problem
from t3d.reproduce.commands import cell_command
from t3d.reproduce.product import Product
from t3d.reproduce.recipes import ORIGINAL, CellSpec, StudentSpec, learns_solutions
from t3d.reproduce.resolve import (
    evaluation_params,
    resolve_cell,
    resolve_records,
    resolve_student,
    rollout_params,
    training_fields,
)
from t3d.reproduce.suites import Budget, Suite, split_problems
from t3d.training.config import T3DConfig
from t3d.training.presets import override_text
from t3d.training.run import STUDENT_PLAN, distil
from t3d.trajectory import Trajectory, read_trajectories
from t3d.work.claim import locked
from t3d.work.files import discard
from t3d.work.versions import versions


@dataclass
class Workshop:
    """Makes students and their cells below ``output``."""

    suite: Suite
    quick: bool
    output: Path
    _loaded: tuple[StudentSpec, LoadedModel] | None = field(default=None, init=False)
    _posed: dict[tuple[str, str, int], list[Problem]] = field(default_factory=dict, init=False)

    def check(self, cells: Sequence[CellSpec]) -> None:
        """Find out before the work whether all that these cells read is there and can be used.

        Raises InputError for a device that is not here, a teacher without tokenizer, problems that are
        missing or too few, and a grader that does not work.
        """
        resolve_device(self.suite.device)
        for teacher in dict.fromkeys(cell.student.teacher for cell in cells):
            load_tokenizer(teacher)
        for split, seed in dict.fromkeys((cell.split, cell.student.seed) for cell in cells):
            for task in split_problems(self.suite, self._budget, split)[0]:
                self._problems(task, split, seed)
        trained = [cell.student for cell in cells if cell.student.method != ORIGINAL]
        sources = [
            (spec.seed, learns_solutions(spec.method)) for spec in trained if not self.student(spec).is_made
        ]
        for seed, is_solved in dict.fromkeys(sources):
            self._training_problems(seed, is_solved)

    def make_cell(self, cell: CellSpec) -> dict[str, Any]:
        """Train the student if its weights are missing, evaluate it, and return the record of the cell."""
        loaded, training_seconds = self.load_student(cell.student)
        started = time.perf_counter()
        tasks, _ = split_problems(self.suite, self._budget, cell.split)
        results = [
            _row(self._evaluate(loaded, cell, setting, task), setting)
            for setting in cell.settings
            for task in tasks
        ]
        resolved = resolve_cell(self.suite, self._budget, cell)
        return {
            "config_hash": resolved.hash,
            "command": cell_command(self.suite, cell, quick=self.quick),
            "teacher": cell.student.teacher,
            "method": cell.student.name,
            "learning_rate": cell.student.learning_rate,
            "seed": cell.student.seed,
            "split": cell.split,
            "results": results,
            "seconds": round(time.perf_counter() - started, 2),
            "training_seconds": training_seconds,
            "num_threads": torch.get_num_threads(),
            "model": loaded.identity(),
            "versions": versions(),
            "config": resolved.full,
        }

    def load_student(self, spec: StudentSpec) -> tuple[LoadedModel, float]:
        """The student, trained now if need be, and the seconds of its training (0 for the original).

        The last one stays loaded. A training that was cut goes on from its last checkpoint, and its seconds
        count from there.
        """
        student = self.student(spec)
        if spec.method != ORIGINAL:
            if not student.is_made:
                self._train(spec, student)
            discard(student.unfinished)  # a kill may have left it beside the finished student
        if self._loaded is None or self._loaded[0] != spec:
            source = spec.teacher if spec.method == ORIGINAL else student.path
            self._loaded = (spec, load_model(source, device=self.suite.device, dtype=self.suite.dtype))
        return self._loaded[1], student.seconds

    def student(self, spec: StudentSpec) -> Product:
        """A student's weights, to be made or made; those of the original never are."""
        resolved = resolve_student(self.suite, self._budget, spec)
        path = self.output / "students" / resolved.hash
        return Product(
            path=path,
            resolved=resolved,
            complete=path / STUDENT_PLAN,
            unfinished=self.output / "checkpoints" / resolved.hash,
        )

    def records(self, spec: StudentSpec) -> Product:
        """The trajectories that a student learns from; real solutions are not kept."""
        resolved = resolve_records(self.suite, self._budget, spec)
        path = self.output / "records" / f"{resolved.hash}.parquet"
        return Product(
            path=path, resolved=resolved, complete=path, unfinished=path.with_name(f"{path.name}.chunks")
        )

    @property
    def _budget(self) -> Budget:
        return self.suite.budget(quick=self.quick)

    def _problems(self, task: str, split: str, seed: int) -> list[Problem]:
        """The problems of a task, posed and checked once."""
        key = (task, split, seed)
        if key not in self._posed:
            _, limit = split_problems(self.suite, self._budget, split)
            problems = self.suite.data.problems(task, split, limit, seed)
            if not problems:
                problem, fix = f"no {split} problem of {task}", "put some into its data"
                raise InputError("data", str(self.suite.data), problem, fix)
            for problem in problems:
                self.suite.data.task(task).check(problem)
            self._posed[key] = problems
        return self._posed[key]

    def _training_problems(self, seed: int, is_solved: bool) -> list[Problem]:
        return self.suite.data.training_problems(self._budget.num_prompts, seed, solved=is_solved)

    def _evaluate(self, loaded: LoadedModel, cell: CellSpec, setting: str, task: str) -> EvalResult:
        return evaluate(
            loaded,
            self.suite.data.task(task),
            self._problems(task, cell.split, cell.student.seed),
            evaluation_params(self.suite, cell, setting),
            batch_size=self.suite.batch_size,
            samples_per_prompt=cell.samples_per_prompt,
            label=f"{cell.student.name} seed {cell.student.seed} {setting} {task}",
        )

    def _records(self, spec: StudentSpec) -> list[Trajectory]:
        is_solved = learns_solutions(spec.method)
        problems = self._training_problems(spec.seed, is_solved)
        if is_solved:
            tokenizer = load_tokenizer(spec.teacher)
            return [solution_trajectory(problem, tokenizer, T3DConfig.block_size) for problem in problems]
        records = self.records(spec)
        if not records.is_made:
            with locked(records.path):
                if not records.is_made:  # another process may just have made it
                    self._roll_out(spec, problems, records)
        return read_trajectories(records.path)

    def _roll_out(self, spec: StudentSpec, problems: Sequence[Problem], records: Product) -> None:
        started = time.perf_counter()
        records.begin()
        teacher = load_model(spec.teacher, device=self.suite.device, dtype=self.suite.dtype)
        params = rollout_params(self.suite, spec.seed)
        roll_out_to_file(teacher, problems, params, records.path, batch_size=self.suite.batch_size)
        records.end(started)

    def _train(self, spec: StudentSpec, student: Product) -> None:
        records = self._records(spec)
        started = time.perf_counter()
        student.begin()
        self._loaded = None  # memory
        teacher = load_model(spec.teacher, device=self.suite.device, dtype="float32")
        config = training_config(self.suite, self._budget, spec, student.unfinished)
        distil(teacher, records, config, student.path, export_dtype=DTYPES[self.suite.dtype])
        student.end(started)


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


def _row(result: EvalResult, setting: str) -> dict[str, Any]:
    cost = {name: round(value, 6) for name, value in result.cost.items()}
    return {
        "setting": setting,
        "task": result.task,
        "num_correct": result.num_correct,
        "verdicts": "".join("01"[sample.correct] for sample in result.samples),
        "n": result.num_samples,
        "num_prompts": result.num_prompts,
        "distinct_answers_per_prompt": result.distinct_answers_per_prompt,
        "latency": round(result.cost["seconds"] / result.num_samples, 6),
        "finish_reasons": dict(Counter(sample.finish_reason for sample in result.samples)),
        **cost,
    }
