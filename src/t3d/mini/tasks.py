"""The suite's tasks by name."""

from t3d.errors import InputError
from t3d.mini.chain import ChainTask

TASKS = {task.name: task for task in (ChainTask(),)}


def mini_task(name: str) -> ChainTask:
    """A task of the suite. Raises InputError for an unknown name."""
    if name not in TASKS:
        raise InputError("task", name, "not known", f"use one of {', '.join(TASKS)}")
    return TASKS[name]
