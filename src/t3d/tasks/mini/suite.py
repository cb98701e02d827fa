"""The suite's tasks by name."""

from t3d.errors import InputError
from t3d.tasks.mini.chain import ChainTask
from t3d.tasks.mini.code import ProgramTask
from t3d.tasks.mini.make import MakeTask
from t3d.tasks.mini.mini_task import MiniTask

TASKS: dict[str, MiniTask] = {task.name: task for task in (ChainTask(), MakeTask(), ProgramTask())}


def mini_task(name: str) -> MiniTask:
    """A task of the suite. Raises InputError for an unknown name."""
    if name not in TASKS:
        raise InputError("task", name, "not known", f"use one of {', '.join(TASKS)}")
    return TASKS[name]
