"""The real benchmarks by name: their tasks, how they are put to a model, and the settings of their own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from t3d.errors import InputError
from t3d.grading.program_text import CodeRule
from t3d.problems.prompt_styles import PromptKind, PromptStyle
from t3d.tasks.code_task import CodeTask
from t3d.tasks.gsm8k import Gsm8kTask
from t3d.tasks.humaneval import HumanEvalTask
from t3d.tasks.math500 import Math500Task
from t3d.tasks.math_task import MathTask
from t3d.tasks.mbpp import MbppTask

BenchmarkName = Literal["gsm8k", "math500", "mbpp", "humaneval"]


BENCHMARKS: dict[str, type[MathTask] | type[CodeTask]] = {
    "gsm8k": Gsm8kTask,
    "math500": Math500Task,
    "mbpp": MbppTask,
    "humaneval": HumanEvalTask,
}


def default_prompt_style(name: str) -> PromptStyle:
    """How questions of a task are put where nothing else is said: plain if it is no benchmark."""
    return "sdar" if name in BENCHMARKS else "plain"


def prompt_kind(name: str) -> PromptKind:
    """Kind of the problems of a benchmark or mini task; math where nothing tells."""
    if name in BENCHMARKS:
        return BENCHMARKS[name].kind
    return "function" if name == "code" else "math"


def code_rule(style: PromptStyle) -> CodeRule:
    """Where the program of an answer to a prompt of this style is looked for."""
    return "dllm_rl" if style in ("released", "paper") else "opencompass"


def style_options(name: str, style: PromptStyle) -> dict[str, Any]:
    """Options of a task's constructor that the style of its prompts sets; none but for code benchmarks."""
    is_code = name in BENCHMARKS and issubclass(BENCHMARKS[name], CodeTask)
    return {"code_rule": code_rule(style)} if is_code else {}


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
    return BENCHMARKS[name](folder, **options)
