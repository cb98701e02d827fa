"""The work behind a cell: trajectories, a student, its evaluation; each is kept and made only once.

``OUTPUT/records`` has the trajectories of a teacher and seed, which all methods share; ``OUTPUT/students``
the students' weights, by the hash of their configuration.
"""

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from t3d.atomic import discard, write_text
from t3d.claim import locked
from t3d.data.prompts import Problem
from t3d.data.solutions import solution_trajectory
from t3d.evaluation.evaluate import EvalResult, evaluate
from t3d.models.loading import LoadedModel, load_model, load_tokenizer
from t3d.models.placement import DTYPES
from t3d.reproduce.commands import cell_command
from t3d.reproduce.recipes import ORIGINAL, CellSpec, StudentSpec
from t3d.reproduce.resolve import (
    evaluation_params,
    resolve_cell,
    resolve_records,
    resolve_student,
    rollout_params,
    training_fields,
)
from t3d.reproduce.suites import Suite
from t3d.rollout import roll_out_to_file
from t3d.training.config import T3DConfig
from t3d.training.run import STUDENT_PLAN, distil
from t3d.trajectory import Trajectory, read_trajectories
from t3d.versions import versions


@dataclass
class Workshop:
    """Makes students and their cells below ``output``."""

    suite: Suite
    quick: bool
    output: Path
    device: str = "auto"
    batch_size: int = 256
    _loaded: tuple[StudentSpec, LoadedModel] | None = field(default=None, init=False)

    def make_cell(self, cell: CellSpec) -> dict[str, Any]:
        """Train the student if its weights are missing, evaluate it, and return the record of the cell."""
        loaded, training_seconds = self.student(cell.student)
        started = time.perf_counter()
        is_test = cell.split == "test"
        tasks = self.suite.tasks if is_test else self.suite.validation_tasks
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

    def student(self, spec: StudentSpec) -> tuple[LoadedModel, float]:
        """The student, trained now if need be, and the seconds of its training (0 for the original).

        The last one stays loaded. A training that was cut goes on from its last checkpoint, and its seconds
        count from there.
        """
        if spec.method == ORIGINAL:
            folder, seconds = Path(), 0.0
        else:
            folder = self.student_folder(spec)
            if not (folder / STUDENT_PLAN).is_file():
                self._train(spec, folder)
            seconds = _read_seconds(folder)
        if self._loaded is None or self._loaded[0] != spec:
            source = spec.teacher if spec.method == ORIGINAL else folder
            self._loaded = (spec, load_model(source, device=self.device, dtype=self.suite.dtype))
        return self._loaded[1], seconds

    def student_folder(self, spec: StudentSpec) -> Path:
        """Where a student's weights are."""
        return self.output / "students" / resolve_student(self.suite, self._budget, spec).hash

    def records_file(self, spec: StudentSpec) -> Path:
        """Where the trajectories that a student learns from are."""
        return self.output / "records" / f"{resolve_records(self.suite, self._budget, spec).hash}.parquet"

    @property
    def _budget(self) -> Any:
        return self.suite.budget(quick=self.quick)

    def _evaluate(self, loaded: LoadedModel, cell: CellSpec, setting: str, task: str) -> EvalResult:
        is_test = cell.split == "test"
        limit = self._budget.limit if is_test else self._budget.validation_limit
        return evaluate(
            loaded,
            self.suite.data.task(task),
            self.suite.data.problems(task, cell.split, limit, cell.student.seed),
            evaluation_params(self.suite, cell, setting),
            batch_size=self.batch_size,
            samples_per_prompt=cell.samples_per_prompt,
            label=f"{cell.student.name} seed {cell.student.seed} {setting} {task}",
        )

    def _records(self, spec: StudentSpec) -> list[Trajectory]:
        is_solved = spec.method.startswith("sft")
        problems = self.suite.data.training_problems(self._budget.num_prompts, spec.seed, solved=is_solved)
        if is_solved:
            tokenizer = load_tokenizer(spec.teacher)
            return [solution_trajectory(problem, tokenizer, T3DConfig.block_size) for problem in problems]
        path = self.records_file(spec)
        if not path.is_file():
            with locked(path):
                if not path.is_file():  # another process may just have made it
                    self._roll_out(spec, problems, path)
        return read_trajectories(path)

    def _roll_out(self, spec: StudentSpec, problems: Sequence[Problem], path: Path) -> None:
        started = time.perf_counter()
        teacher = load_model(spec.teacher, device=self.device, dtype=self.suite.dtype)
        params = rollout_params(self.suite, spec.seed)
        roll_out_to_file(teacher, problems, params, path, batch_size=self.batch_size)
        _write_seconds(path, started)

    def _train(self, spec: StudentSpec, folder: Path) -> None:
        records = self._records(spec)
        started = time.perf_counter()
        self._loaded = None  # memory
        teacher = load_model(spec.teacher, device=self.device, dtype="float32")
        checkpoints = self.output / "checkpoints" / folder.name
        args = T3DConfig(
            output_dir=str(checkpoints),
            save_steps=50,
            save_total_limit=1,
            use_cpu=teacher.model.device.type == "cpu",
            dataloader_pin_memory=False,
            **training_fields(self.suite, self._budget, spec),
        )
        distil(teacher, records, args, folder, export_dtype=DTYPES[self.suite.dtype])
        _write_seconds(folder, started)
        discard(checkpoints)


def _row(result: EvalResult, setting: str) -> dict[str, Any]:
    cost = {name: round(value, 6) for name, value in result.cost.items()}
    return {
        "setting": setting,
        "task": result.task,
        "num_correct": result.num_correct,
        "n": result.num_samples,
        "num_prompts": result.num_prompts,
        "distinct_answers_per_prompt": result.distinct_answers_per_prompt,
        "latency": round(result.cost["seconds"] / result.num_samples, 6),
        "finish_reasons": dict(Counter(sample.finish_reason for sample in result.samples)),
        **cost,
    }


def _seconds_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.seconds.json")


def _write_seconds(path: Path, started: float) -> None:
    write_text(_seconds_file(path), json.dumps({"seconds": round(time.perf_counter() - started, 1)}) + "\n")


def _read_seconds(path: Path) -> float:
    file = _seconds_file(path)
    return json.loads(file.read_text(encoding="utf-8"))["seconds"] if file.is_file() else 0.0
