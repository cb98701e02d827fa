"""The main job end to end: roll out the bundled teacher, distil a student, compare both."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

from t3d.atomic import write_text
from t3d.decoding.params import DecodeParams
from t3d.errors import InputError, require_positive
from t3d.evaluation.evaluate import EvalResult, evaluate
from t3d.evaluation.metrics import mean_interval, wilson_interval
from t3d.mini.tasks import TASKS
from t3d.models.loading import LoadedModel, load_model
from t3d.report.console import accuracy_cell
from t3d.report.plots import CurvePoint, plot_accuracy_per_forward
from t3d.rollout import roll_out_to_file
from t3d.training.config import T3DConfig
from t3d.training.presets import preset_fields
from t3d.training.run import distil
from t3d.trajectory import Trajectory
from t3d.versions import versions

MAX_NEW_TOKENS = 56


def _static(block_size: int, tokens_per_step: int) -> DecodeParams:
    return DecodeParams(
        block_size=block_size, steps_per_block=block_size // tokens_per_step, max_new_tokens=MAX_NEW_TOKENS
    )


SETTINGS = {
    f"B{size}-T{count}": _static(size, count) for size in (4, 8) for count in (1, 2, 4, 8) if count <= size
}
SETTINGS["B4-dynamic"] = DecodeParams(remasking="low_confidence_dynamic", max_new_tokens=MAX_NEW_TOKENS)
"""Decoding settings by name: block size and tokens per step; dynamic commits above confidence 0.9."""


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Settings of the demo."""

    output: str
    """Folder for summary, plot, student and trajectories."""
    seed: int = 0
    method: Literal["t3d", "naive_td"] = "t3d"
    num_prompts: int = 2048
    """Training prompts that the teacher rolls out, over all tasks."""
    num_optimizer_steps: int = 200
    train_batch_size: int = 64
    learning_rate: float = 3e-4
    limit: int = 512
    """Held-out prompts per task."""
    batch_size: int = 256
    """Requests decoded together."""
    device: str = "auto"
    dtype: str = "float32"
    show_progress: bool = True

    def __post_init__(self) -> None:
        require_positive(
            self, "num_prompts", "num_optimizer_steps", "train_batch_size", "limit", "batch_size"
        )


def run_demo(config: DemoConfig) -> dict[str, Any]:
    """Run the demo and write its files; returns the summary (percent, see ``summarise``)."""
    output, seconds = Path(config.output), {}
    if config.device not in ("auto", "cpu", "cuda", "cuda:0"):
        raise InputError(
            "device", config.device, "training uses the first visible GPU", "use auto, cpu or cuda"
        )
    teacher = load_model("mini", device=config.device, dtype=config.dtype)

    def timed(name: str, work: Any) -> Any:
        started = time.perf_counter()
        result = work()
        seconds[name] = time.perf_counter() - started
        return result

    trajectories = timed("rollout", lambda: _roll_out(teacher, config, output / "trajectories.parquet"))
    results = {"teacher": timed("evaluate_teacher", lambda: _evaluate(teacher, "teacher", config))}
    timed("train", lambda: _distil(teacher, trajectories, config, output))
    student = load_model(output / "student", device=config.device, dtype=config.dtype)
    results["student"] = timed("evaluate_student", lambda: _evaluate(student, "student", config))
    seconds["total"] = sum(seconds.values())
    summary = {
        "seed": config.seed,
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "models": {name: summarise(by_setting) for name, by_setting in results.items()},
        "method": config.method,
        "versions": versions(),
    }
    write_text(output / "summary.json", json.dumps(summary, indent=2) + "\n")
    plot_summary(summary, output / "plot.png")
    return summary


