"""The command ``t3d distil``: rounds of rollout and training, each student the model of the next round."""

import dataclasses
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t3d.cli.config_file import check_config, write_config
from t3d.cli.decode_flags import DecodeFlags, Flat
from t3d.cli.options import ModelChoice, ProblemChoice
from t3d.cli.rollout import check_scores_from
from t3d.cli.train import Train
from t3d.decoding.params import BATCH_SIZE, DecodeParams
from t3d.decoding.rollout_filter import RolloutFilter, is_graded
from t3d.decoding.settings import static_setting
from t3d.errors import InputError, require_at_least_zero, require_positive
from t3d.tasks.task import PosedTask
from t3d.training.choices import RoundStart
from t3d.training.preset_rounds import ROUNDS, preset_rollouts
from t3d.training.presets import parse_overrides, preset_fields
from t3d.work.files import check_output_folder
from t3d.work.kept import Product, claim
from t3d.work.plan import fingerprint

if TYPE_CHECKING:
    from t3d.decoding.sample_choice import SampleChoice
    from t3d.reproduce.rounds import Round
    from t3d.training.config import T3DConfig

_OF_NUMBERS = ("preset", "num_optimizer_steps", "gradient_accumulation_steps", "learning_rate")
_OF_NUMBERS += ("warmup_steps", "dtype")
"""Flags of t3d train on which the students depend."""
_RENAMED = {"seed": "train_seed", "block_size": "student_block_size"}
_RENAMED |= {"per_device_train_batch_size": "train_batch_size"}
"""Fields of T3DConfig whose flags have other names here than there."""
_OF_ROUNDS = ("override", "train_batch_size", "train_seed", "round_start", "num_old_rounds", "batch_size")
"""Other flags on which they depend."""
_OF_PRESET: dict[str, Any] = {"num_rounds": 2, "num_samples": 1, "rollout_filter": "none"}
"""Flags that a preset may say, and what holds where neither does."""
_OF_SETTINGS = ("block_size", "steps_per_block", "tokens_per_step")
"""Flags that rollout_settings say."""


