"""The real benchmarks by name: their tasks and the kind of prompt they need."""

import importlib
from pathlib import Path
from typing import Any, Literal, get_args

from t3d.errors import InputError
from t3d.problems.prompt_styles import PromptKind, PromptStyle
from t3d.tasks.task import Task

BenchmarkName = Literal["gsm8k", "math500", "mbpp", "humaneval"]

_CLASSES: dict[str, str] = {
    "gsm8k": "t3d.tasks.gsm8k:Gsm8kTask",
    "math500": "t3d.tasks.math500:Math500Task",
    "mbpp": "t3d.tasks.mbpp:MbppTask",
    "humaneval": "t3d.tasks.humaneval:HumanEvalTask",
}
"""Imported when asked for."""
PROMPT_KINDS: dict[str, PromptKind] = {
    "gsm8k": "math",
    "math500": "math",
    "mbpp": "function",
    "humaneval": "completion",
}


def default_prompt_style(name: str) -> PromptStyle:
    """How questions of a task are put where nothing else is said: sdar for benchmarks, else plain."""
    return "sdar" if name in PROMPT_KINDS else "plain"


def prompt_kind(name: str) -> PromptKind:
    """Kind of the problems of a benchmark or mini task; math where nothing tells."""
    return PROMPT_KINDS.get(name, "function" if name == "code" else "math")


def load_benchmark(name: str, folder: str | Path | None = None, **options: Any) -> Task:
    """The task of a benchmark whose data lie in ``folder``; ``options`` are its constructor's.

    Raises InputError for an unknown name.
    """
    if name not in _CLASSES:
        raise InputError("task", name, "not known", f"use one of {', '.join(get_args(BenchmarkName))}")
    module, _, class_name = _CLASSES[name].partition(":")
    return getattr(importlib.import_module(module), class_name)(folder, **options)
