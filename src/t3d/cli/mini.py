"""The commands of the mini suite: make a teacher, and compare models with the oracle."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from t3d.cli.config_file import check_config, resolved_config, write_config
from t3d.decoding.params import BATCH_SIZE
from t3d.errors import InputError, naming, require_once, require_positive
from t3d.evaluation.intervals import wilson_interval
from t3d.mini.pretrain_config import PretrainConfig
from t3d.model_choice import check_model
from t3d.reproduce.settings import SETTINGS
from t3d.tasks.mini.mini_task import MiniTask
from t3d.tasks.mini.suite import TASKS, mini_task
from t3d.tasks.task import PosedTask
from t3d.work.files import check_output_file, write_text
from t3d.work.own import json_with
from t3d.work.progress import Progress
from t3d.work.versions import versions

if TYPE_CHECKING:
    from t3d.models.loading import LoadedModel


@dataclass(frozen=True, kw_only=True)
class MiniPretrain(PretrainConfig):
    """Train a joint teacher of the suite's tasks (some 40 minutes on a core with bf16 instructions)."""

    def run(self) -> None:
        """Run the command."""
        from t3d.mini.pretrain import pretrain

        check_config(self, Path(self.output) / "config.yaml")
        folder = pretrain(self)
        write_config(self, Path(self.output) / "config.yaml")
        print(f"teacher in {folder}")


@dataclass(frozen=True, kw_only=True)
class MiniOracle:
    """Print the exact posterior's accuracy, decoded by the same rule, beside that of models."""

    models: tuple[str, ...] = ("mini",)
    """Models to compare with it: 'mini', 'mini-small', or folders such as runs/demo/student."""
    tasks: tuple[str, ...] = tuple(TASKS)
    """Tasks of the suite."""
    settings: tuple[str, ...] = tuple(SETTINGS)
    """Decoding settings by name: block size and tokens per denoising step."""
    limit: int = 512
    """Held-out problems per task."""
    problem_seed: int = 0
    """Seed that draws the problems."""
    batch_size: int = BATCH_SIZE
    """Requests that a model decodes together."""
    output: str | None = None
    """JSON file to write the table to."""

    def run(self) -> None:
        """Run the command."""
        self._check()
        from t3d.models.loading import load_model

        with naming(model="models"):
            loaded = {name: load_model(name) for name in self.models}
        rows = [row for name in self.tasks for row in self._compare(mini_task(name), loaded)]
        if self.output is not None:
            report = {"rows": rows, "config": resolved_config(self), "versions": versions()}
            write_text(self.output, json.dumps(report, indent=1) + "\n")
        Console().print(oracle_table(rows, self.models))

    def _check(self) -> None:
        """Raise InputError for what could only fail, or mislead, after minutes of work."""
        require_positive(self, "limit", "batch_size")
        known: dict[str, Collection[str] | None] = {"models": None, "tasks": TASKS, "settings": SETTINGS}
        for field, choices in known.items():
            values = getattr(self, field)
            require_once(field, values)
            for value in values:
                if choices is not None and value not in choices:
                    raise InputError(field, value, "not known", f"use some of {', '.join(choices)}")
            if choices is not None and not values:
                raise InputError(field, values, "empty", f"use some of {', '.join(choices)}")
        for model in self.models:
            check_model(model, "models")
        if "oracle" in self.models:
            fix = "leave it out, or write ./oracle"
            raise InputError("models", "oracle", "the oracle is always shown", fix)
        if self.output is not None:
            check_output_file(self.output, is_own=json_with("rows", "config", "versions"))

    def _compare(self, task: MiniTask, loaded: "dict[str, LoadedModel]") -> list[dict[str, Any]]:
        """One row per setting: right answers of ``n`` by the oracle and by each model."""
        from t3d.evaluation.evaluate import EvalConfig, evaluate
        from t3d.mini.oracle import oracle_results
        from t3d.tasks.mini.tokenizer import mini_tokenizer

        problems = task.problems("test", self.limit, self.problem_seed)
        settings = {name: SETTINGS[name] for name in self.settings}
        with Progress(f"oracle {task.name}", len(problems)) as progress:
            right = oracle_results(task, problems, settings, mini_tokenizer(), on_finish=progress.advance)
            found = {"oracle": right}
        posed, config = PosedTask(task=task, problems=problems), EvalConfig(batch_size=self.batch_size)
        for name, model in loaded.items():
            entries = evaluate(model, [posed], settings, config=config, label=f"{name} {task.name}")
            found[name] = {entry["setting"]: entry["num_correct"] for entry in entries}
        return [
            {
                "task": task.name,
                "setting": setting,
                "n": len(problems),
                "num_correct": {name: counts[setting] for name, counts in found.items()},
            }
            for setting in settings
        ]


def oracle_table(rows: Sequence[dict[str, Any]], models: Sequence[str]) -> Table:
    """Oracle and models side by side, and how far the first model is above the oracle."""
    from t3d.report.console import accuracy_text

    table = Table(title="accuracy %, 95 % interval")
    names = ["oracle", *models]
    for name in ("task", "setting", *names, f"{models[0]} - oracle" if models else ""):
        table.add_column(name, justify="left" if name in ("task", "setting") else "right")
    for row in rows:
        if row["setting"] == rows[0]["setting"]:
            table.add_section()
        accuracy = {name: 100 * row["num_correct"][name] / row["n"] for name in names}
        ends = {name: wilson_interval(row["num_correct"][name], row["n"]) for name in names}
        texts = [accuracy_text(accuracy[name], [100 * end for end in ends[name]]) for name in names]
        gap = f"{accuracy[models[0]] - accuracy['oracle']:+.1f}" if models else ""
        table.add_row(row["task"], row["setting"], *texts, gap)
    return table