@dataclass(frozen=True, kw_only=True)
class Distil(ModelChoice, ProblemChoice):
    """Roll out and train in rounds: --model writes the first trajectories, each student those of the next."""

    output: str
    """Folder; OUTPUT/round-N has the trajectories and the student of a round. The same command continues a
    killed run, and one of more rounds and the same num_prompts goes on behind it."""
    num_rounds: int | None = None
    """Of rollout and training, on prompts of their own. Default: 2, or the preset's."""
    num_prompts: int | None = None
    """In a round. Default: all problems, shared evenly."""
    round_start: RoundStart = "student"
    """Whose weights a training begins with: those of the round before, or --model's."""
    num_old_rounds: int = 0
    """Rounds before it whose trajectories a training reads as well."""
    rollout_settings: tuple[str, ...] = ()
    """Block size and tokens per step of the rollouts, one for each round, such as B4-T1 B8-T4, or
    B8-T8-temperature-1. Default: the preset's, else block_size and steps_per_block in all."""
    num_samples: int | None = None
    """Responses drawn for each prompt, as of t3d rollout; in rounds of rollout_settings that are greedy one.
    Default: 1, or the preset's."""
    rollout_filter: RolloutFilter | None = None
    """What is kept of them, as of t3d rollout. Default: none, or the preset's."""
    scores_from: str | None = None
    """Of rollout_filter teacher: the model that it asks in all rounds. Default: --model."""
    batch_size: int = BATCH_SIZE
    """Requests decoded together."""
    preset: str = Train.preset
    """As of t3d train, like the next ones; not drafter, nor one that learns solutions."""
    override: tuple[str, ...] = ()
    student_block_size: int | None = None
    """Default: as the block_size of t3d train."""
    num_optimizer_steps: int = Train.num_optimizer_steps
    """In a round."""
    train_batch_size: int = Train.batch_size
    """Trajectories per optimizer step."""
    gradient_accumulation_steps: int = Train.gradient_accumulation_steps
    learning_rate: float | None = None
    warmup_steps: int = Train.warmup_steps
    """In each round."""
    save_every: int = Train.save_every
    train_seed: int = Train.seed
    """Of the training; --seed is that of the rollouts' sampling noise."""
    decode: Flat = field(default_factory=DecodeFlags)

    def run(self) -> None:
        """Run the command."""
        output = Path(self.output)
        self._check_flags()
        check_output_folder(output, ("round-*", "stages", "config.yaml"))
        check_config(self, output / "config.yaml", self.prompts)
        self.check_model()
        posed = self._posed()
        from t3d.reproduce.pipeline import Pipeline
        from t3d.reproduce.rounds import run_rounds

        decode = self.decode.resolve(self.own_settings())
        rounds = self._rounds(posed, decode.params())
        pipeline = Pipeline(device=self.device, dtype=self.dtype, batch_size=self.batch_size)
        plan = self._plan(rounds, pipeline.load(self.model).identity())
        with claim(output / "stages", plan, "*.json", may_grow=("rounds",)):
            for one in rounds:
                one.rollouts.check_is_own()
                one.training.check_is_own()
            student = run_rounds(
                pipeline,
                self.model,
                rounds,
                running=partial(_said, rounds),
                start=self.round_start,
                num_old_rounds=self.num_old_rounds,
            )
        settings = {name: self._told(name) for name in _OF_PRESET}
        said_by_round = dict.fromkeys(_OF_SETTINGS if self.rollout_settings else ())
        settings["decode"] = dataclasses.replace(decode.used(), **said_by_round)
        write_config(dataclasses.replace(self, **settings), output / "config.yaml")
        print(f"student in {student}")

    @property
    def _num_rounds(self) -> int:
        return self._told("num_rounds")

    def _told(self, name: str) -> Any:
        given = getattr(self, name)
        return ROUNDS.get(self.preset, {}).get(name, _OF_PRESET[name]) if given is None else given

    def _check_flags(self) -> None:
        """Raise InputError for flags that no checkpoint can make right."""
        require_positive(self, "num_rounds", "num_prompts", "num_samples", "batch_size", "student_block_size")
        require_at_least_zero(self, "num_old_rounds")
        require_positive(self, "train_batch_size", "gradient_accumulation_steps")
        if self.train_batch_size % self.gradient_accumulation_steps:
            problem = f"not a multiple of gradient_accumulation_steps={self.gradient_accumulation_steps}"
            raise InputError("train_batch_size", self.train_batch_size, problem, "use a multiple of it")
        if self.rollout_settings and len(self.rollout_settings) != self._num_rounds:
            fix = f"name {self._num_rounds} settings, or leave it out"
            raise InputError("rollout_settings", self.rollout_settings, f"num_rounds={self._num_rounds}", fix)
        for name in _OF_SETTINGS:
            given = getattr(self.decode, name)
            if self.rollout_settings and given is not None:
                fix = "leave one of the two out"
                raise InputError(name, given, "rollout_settings says it of every round", fix)
        check_scores_from(self.scores_from, self._told("rollout_filter"))
        preset_fields(self.preset)
        if self.preset in ("drafter", "sft", "sft_dllm_rl"):
            problem = "makes no student of rollouts" if self.preset == "drafter" else "learns solutions"
            raise InputError("preset", self.preset, f"{problem}, so it has no rounds", "use t3d train")

    def _posed(self) -> PosedTask:
        """The problems of all rounds. Raises InputError if there are too few."""
        wanted = None if self.num_prompts is None else self.num_prompts * self._num_rounds
        if wanted is not None and self.limit is not None:
            fix = "leave it out: num_prompts in each round are taken"
            raise InputError("limit", self.limit, "num_prompts is given too", fix)
        posed = dataclasses.replace(self, limit=wanted or self.limit).resolve()
        count = len(posed.problems)
        if count < (wanted or self._num_rounds):
            problem = (
                f"{self._num_rounds} rounds need {wanted or self._num_rounds} prompts, there are {count}"
            )
            raise InputError("num_rounds", self._num_rounds, problem, "use fewer rounds, or less num_prompts")
        return posed

    def _check_model(self, params: DecodeParams, config: "T3DConfig") -> None:
        """Raise InputError where only the training, after the rollouts, would refuse what the model wrote."""
        if params.predicts == "next":
            fix = "adopt it with t3d convert first, or train a drafter with t3d train"
            raise InputError("model", self.model, "autoregressive, so it has no few-step student", fix)
        student_block_size = config.block_size
        is_one_step = params.steps_per_block == 1 and params.block_size >= student_block_size
        if config.soft_target_weight > 0 and config.soft_target_context == "later_state" and is_one_step:
            problem = "a rollout commits its blocks in one step, so no state has a later one"
            fix = "use rollouts of more steps, or soft_target_context=before"
            raise InputError("soft_target_context", "later_state", problem, fix)
        sizes = params.block_size, student_block_size
        if max(sizes) % min(sizes):
            problem = f"does not nest with the rollouts' blocks of {params.block_size}"
            fix = f"use one that divides {params.block_size}, or is a multiple of it"
            raise InputError("student_block_size", student_block_size, problem, fix)

    def _rounds(self, posed: PosedTask, params: DecodeParams) -> "list[Round]":
        from t3d.reproduce.rounds import Round

        choice, found = self._choice(posed), []
        settings = self.rollout_settings or preset_rollouts(self.preset, self._num_rounds)
        size = self.num_prompts or len(posed.problems) // self._num_rounds
        for number in range(1, self._num_rounds + 1):
            of_round = settings[number - 1 : number]
            decode = static_setting("rollout_settings", *of_round, params) if of_round else params
            config = self._train(number).resolved_config()
            self._check_model(decode, config)
            rollouts, training = self._products(number)
            found.append(
                Round(
                    number=number,
                    rollouts=rollouts,
                    training=training,
                    problems=posed.problems[(number - 1) * size : number * size],
                    params=decode,
                    config=config,
                    style=posed.style,
                    kind=posed.kind,
                    choice=choice.of_round(decode),
                    own_temperature=params.temperature
                    if any("-temperature-" in one for one in settings)
                    else None,
                )
            )
        if not any(one.params.samples_differ for one in found):
            choice.check(found[0].params)
        return found

    def _choice(self, posed: PosedTask) -> "SampleChoice":
        from t3d.decoding.sample_choice import SampleChoice
        from t3d.decoding.teacher_scorer import TeacherScorer

        wanted = self._told("rollout_filter")
        how: dict[str, Any] = {"grader": posed.sample_grader()} if is_graded(wanted) else {}
        if wanted == "teacher":
            how["scorer"] = TeacherScorer(self.scores_from or self.model, self.device, self.dtype)
        return SampleChoice(num_samples=self._told("num_samples"), rollout_filter=wanted, **how)

    def _train(self, number: int) -> Train:
        """A round's training as t3d train would do it."""
        folder = Path(self.output) / f"round-{number}"
        return Train(
            trajectories=str(folder / "trajectories.parquet"),
            output=str(folder),
            model=self.model,
            device=self.device,
            block_size=self.student_block_size,
            batch_size=self.train_batch_size,
            seed=self.train_seed,
            save_every=self.save_every,
            **{name: getattr(self, name) for name in _OF_NUMBERS},
            **self._overrides(),
        )

    def _overrides(self) -> dict[str, Any]:
        """The overrides as what t3d train takes, which has flags for some of them."""
        flags, others = list[str](), list[str]()
        for override in self.override:
            name = override.partition("=")[0]
            if name in _RENAMED:
                flag = _RENAMED[name].replace("_", "-")
                raise InputError("override", override, f"--{flag} sets {name}", f"use --{flag}")
            has_flag = hasattr(Train, name) and not hasattr(self, name)
            (flags if has_flag else others).append(override)
        return {"override": tuple(others), **parse_overrides(flags)}

    def _products(self, number: int) -> "tuple[Product, Product]":
        """Trajectories and student of a round."""
        folder, stages = Path(self.output) / f"round-{number}", Path(self.output) / "stages"
        return (
            Product(
                path=folder / "trajectories.parquet",
                record=stages / f"rollout-{number}.json",
                plan={},  # the claim has it
            ),
            Product(
                path=folder / "student",
                record=stages / f"train-{number}.json",
                plan={},
                unfinished=[folder / "checkpoints"],
            ),
        )

    def _plan(self, rounds: "list[Round]", teacher: dict[str, Any]) -> dict[str, Any]:
        """All that the students depend on. Rounds may be added: those before do not depend on them."""
        return {
            **{name: getattr(self, name) for name in (*_OF_NUMBERS, *_OF_ROUNDS)},
            "student_block_size": rounds[0].config.block_size,
            "teacher": teacher,
            "rounds": {str(one.number): _round_plan(one) for one in rounds},
        }


def _round_plan(one: "Round") -> dict[str, Any]:
    return {
        "prompts": {
            "count": len(one.problems),
            "sha256": fingerprint([problem.asked for problem in one.problems]),
            "style": one.style,
            "kind": one.kind,
        },
        "decode": one.params.record(),
        **one.choice.plan(one.problems),
    }


@contextmanager
def _said(rounds: "list[Round]", name: str, product: "Product") -> Generator[None]:
    """Say which stage begins, or that it is there, and behind a rollout what was kept."""
    print(f"{name}{': made before' if product.is_made else ''}", file=sys.stderr)
    yield
    for one in rounds:
        if product is one.rollouts:
            _print_kept(one)


def _print_kept(one: "Round") -> None:
    from t3d.report.rollout import sample_lines
    from t3d.trajectory import read_trajectories

    trajectories = read_trajectories(one.rollouts.path)
    print(f"round {one.number}: {len(trajectories)} trajectories in {one.rollouts.path}")
    for line in sample_lines(trajectories, one.problems, one.choice):
        print(f"  {line}", flush=True)
