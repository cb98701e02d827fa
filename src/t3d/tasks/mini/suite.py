"""The suite's tasks by name, and their common tokenizer."""

from transformers import PreTrainedTokenizerBase

from t3d.errors import InputError
from t3d.tasks.mini.chain import ChainTask
from t3d.tasks.mini.code import CodeTask
from t3d.tasks.mini.make import MakeTask
from t3d.tasks.mini.mini_task import MiniTask
from t3d.tasks.mini.tokenizer import build_mini_tokenizer

TASKS: dict[str, MiniTask] = {task.name: task for task in (ChainTask(), MakeTask(), CodeTask())}


def mini_task(name: str) -> MiniTask:
    """A task of the suite. Raises InputError for an unknown name."""
    if name not in TASKS:
        raise InputError("task", name, "not known", f"use one of {', '.join(TASKS)}")
    return TASKS[name]


def mini_tokenizer() -> PreTrainedTokenizerBase:
    """The tokenizer in which every word of every task is one token."""
    return build_mini_tokenizer(word for task in TASKS.values() for word in task.corpus_words())
