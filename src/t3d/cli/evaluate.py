"""The command ``t3d eval``: accuracy and cost of a checkpoint, over tasks and decoding settings."""

import dataclasses
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from rich.console import Console

from t3d.cli.arguments import check_flags_are_used
from t3d.cli.config_file import UNWRITTEN, resolved_config
from t3d.cli.options import (
    LOG_WIDTH,
    DraftedModelChoice,
    PromptChoice,
    check_data_is_used,
    check_one_source,
    named_task,
    parse_list,
)
from t3d.cli.prepared_evaluation import check_files, prepared_evaluation, write_rest
from t3d.cli.processes import own_shard
from t3d.cli.ray_flags import OnRay, RayFlags
from t3d.decoding.params import (
    BATCH_SIZE,
    NOT_LEFT_TO_RIGHT,
    Confidence,
    Context,
    DecodeParams,
    DraftGroups,
    LeftToRight,
    StaticRemasking,
)
from t3d.decoding.settings import decoding_settings, setting_flags
from t3d.errors import InputError, require_at_least_zero, require_positive
from t3d.evaluation.finished import ERRORS, RESULTS
from t3d.grading.math_worker import GraderName
from t3d.predicts import OF_NEXT, Predicts
from t3d.tasks.benchmarks import option_users, own_options, style_options
from t3d.tasks.mbpp import MbppProtocol
from t3d.tasks.mini.suite import TASKS
from t3d.tasks.prompt_file import PromptFileTask
from t3d.tasks.task import PosedTask, Task
from t3d.work.failures import failed_line, new_attempt
from t3d.work.kept import CHUNK_SIZE
from t3d.work.remote import is_remote
from t3d.work.shards import Shard

if TYPE_CHECKING:
    from t3d.evaluation.added import Entry

_FLAG_OF_OPTION = {"protocol": "mbpp_protocol"}
"""Flags under which options of benchmarks have other names."""
_OF_LEFT_TO_RIGHT = ("context", "draft_groups", "max_draft_tokens")
_INHERITED = ("remasking", "confidence", "temperature", "top_k", "top_p", "predicts", *_OF_LEFT_TO_RIGHT)


