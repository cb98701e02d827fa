"""The main job end to end: roll out the bundled teacher, distil a student, compare both.

In a further round the student itself rolls out, at full steps, and is trained on what it wrote.

Every stage leaves its result in ``OUTPUT/stages`` as soon as it is finished, so that a demo that was
cut goes on where it was, and a finished one only reports again.
"""

import dataclasses
import functools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from t3d.decoding.params import DecodeParams
from t3d.decoding.rollout import roll_out_to_file
from t3d.errors import (
    InputError,
    require_above_zero,
    require_at_least_zero,
    require_below_one,
    require_positive,
    require_seed,
)
from t3d.evaluation.evaluate import evaluate
from t3d.evaluation.intervals import mean_interval, wilson_interval
from t3d.models.loading import LoadedModel, load_model
from t3d.models.placement import require_training_device
from t3d.problems.problem import Problem
from t3d.report.demo_table import plot_summary
from t3d.tasks.mini.suite import TASKS
from t3d.training.config import T3DConfig
from t3d.training.presets import preset_fields
from t3d.training.run import distil
from t3d.trajectory import read_trajectories
from t3d.work.claim import claim
from t3d.work.files import discard, write_text
from t3d.work.versions import versions

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
    num_rounds: int = 2
    """Rounds of rollout and training: the teacher rolls out in the first, the student of the round
    before in the others, on prompts of their own. 1 is the paper's method."""
    num_prompts: int = 3072
    """Training prompts rolled out in a round, over all tasks."""
    rollout_temperature: float = 0.0
    """Greedy: among equally good responses a draw has nothing that a student could learn (docs/LOG.md)."""
    num_optimizer_steps: int = 150
    """Optimizer steps in a round."""
    train_batch_size: int = 64
    learning_rate: float = 5e-4
    random_token_prob: float = 0.05
    """Of method t3d; half of the preset's, which costs full-step accuracy (docs/LOG.md)."""
    limit: int = 512
    """Held-out prompts per task."""
    batch_size: int = 256
    """Requests decoded together."""
    device: str = "auto"
    dtype: str = "float32"
    show_progress: bool = True

    def __post_init__(self) -> None:
        require_positive(
            self,
            "num_rounds",
            "num_prompts",
            "num_optimizer_steps",
            "train_batch_size",
            "limit",
            "batch_size",
        )
        require_seed(self)
        require_above_zero(self, "learning_rate")
        require_at_least_zero(self, "rollout_temperature")
        require_below_one(self, "random_token_prob")


@dataclass(frozen=True, kw_only=True)
class TaskScore:
    """One model in one setting on one task."""

    task: str
    num_correct: int
    num_samples: int
    tokens_per_step: float
    tokens_per_forward: float


@dataclass(frozen=True, kw_only=True)
class Stages:
    """Results of finished stages, JSON-ready, and the seconds that each took, as files of a folder."""

    folder: Path
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    """Sums by kind of stage; a stage that was cut counts from its last start."""

    def run(self, kind: str, name: str, work: Callable[[], Any]) -> Any:
        """The result of a stage: of its file, or of ``work``."""
        path = self.folder / f"stage-{name}.json"
        if not path.is_file():
            started = time.perf_counter()
            result = work()
            record = {"result": result, "seconds": time.perf_counter() - started}
            write_text(path, json.dumps(record, indent=1))
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            fix = "delete it; the same command then runs this stage again"
            raise InputError("output", str(path), f"damaged ({error})", fix) from error
        self.seconds[kind] = self.seconds.get(kind, 0.0) + record["seconds"]
        return record["result"]


def run_demo(config: DemoConfig) -> dict[str, Any]:
    """Run the demo and write its files; returns the summary (percent, see ``summarise``).

    The same call continues a demo that was cut. Raises InputError if another run is using the output
    or left stages of other settings there.
    """
    output = Path(config.output)
    require_training_device(config.device)
    _check_counts(config)
    teacher = load_model("mini", device=config.device, dtype=config.dtype)
    with claim(output / "stages", _plan(config, teacher), "stage-*.json") as folder:
        stages = Stages(folder=folder)
        results = {"teacher": _evaluate(lambda: teacher, "teacher", config, stages)}
        for round_index in range(config.num_rounds):
            number = round_index + 1
            stages.run("rollout", f"rollout-{number}", lambda r=round_index: _roll_out(config, output, r))
            stages.run("train", f"train-{number}", lambda r=round_index: _distil(config, output, r))
        student = functools.cache(lambda: _student(config, output, config.num_rounds))
        results["student"] = _evaluate(student, "student", config, stages)
        seconds = stages.seconds | {"total": sum(stages.seconds.values())}
        summary = {
            "seed": config.seed,
            "seconds": {name: round(value, 1) for name, value in seconds.items()},
            "models": {name: summarise(by_setting) for name, by_setting in results.items()},
            "method": config.method,
            "versions": versions(),
        }
        write_text(output / "summary.json", json.dumps(summary, indent=2) + "\n")
        plot_summary(summary, output / "plot.png")
        for number in range(1, config.num_rounds + 1):
            discard(output / f"checkpoints-{number}")
    return summary


