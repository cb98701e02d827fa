"""The main job end to end: roll out the bundled teacher, distil a student, compare both.

In a further round the student itself rolls out, at full steps, and is trained on what it wrote. A recipe of
the stages of :mod:`t3d.reproduce.pipeline`: a demo that was cut goes on where it was, and a finished one
only reports again.
"""

import dataclasses
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from t3d.decoding.params import DecodeParams
from t3d.decoding.settings import static_setting
from t3d.errors import InputError
from t3d.evaluation.over_tasks import over_tasks
from t3d.models.drafter import with_drafter
from t3d.models.loading import load_model
from t3d.models.placement import fast_dtype, resolve_device
from t3d.problems.problem import Problem
from t3d.report.demo_table import plot_summary
from t3d.reproduce.demo_config import DemoConfig
from t3d.reproduce.demo_stages import MACHINE, demo_stages, evaluation_stage
from t3d.reproduce.pipeline import Pipeline
from t3d.reproduce.rounds import Round, run_rounds
from t3d.reproduce.settings import DRAFTED, LEFT_TO_RIGHT, MAX_NEW_TOKENS, SETTINGS
from t3d.tasks.mini.suite import TASKS
from t3d.tasks.task import PosedTask
from t3d.training.config import T3DConfig
from t3d.training.presets import preset_fields
from t3d.work.files import check_output_file, check_output_folder, read_json, write_text
from t3d.work.kept import PLAN_FILE, Product, check_left, claim
from t3d.work.own import is_picture, json_with
from t3d.work.progress import Stages
from t3d.work.versions import versions

TEACHER = "mini"
DRAFTED_TEACHER = "teacher + drafter"
_MAY_GROW = ("drafters",)
_OWN_NAMES = ("summary.json", "plot.png", "report.html", "config.yaml", "stages", "evaluations", "student*")
_OWN_NAMES += ("trajectories*", "checkpoints*")
"""Of what a demo writes, as patterns."""


def run_demo(config: DemoConfig) -> dict[str, Any]:
    """Run the demo and write its files; returns the summary (percent, see :func:`over_tasks`).

    The same call continues a demo that was cut, and may add a drafter to one that is finished. Raises
    InputError if another run is using the output or left stages of other settings there, and for a drafter
    that is none or of another base.
    """
    config = dataclasses.replace(config, dtype=_dtype(config))
    _check_counts(config)
    demo, plan = _Demo(config), _plan(config)
    check_left(demo.output / "stages", plan, _MAY_GROW)
    demo.check()
    with claim(demo.output / "stages", plan, "*.json", may_grow=_MAY_GROW):
        entries = {"teacher": demo.evaluate("teacher", TEACHER, SETTINGS)}
        left_to_right = demo.evaluate_left_to_right()
        student = run_rounds(demo.pipeline, TEACHER, demo.rounds(), running=demo.stages.running)
        entries["student"] = demo.evaluate("student", student, SETTINGS)
        summary = {
            "seed": config.seed,
            "seconds": demo.seconds(),
            "models": {name: over_tasks(found) for name, found in entries.items()},
            "self_speculative": {name: over_tasks(found) for name, found in left_to_right.items()},
            "method": config.method,
            "dtype": config.dtype,
            "versions": versions(),
        }
        write_text(demo.output / "summary.json", json.dumps(summary, indent=2) + "\n")
        plot_summary(summary, demo.output / "plot.png")
    return summary