@dataclass(frozen=True, kw_only=True)
class Eval(DraftedModelChoice, PromptChoice):
    """Accuracy with its 95 % interval, and what decoding cost, for every task under every setting.

    Settings: blocks of every block size with every number of tokens per step (B4-T2), and with every dynamic
    threshold (B4-dynamic) and entropy bound (B4-entropy-0.1), and left to right, with drafts or without
    (B4-self-speculative, B4-left-to-right).
    """

    output: str
    """Folder for results.json, samples.jsonl, config.yaml and report.html; a killed evaluation continues.
    Also on an object store, such as s3://BUCKET/NAME (docs/scaling.md)."""
    tasks: str | None = None
    """With commas: gsm8k, math500, mbpp, humaneval, or chain, make, code of the mini suite."""
    prompts: str | None = None
    """Instead of tasks: JSONL or Parquet file with a "question" (or "messages") and an "answer" per line."""
    data: str | None = None
    """Folder of the benchmarks' data, or hub to download them."""
    split: str = "test"
    """Split of the tasks; of mini tasks also ood, with numbers that training never has in their place."""
    limit: int | None = None
    """At most this many problems of each task."""
    problem_seed: int = 0
    """Seed that draws the problems of mini tasks."""
    block_size: str | None = None
    """With commas: tokens per diffusion block. Default: the checkpoint's own, as a student's of all that
    follows down to top_p (docs/evaluation.md), else 4."""
    tokens_per_step: str | None = None
    """With commas: tokens committed by a denoising step; each divides every block size. Default: none where
    another kind of setting is given, else a student's own at its own block size, else 1."""
    dynamic: str | None = None
    """With commas: confidence thresholds; a step commits all positions above, such as 0.9."""
    entropy_bound: str | None = None
    """With commas: bounds; a step commits the surest positions while their entropies add up to less."""
    left_to_right: bool = False
    """Draw each token behind all tokens before it, one by one."""
    self_speculative: bool = False
    """The same tokens in fewer forwards: the model drafts, and checks its drafts."""
    predicts: Predicts | None = None
    """Of the model, not a choice: next for an autoregressive one, evaluated by the last two alone."""
    context: Context | None = None
    """Of the last two: a closed block is read whole, or token by token, for models trained so."""
    draft_groups: DraftGroups | None = None
    """self_speculative drafts behind the whole draft it checks, behind every part, or as it pays (auto)."""
    max_draft_tokens: int | None = None
    """self_speculative drafts at most so many tokens at once; 0: the rest of the block."""
    remasking: StaticRemasking | None = None
    """Which positions a step of a given number of tokens commits."""
    confidence: Confidence | None = None
    """Probability of the drawn token under the model itself, or as sampled (tempered, filtered)."""
    temperature: float | None = None
    """0 decodes greedily."""
    top_k: int | None = None
    """Sample among the k likeliest tokens; 0 keeps all."""
    top_p: float | None = None
    """Sample among the likeliest tokens whose probabilities reach top_p; 1 keeps all."""
    max_new_tokens: int = DecodeParams.max_new_tokens
    """Most visible response tokens, the stop token included; the released code takes 2000."""
    seed: int = DecodeParams.seed
    """Seed of the sampling noise."""
    samples_per_prompt: int = 1
    """Answers drawn for each prompt."""
    latency_samples: int = 0
    """Problems of each cell to decode once more, one by one, for the seconds of a response on its own."""
    grader: GraderName = "math_verify"
    """Of gsm8k, math500 and prompts: math_verify, legacy (the grader of T3D's released code), or exact (the
    same text)."""
    mbpp_protocol: MbppProtocol = "t3d"
    """Of mbpp: t3d, all_tests, or sanitized, the one that SDAR was evaluated on."""
    unsafe_no_sandbox: bool = False
    """Run the programs of code answers without a sandbox if none works here."""
    batch_size: int = BATCH_SIZE
    """Requests decoded together."""
    chunk_size: int = CHUNK_SIZE
    """A killed evaluation keeps finished responses; in bfloat16, where rounding depends on the batch,
    finished chunks of this many requests."""
    max_errors: int = 0
    """Responses for which the model may raise. They count as wrong and as errors, are listed in
    OUTPUT/errors.jsonl, and tried again by the same command; one more ends the evaluation."""
    shard: str | None = None
    """I/N: answer every N-th chunk of chunk_size requests, from the I-th on. The last of N runs with the same
    output writes the results. Processes of torchrun take a shard each by themselves."""
    workers: OnRay = field(default_factory=RayFlags, metadata=UNWRITTEN)

    def run(self) -> None:
        """Run the command."""
        self._check_numbers()
        self.workers.check(own_shard(self.shard))
        self.workers.check_drafter(self.drafter)
        was_there = check_files(self)
        self.check_model()
        tasks = self.tasks_asked()
        dataclasses.replace(self, **self._inherited(self.own_settings()))._evaluate(tasks, was_there)

    def _check_numbers(self) -> None:
        require_positive(self, "limit", "samples_per_prompt", "batch_size", "chunk_size")
        require_at_least_zero(self, "latency_samples", "max_errors")
        DecodeParams(**self._shared(self._given()))

    @staticmethod
    def _shared(fields: Mapping[str, Any]) -> dict[str, Any]:
        """Settings without a strategy; of an autoregressive model there is no other than left to right."""
        if fields.get("predicts") != "next":
            return {**fields}
        return {**OF_NEXT, "steps_per_block": 1, **fields, "remasking": OF_NEXT["remasking"]}

    def _given(self) -> dict[str, Any]:
        """Flags that a checkpoint might have said, if they were given."""
        given = {name: getattr(self, name) for name in _INHERITED}
        if self.predicts == "next":  # left to right, which has flags of its own
            del given["remasking"]
        return {name: value for name, value in given.items() if value is not None}

    def _inherited(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """Flags that were not given, by the checkpoint's own settings, else the defaults."""
        from t3d.decoding.precedence import check_used, ignored_by_all, resolve_params

        given = self._given()
        params = resolve_params(own, given)
        of_all = {name: value for name, value in given.items() if name not in NOT_LEFT_TO_RIGHT}
        named = [resolve_params(own, of_all | {"remasking": name}) for name in self._named()]
        # config.yaml has the defaults of what is ignored, and --config gives them as flags are given
        chosen = {name: value for name, value in given.items() if value != getattr(DecodeParams, name)}
        check_used(chosen, params, *named)
        ignored = ignored_by_all(params, *named)
        params = dataclasses.replace(params, **{name: getattr(DecodeParams, name) for name in ignored})
        found = {name: getattr(params, name) for name in _INHERITED}
        found["block_size"] = str(params.block_size) if self.block_size is None else self.block_size
        if params.remasking not in get_args(StaticRemasking):
            found["remasking"] = DecodeParams.remasking
        if not self._named() and (self.tokens_per_step, self.dynamic, self.entropy_bound) == (None,) * 3:
            is_own = found["block_size"] == str(params.block_size)
            found |= setting_flags(params) if is_own else {"tokens_per_step": "1"}
        return found

    def _named(self) -> tuple[LeftToRight, ...]:
        """Strategies that have a flag of their own, of those that are given."""
        return tuple(name for name in get_args(LeftToRight) if getattr(self, name))

    def _evaluate(self, tasks: list[PosedTask], was_there: bool) -> None:
        self.check_drafter_is_used(drafts=self.self_speculative)
        from t3d.evaluation.evaluate import evaluate

        self._settings()  # what they refuse, before anything is loaded
        shard, folder = own_shard(self.shard), self.output.rstrip("/")
        if self.workers.ray:
            prepare = partial(prepared_evaluation, self, attempt=new_attempt())
            how: dict[str, Any] = {"label": "evaluate", "items": "responses"}
            how["told_identity"] = self.told_identity
            entries = self.workers.made(prepare, f"{folder}/{RESULTS}", was_there, self.device, **how)
        elif shard is not None or is_remote(self.output):
            label = "evaluate" if shard is None else f"evaluate, shard {shard}"
            attempt = new_attempt() if shard is None else ""  # it makes chunk after chunk, with one bound
            work = prepared_evaluation(self, tasks, label, attempt)
            entries = work.make(shard or Shard(1, 1))
            if entries is None:
                end = "another one wrote" if work.is_finished() else "the last shard writes"
                print(f"shard {shard}: its answers are in {self.output}; {end} {RESULTS}")
                return
        else:
            self._say(evaluate(**self.work(tasks)), f"{folder}/{ERRORS}")
            write_rest(self, Path(self.output))  # behind what is known, should there be no report
            return
        self._say(entries, f"{folder}/{ERRORS}")

    def _say(self, entries: list["Entry"], errors: str) -> None:
        from t3d.evaluation.measure import endings
        from t3d.report.console import results_table

        console = Console(width=None if sys.stdout.isatty() else LOG_WIDTH)
        console.print(results_table(entries, title=self.model))
        reasons = sum((Counter(entry["finish_reasons"]) for entry in entries), Counter())
        if reasons["length"]:
            print(endings(reasons))
        num_errors = sum(entry.get("num_errors", 0) for entry in entries)
        for line in failed_line(num_errors, errors, "response"):
            print(line)

    def work(self, tasks: list[PosedTask]) -> dict[str, Any]:
        """What is evaluated and how, with the model loaded."""
        from t3d.evaluation.evaluate import EvalConfig

        numbers = {item.name: getattr(self, item.name) for item in dataclasses.fields(EvalConfig)}
        return {
            "loaded": self.workers.load(self.load),
            "tasks": tasks,
            "settings": self._settings(),
            "output": self.output,
            "config": EvalConfig(**numbers),
            "max_errors": self.max_errors,
            "report": resolved_config(dataclasses.replace(self, shard=None)),
        }

    def _settings(self) -> dict[str, DecodeParams]:
        shared = (*_INHERITED, "max_new_tokens", "seed")
        return decoding_settings(
            block_sizes=parse_list("block_size", self.block_size, int, "4,8"),
            tokens_per_step=parse_list("tokens_per_step", self.tokens_per_step, int, "1,2,4"),
            dynamic=parse_list("dynamic", self.dynamic, float, "0.9,0.95"),
            entropy_bounds=parse_list("entropy_bound", self.entropy_bound, float, "0.1,0.2"),
            left_to_right=self._named(),
            shared=DecodeParams(**self._shared({name: getattr(self, name) for name in shared})),
        )

    def tasks_asked(self) -> list[PosedTask]:
        """Tasks with their problems, as they are put. Raises InputError for what contradicts."""
        check_one_source("tasks", self.tasks, self.prompts)
        names = parse_list("tasks", self.tasks, str, "gsm8k,math500")
        check_data_is_used(self.data, names)
        users = {_FLAG_OF_OPTION.get(option, option): used for option, used in option_users().items()}
        users |= {"grader": (*users["grader"], "prompts"), "problem_seed": tuple(TASKS)}
        check_flags_are_used(self, users, names or ("prompts",))
        if self.prompts is not None:
            if self.split != "test":
                raise InputError("split", self.split, "a file of prompts has no splits", "leave it out")
            tasks: dict[str, Task] = {"": PromptFileTask(self.prompts, grader=self.grader)}
        else:
            given = {option: getattr(self, _FLAG_OF_OPTION.get(option, option)) for option in option_users()}
            options = {
                name: own_options(name, given) | style_options(name, self.style_of(name)) for name in names
            }
            tasks = {name: named_task(name, self.data, "tasks", **options[name]) for name in names}
        return [
            self.pose(task, name, task.problems(self.split, self.limit, self.problem_seed))
            for name, task in tasks.items()
        ]