def _plan(config: DemoConfig, teacher: LoadedModel) -> dict[str, Any]:
    fields = dataclasses.asdict(config)
    for name in ("output", "device", "show_progress"):
        del fields[name]
    settings = {name: dataclasses.asdict(params) for name, params in SETTINGS.items()}
    return {**fields, "tasks": list(TASKS), "settings": settings, "teacher": teacher.identity()}


def _check_counts(config: DemoConfig) -> None:
    """Raise InputError if a task has too few problems, before any work is done."""
    for field, value, draw in (
        ("num_prompts", config.num_prompts, _training_problems),
        ("limit", config.limit, _test_problems),
    ):
        try:
            for task in TASKS:
                draw(task, config)
        except InputError as error:
            raise InputError(field, value, error.problem, f"lower {field}: {error.fix} per task") from error


def _training_problems(task: str, config: DemoConfig) -> list[Problem]:
    """A task's problems of all rounds; those of one round lie side by side."""
    num_problems = -(-config.num_prompts // len(TASKS)) * config.num_rounds
    return TASKS[task].problems("train", num_problems, config.seed)


def _test_problems(task: str, config: DemoConfig) -> list[Problem]:
    return TASKS[task].problems("test", config.limit, config.seed)


def _student(config: DemoConfig, output: Path, num_rounds: int) -> LoadedModel:
    """The student of this many rounds; of none, the teacher."""
    source = _student_folder(config, output, num_rounds) if num_rounds else "mini"
    return load_model(source, device=config.device, dtype=config.dtype)


def _student_folder(config: DemoConfig, output: Path, num_rounds: int) -> Path:
    return output / ("student" if num_rounds == config.num_rounds else f"student-{num_rounds}")


def _roll_out(config: DemoConfig, output: Path, round_index: int) -> int:
    size = -(-config.num_prompts // len(TASKS))
    part = slice(round_index * size, (round_index + 1) * size)
    problems = [problem for task in TASKS for problem in _training_problems(task, config)[part]]
    params = DecodeParams(
        max_new_tokens=MAX_NEW_TOKENS, seed=config.seed, temperature=config.rollout_temperature
    )
    path = output / f"trajectories-{round_index + 1}.parquet"
    loaded = _student(config, output, round_index)
    return len(roll_out_to_file(loaded, problems, params, path, batch_size=config.batch_size))


def _distil(config: DemoConfig, output: Path, round_index: int) -> str:
    loaded = _student(config, output, round_index)
    # A preset that says something else, as naive_td's none at all, wins.
    fields: dict[str, Any] = {"random_token_prob": config.random_token_prob}
    fields |= preset_fields(config.method)
    args = T3DConfig(
        output_dir=str(output / f"checkpoints-{round_index + 1}"),
        max_steps=config.num_optimizer_steps,
        per_device_train_batch_size=config.train_batch_size,
        learning_rate=config.learning_rate,
        save_steps=50,
        save_total_limit=2,
        seed=config.seed,
        use_cpu=loaded.model.device.type == "cpu",
        disable_tqdm=not config.show_progress,
        dataloader_pin_memory=False,
        **fields,
    )
    trajectories = read_trajectories(output / f"trajectories-{round_index + 1}.parquet")
    return distil(loaded, trajectories, args, _student_folder(config, output, round_index + 1)).name


def _evaluate(
    load: Callable[[], LoadedModel], name: str, config: DemoConfig, stages: Stages
) -> dict[str, list[TaskScore]]:
    """Scores by setting, one per task."""

    def score(task: str, setting: str) -> dict[str, Any]:
        problems = _test_problems(task, config)
        label = f"{name} {setting} {task}"
        result = evaluate(
            load(), TASKS[task], problems, SETTINGS[setting], batch_size=config.batch_size, label=label
        )
        return dataclasses.asdict(
            TaskScore(
                task=task,
                num_correct=result.num_correct,
                num_samples=result.num_samples,
                tokens_per_step=result.cost["tokens_per_step"],
                tokens_per_forward=result.cost["tokens_per_forward"],
            )
        )

    def stage(task: str, setting: str) -> TaskScore:
        work = functools.partial(score, task, setting)
        return TaskScore(**stages.run(f"evaluate_{name}", f"{name}-{setting}-{task}", work))

    return {setting: [stage(task, setting) for task in TASKS] for setting in SETTINGS}


def summarise(by_setting: Mapping[str, Sequence[TaskScore]]) -> dict[str, Any]:
    """Per setting: accuracy and 95 % interval by task and their mean (percent), TokPS, TPF, n."""
    summary = {}
    for setting, scores in by_setting.items():
        accuracies, counts = [s.num_correct / s.num_samples for s in scores], [s.num_samples for s in scores]
        mean = {"mean": 100 * sum(accuracies) / len(accuracies)}
        ci95 = {"mean": [100 * bound for bound in mean_interval(accuracies, counts)]}
        summary[setting] = {
            "accuracy": mean | {s.task: 100 * a for s, a in zip(scores, accuracies, strict=True)},
            "ci95": ci95
            | {s.task: [100 * b for b in wilson_interval(s.num_correct, s.num_samples)] for s in scores},
            "tokens_per_step": sum(s.tokens_per_step for s in scores) / len(scores),
            "tokens_per_forward": sum(s.tokens_per_forward for s in scores) / len(scores),
            "tokens_per_forward_by_task": {s.task: s.tokens_per_forward for s in scores},
            "n": sum(counts),
        }
    return summary