@dataclass
class _Demo:
    """The stages of a demo, in its folder."""

    config: DemoConfig
    products: dict[str, dict[str, Product]] = field(default_factory=dict)
    """By kind of stage, then name."""

    def __post_init__(self) -> None:
        config = self.config
        self.stages = Stages(demo_stages(config), typical_of=MACHINE, is_silent=not config.show_progress)
        self.output = Path(config.output)
        dtype = str(config.dtype)
        how: dict[str, Any] = {"device": config.device, "batch_size": config.batch_size}
        self.pipeline = Pipeline(dtype=dtype, **how)
        # Drafts are checked in other products than one by one, which bfloat16 rounds otherwise.
        self.exact = Pipeline(dtype="float32", **how) if dtype == "bfloat16" else self.pipeline

    def seconds(self) -> dict[str, float]:
        """Sums by kind of stage, and of all; a stage that was cut counts from its last start."""
        sums = {kind: sum(one.seconds for one in made.values()) for kind, made in self.products.items()}
        return {kind: round(value, 1) for kind, value in (sums | {"total": sum(sums.values())}).items()}

    def evaluate_left_to_right(self) -> dict[str, list[dict[str, Any]]]:
        """Entries of the teacher by itself and, if there is one, with the drafter, by model."""
        how: dict[str, Any] = {"pipeline": self.exact}
        entries = {"teacher": self.evaluate("teacher-left-to-right", TEACHER, LEFT_TO_RIGHT, **how)}
        if self.config.drafter is not None:
            drafted, how["drafter"] = {DRAFTED: LEFT_TO_RIGHT[DRAFTED]}, self.config.drafter
            entries[DRAFTED_TEACHER] = self.evaluate("teacher-drafter", TEACHER, drafted, **how)
        return entries

    def evaluate(
        self,
        name: str,
        source: str | Path,
        settings: Mapping[str, DecodeParams],
        *,
        drafter: str | None = None,
        pipeline: Pipeline | None = None,
    ) -> list[dict[str, Any]]:
        """A model's entries for every task and these settings; ``pipeline``: by default the demo's."""
        product = self._evaluation(name)
        tasks = [
            PosedTask(task=task, problems=_test_problems(name, self.config)) for name, task in TASKS.items()
        ]
        with self.stages.running(evaluation_stage(name), product):
            how: dict[str, Any] = {"drafter": drafter, "label": name}
            return (pipeline or self.pipeline).evaluate(product, source, tasks, settings, **how)

    def rounds(self) -> list[Round]:
        """Each on prompts of its own, at full steps unless the method says otherwise."""
        config = self.config
        params = DecodeParams(
            max_new_tokens=MAX_NEW_TOKENS, seed=config.seed, temperature=config.rollout_temperature
        )
        shares = [_training_problems(task, config) for task in TASKS]
        found: list[Round] = []
        for number in range(1, config.count_rounds + 1):
            rollouts, training = self._round(number)
            of_round = config.rollout_settings[number - 1 : number]
            decode = static_setting("method", *of_round, params) if of_round else params
            found.append(
                Round(
                    number=number,
                    rollouts=rollouts,
                    training=training,
                    problems=[problem for share in shares for problem in share[number - 1]],
                    params=decode,
                    config=_training_config(config, training.unfinished[0]),
                )
            )
        return found

    def check(self) -> None:
        """Raise InputError, before the work, for files of somebody else where ours belong."""
        check_output_folder(self.output, _OWN_NAMES)
        summary = self.output / "summary.json"
        is_summary = json_with("seed", "seconds", "models", "versions")
        check_output_file(summary, is_own=is_summary)
        # A plot of an earlier version says nothing of itself.
        check_output_file(
            self.output / "plot.png",
            is_own=lambda path: is_picture(path) or (summary.is_file() and is_summary(summary)),
        )
        of_teacher = ["teacher", "teacher-left-to-right"]
        if self.config.drafter is not None:
            of_teacher.append("teacher-drafter")
        rounds = map(self._round, range(1, self.config.count_rounds + 1))
        for product in (*map(self._evaluation, of_teacher), *chain(*rounds), self._evaluation("student")):
            product.check_is_own()

    def _evaluation(self, name: str) -> Product:
        kind = f"evaluate_{name.replace('-', '_')}"
        return self._stage(kind, name, self.output / "evaluations" / name)

    def _round(self, number: int) -> tuple[Product, Product]:
        """Rollouts and student."""
        student = "student" if number == self.config.count_rounds else f"student-{number}"
        checkpoints = self.output / f"checkpoints-{number}"
        rollouts = self.output / f"trajectories-{number}.parquet"
        return (
            self._stage("rollout", f"rollout-{number}", rollouts),
            self._stage("train", f"train-{number}", self.output / student, checkpoints),
        )

    def _stage(self, kind: str, name: str, path: Path, *unfinished: Path) -> Product:
        record = self.output / "stages" / f"{name}.json"
        product = Product(path=path, record=record, plan={}, unfinished=unfinished)  # the claim has the plan
        self.products.setdefault(kind, {})[name] = product
        return product


def _dtype(config: DemoConfig) -> str:
    """The name of the given one, else of the one that the demo was begun in, else of the fast one."""
    if config.dtype is not None:
        return config.dtype.removeprefix("torch.")
    match read_json(Path(config.output) / "stages" / PLAN_FILE):
        case {"plan": {"dtype": str() as begun}}:
            return begun
    return fast_dtype(resolve_device(config.device))


def _plan(config: DemoConfig) -> dict[str, Any]:
    """Raises InputError for a drafter that is none, or of another base than the teacher."""
    loaded = load_model(TEACHER, device=config.device, dtype=str(config.dtype))
    fields = dataclasses.asdict(config)
    for name in ("output", "drafter", "device", "show_progress"):
        del fields[name]
    settings = {name: params.record() for name, params in (SETTINGS | LEFT_TO_RIGHT).items()}
    plan = {
        **fields,
        "tasks": list(TASKS),
        "settings": settings,
        "teacher": loaded.identity(),
        "drafters": {},
    }
    if config.drafter is not None:
        plan["drafters"][DRAFTED_TEACHER] = with_drafter(loaded, config.drafter).drafter_hash
    return plan


def _check_counts(config: DemoConfig) -> None:
    """Raise InputError if a task has too few problems, before any work is done."""
    for name, draw in (("num_prompts", _training_problems), ("limit", _test_problems)):
        try:
            for task in TASKS:
                draw(task, config)
        except InputError as error:
            fix = f"lower {name}: {error.fix} per task"
            raise InputError(name, getattr(config, name), error.problem, fix) from error


def _training_problems(task: str, config: DemoConfig) -> list[list[Problem]]:
    """A task's problems by round."""
    share = -(-config.num_prompts // len(TASKS))
    problems = TASKS[task].problems("train", share * config.count_rounds, config.seed)
    return [problems[start : start + share] for start in range(0, len(problems), share)]


def _test_problems(task: str, config: DemoConfig) -> list[Problem]:
    return TASKS[task].problems("test", config.limit, config.seed)


def _training_config(config: DemoConfig, checkpoints: Path) -> T3DConfig:
    # A preset that says something else, as naive_td's none at all, wins.
    fields: dict[str, Any] = {"random_token_prob": config.random_token_prob} | preset_fields(config.method)
    return T3DConfig(
        output_dir=str(checkpoints),
        max_steps=config.num_optimizer_steps,
        per_device_train_batch_size=config.train_batch_size,
        learning_rate=config.learning_rate,
        warmup_steps=min(T3DConfig.warmup_steps, config.num_optimizer_steps // 5),
        save_steps=50,
        logging_steps=10,
        save_total_limit=2,
        seed=config.seed,
        bf16=config.dtype == "bfloat16",
        use_cpu=resolve_device(config.device).type == "cpu",
        disable_tqdm=not (config.show_progress and sys.stderr.isatty()),
        dataloader_pin_memory=False,
        **fields,
    )
