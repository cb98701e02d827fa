"""How t3d train scores what it trains: flags that belong together, and the evaluator they ask for."""

from typing import TYPE_CHECKING

from t3d.decoding.params import DecodeParams
from t3d.errors import InputError
from t3d.grading.math_worker import GraderName
from t3d.tasks.mini.suite import TASKS
from t3d.tasks.prompt_file import PromptFileTask
from t3d.tasks.task import Task

if TYPE_CHECKING:
    from t3d.cli.train import Train
    from t3d.models.loading import LoadedModel
    from t3d.training.config import T3DConfig
    from t3d.training.trainer import Evaluator

DRAFTER = "drafter"
"""The preset that makes no student."""
EVALUATION_COUNTS = ("eval_limit", "eval_tokens_per_step", "eval_max_new_tokens")
_EVALUATION_FLAGS = (*EVALUATION_COUNTS, "eval_grader")
_FLAG_OF_ARGUMENT = {
    "max_new_tokens": "eval_max_new_tokens",
    "limit": "eval_limit",
    "prompts": "eval_tasks",
    "tasks": "eval_tasks",
    "grader": "eval_grader",
}
"""Flags under which arguments of other names are given."""
_NOT_OF_DRAFTER = ("eval_tasks", *_EVALUATION_FLAGS, "tokens_per_step", "dynamic")


def check_evaluation(command: "Train") -> None:
    """Raise InputError for flags of the evaluation that would be ignored, or that lack others."""
    from t3d.training.presets import preset_fields

    if command.preset == DRAFTER:
        _check_drafter(command)
        return
    if command.eval_trajectories is not None:
        fix = "name eval_tasks, which it solves"
        raise InputError("eval_trajectories", command.eval_trajectories, "a student drafts nothing", fix)
    example = "for example --eval-tasks chain make"
    choice = command.reference_choice or preset_fields(command.preset).get("reference_choice", "latest")
    if command.eval_tasks:
        if command.eval_every is None and choice == "latest":
            problem = "never evaluated without eval_every"
            raise InputError("eval_tasks", command.eval_tasks, problem, "add for example --eval-every 50")
        if command.resolved_block_size % command.eval_tokens_per_step:
            problem = f"does not divide block_size={command.block_size}"
            raise InputError("eval_tokens_per_step", command.eval_tokens_per_step, problem, "use a divisor")
        if command.eval_grader != type(command).eval_grader and not any(map(_is_file, command.eval_tasks)):
            problem = "tasks of the mini suite have graders of their own"
            raise InputError("eval_grader", command.eval_grader, problem, "leave it out")
        if command.eval_every is not None and command.eval_every > command.num_optimizer_steps:
            problem = f"more than num_optimizer_steps={command.num_optimizer_steps}: never evaluated"
            raise InputError("eval_every", command.eval_every, problem, "use fewer")
    elif command.eval_every is not None:
        problem = "there is nothing to evaluate on without eval_tasks"
        raise InputError("eval_every", command.eval_every, problem, f"name held-out tasks, {example}")
    elif choice == "best":
        problem = "the student is scored on eval_tasks, and there are none"
        fix = f"name held-out tasks, {example}; --eval-every N logs its scores, too"
        raise InputError("reference_choice", command.reference_choice, problem, fix)
    else:
        for name in _EVALUATION_FLAGS:
            if getattr(command, name) != getattr(type(command), name):
                fix = f"leave it out, or give --eval-every and held-out tasks, {example}"
                raise InputError(name, getattr(command, name), "nothing is evaluated", fix)


def _check_drafter(command: "Train") -> None:
    """Raise InputError for flags of students."""
    for name in _NOT_OF_DRAFTER:
        if getattr(command, name) != getattr(type(command), name):
            fix = "leave it out; a drafter is scored on --eval-trajectories"
            raise InputError(name, getattr(command, name), "a drafter solves nothing by itself", fix)
    if (command.eval_every is None) != (command.eval_trajectories is None):
        problem = "eval_every and eval_trajectories need each other"
        raise InputError("eval_trajectories", command.eval_trajectories, problem, "give both, or none")


def evaluator_of(command: "Train", loaded: "LoadedModel", config: "T3DConfig") -> "Evaluator | None":
    """None without tasks or held-out rollouts. Raises InputError, under the flag's name, for what cannot
    be evaluated."""
    from t3d.evaluation.monitor import student_evaluator
    from t3d.training.held_out_drafts import draft_evaluator
    from t3d.trajectory import read_trajectories

    if command.eval_trajectories is not None:
        return draft_evaluator(loaded, read_trajectories(command.eval_trajectories), config)
    if not command.eval_tasks:
        return None
    try:
        few, full = (
            DecodeParams(
                block_size=command.resolved_block_size,
                tokens_per_step=tokens_per_step,
                temperature=0.0,
                max_new_tokens=command.eval_max_new_tokens,
            )
            for tokens_per_step in (command.eval_tokens_per_step, 1)
        )
        tasks = [_held_out_task(name, command.eval_grader) for name in command.eval_tasks]
        held_out = [(task, task.problems("validation", command.eval_limit, command.seed)) for task in tasks]
        return student_evaluator(loaded, held_out, few_steps=few, full_steps=full)
    except InputError as error:
        flag = _FLAG_OF_ARGUMENT.get(error.field, error.field)
        fix = error.fix.replace(error.field, flag)
        raise InputError(flag, error.value, error.problem, fix) from error


def _is_file(name: str) -> bool:
    return name.endswith(".jsonl")


def _held_out_task(name: str, grader: GraderName) -> Task:
    if _is_file(name):
        return PromptFileTask(name, grader=grader)
    if name not in TASKS:
        raise InputError("eval_tasks", name, "not known", f"use {', '.join(TASKS)}, or a JSONL file")
    return TASKS[name]