def _roll_out(teacher: LoadedModel, config: DemoConfig, path: Path) -> list[Trajectory]:
    per_task = -(-config.num_prompts // len(TASKS))
    problems = [p for task in TASKS.values() for p in task.problems("train", per_task, config.seed)]
    params = DecodeParams(max_new_tokens=MAX_NEW_TOKENS, seed=config.seed)
    return roll_out_to_file(teacher, problems, params, path, batch_size=config.batch_size)


def _distil(
    teacher: LoadedModel, trajectories: Sequence[Trajectory], config: DemoConfig, output: Path
) -> Path:
    args = T3DConfig(
        output_dir=str(output / "checkpoints"),
        max_steps=config.num_optimizer_steps,
        per_device_train_batch_size=config.train_batch_size,
        learning_rate=config.learning_rate,
        save_strategy="no",
        seed=config.seed,
        use_cpu=teacher.model.device.type == "cpu",
        disable_tqdm=not config.show_progress,
        dataloader_pin_memory=False,
        **preset_fields(config.method),
    )
    return distil(teacher, trajectories, args, output / "student")


def _evaluate(loaded: LoadedModel, name: str, config: DemoConfig) -> dict[str, list[EvalResult]]:
    """Results by setting, one per task."""
    problems = {task: TASKS[task].problems("test", config.limit, config.seed) for task in TASKS}
    return {
        setting: [
            evaluate(
                loaded,
                TASKS[task],
                problems[task],
                params,
                batch_size=config.batch_size,
                label=f"{name} {setting}",
            )
            for task in TASKS
        ]
        for setting, params in SETTINGS.items()
    }


def summarise(by_setting: dict[str, list[EvalResult]]) -> dict[str, Any]:
    """Per setting: accuracy and 95 % interval by task and their mean (percent), TokPS, TPF, n."""
    summary = {}
    for setting, results in by_setting.items():
        accuracies, counts = [r.accuracy for r in results], [r.num_samples for r in results]
        mean = {"mean": 100 * sum(accuracies) / len(accuracies)}
        ci95 = {"mean": [100 * bound for bound in mean_interval(accuracies, counts)]}
        summary[setting] = {
            "accuracy": mean | {r.task: 100 * r.accuracy for r in results},
            "ci95": ci95
            | {r.task: [100 * b for b in wilson_interval(r.num_correct, r.num_samples)] for r in results},
            "tokens_per_step": sum(r.cost["tokens_per_step"] for r in results) / len(results),
            "tokens_per_forward": sum(r.cost["tokens_per_forward"] for r in results) / len(results),
            "n": sum(counts),
        }
    return summary


def summary_table(summary: dict[str, Any]) -> Table:
    """Teacher and student side by side, one row per setting."""
    table = Table(title=f"{summary['method']}, seed {summary['seed']}: accuracy %, 95 % interval")
    for name in ("setting", "TPF", "teacher", "student", "gain"):
        table.add_column(name, justify="left" if name == "setting" else "right", no_wrap=True)
    teacher, student = summary["models"]["teacher"], summary["models"]["student"]
    for setting, before in teacher.items():
        after = student[setting]
        table.add_row(
            setting,
            f"{after['tokens_per_forward']:.2f}",
            accuracy_cell(before["accuracy"]["mean"], before["ci95"]["mean"]),
            accuracy_cell(after["accuracy"]["mean"], after["ci95"]["mean"]),
            f"{after['accuracy']['mean'] - before['accuracy']['mean']:+.1f}",
        )
    return table


def plot_summary(summary: dict[str, Any], path: Path) -> None:
    """Accuracy against tokens per forward, teacher and student."""
    curves = {
        model: [
            CurvePoint(
                setting=setting,
                tokens_per_forward=cell["tokens_per_forward"],
                accuracy=cell["accuracy"]["mean"],
                low=cell["ci95"]["mean"][0],
                high=cell["ci95"]["mean"][1],
            )
            for setting, cell in settings.items()
        ]
        for model, settings in summary["models"].items()
    }
    plot_accuracy_per_forward(curves, path, f"Few-step decoding before and after {summary['method']}")
