"""The real benchmarks by name: their tasks, how they are put to a model, and the settings of their own."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from t3d.errors import InputError
from t3d.problems.prompt_styles import PromptKind, PromptStyle
from t3d.tasks.code_task import CodeTask
from t3d.tasks.gsm8k import Gsm8kTask
from t3d.tasks.humaneval import HumanEvalTask
from t3d.tasks.math500 import Math500Task
from t3d.tasks.math_task import MathTask
from t3d.tasks.mbpp import MbppTask

BenchmarkName = Literal["gsm8k", "math500", "mbpp", "humaneval"]


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What commands need to know of a benchmark."""

    task: type[MathTask] | type[CodeTask]
    prompt_kind: PromptKind
    prompt_style: PromptStyle = "sdar"
    """Where nothing else is said."""
    options: tuple[str, ...]
    """Arguments of the task's constructor that users set, as flags and in lm-eval's metadata."""


BENCHMARKS: dict[str, Benchmark] = {
    "gsm8k": Benchmark(task=Gsm8kTask, prompt_kind="math", options=("grader",)),
    "math500": Benchmark(task=Math500Task, prompt_kind="math", options=("grader",)),
    "mbpp": Benchmark(task=MbppTask, prompt_kind="function", options=("protocol", "unsafe_no_sandbox")),
    "humaneval": Benchmark(task=HumanEvalTask, prompt_kind="completion", options=("unsafe_no_sandbox",)),
}


def default_prompt_style(name: str) -> PromptStyle:
    """How questions of a task are put where nothing else is said: plain if it is no benchmark."""
    return BENCHMARKS[name].prompt_style if name in BENCHMARKS else "plain"


def prompt_kind(name: str) -> PromptKind:
    """Kind of the problems of a benchmark or mini task; math where nothing tells."""
    if name in BENCHMARKS:
        return BENCHMARKS[name].prompt_kind
    return "function" if name == "code" else "math"


def option_users() -> dict[str, tuple[str, ...]]:
    """The benchmarks that each option is for."""
    names = dict.fromkeys(option for benchmark in BENCHMARKS.values() for option in benchmark.options)
    return {
        option: tuple(name for name in BENCHMARKS if option in BENCHMARKS[name].options) for option in names
    }


def own_options(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the values that are options of this benchmark; none for another task."""
    options = BENCHMARKS[name].options if name in BENCHMARKS else ()
    return {option: values[option] for option in options if option in values}


def load_benchmark(name: str, folder: str | Path | None = None, **options: Any) -> MathTask | CodeTask:
    """The task of a benchmark whose data lie in ``folder``; ``options`` are its constructor's.

    Raises InputError for an unknown name.
    """
    if name not in BENCHMARKS:
        raise InputError("task", name, "not known", f"use one of {', '.join(get_args(BenchmarkName))}")
    return BENCHMARKS[name].task(folder, **options)
