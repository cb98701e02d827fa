"""Processes that torchrun started."""

import os

from t3d.errors import InputError

_OF_SEVERAL = (("train",), ("env",))
"""Commands that torchrun may start."""


def num_processes() -> int:
    """How many there are; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def check_one_process(name: tuple[str, ...]) -> None:
    """Raise InputError where several processes would each do all the work, and write the same files."""
    count = num_processes()
    if count > 1 and name not in _OF_SEVERAL:
        problem = f"t3d {' '.join(name)} is one process, and {count} would do the same work over each other"
        fix = "start it without torchrun; a script may share a model by load_model(..., tp_plan='auto')"
        raise InputError("WORLD_SIZE", count, problem, fix)
