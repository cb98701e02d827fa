"""What transformers would refuse later, or in other words, of the settings of a run."""

import dataclasses
import logging
import re
from typing import Any

import torch
from transformers import SchedulerType, TrainingArguments, get_scheduler

from t3d.errors import InputError

_logger = logging.getLogger(__name__)
_SCORED = ("reduce_lr_on_plateau", "greedy")
"""Schedules by scores, not by steps; only the trainer can build them."""


def check_schedule(args: TrainingArguments) -> None:
    """Raise InputError unless the learning rate's schedule can be built with its ``lr_scheduler_kwargs``."""
    if args.lr_scheduler_type in _SCORED:
        return
    num_steps = args.max_steps if args.max_steps > 0 else 1000  # any: an epoch's are not known yet
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=args.learning_rate)
    options = args.lr_scheduler_kwargs
    try:
        get_scheduler(
            args.lr_scheduler_type,
            optimizer,
            args.get_warmup_steps(num_steps),
            num_steps,
            options if isinstance(options, dict) else None,
        )
    except (TypeError, ValueError) as error:
        problem = f"do not fit {SchedulerType(args.lr_scheduler_type).value} ({_first_line(error)})"
        raise InputError("lr_scheduler_kwargs", options, problem, "give what this schedule takes") from error


def check_cross_entropy_terms(args: Any) -> None:
    """Raise InputError for terms that the objective of a T3DConfig has not, and shares of more than all."""
    for name, presets in (("left_to_right_weight", "sft or redi"), ("soft_target_weight", "sft or naive_td")):
        if getattr(args, name) > 0 and args.objective != "cross_entropy":
            problem = f"a term of the cross-entropy, with objective={args.objective!r}"
            fix = f"use a preset that has it, such as {presets}, or leave it out"
            raise InputError(name, getattr(args, name), problem, fix)
    if args.soft_target_weight > 1:
        problem = "more than the whole of the cross-entropy"
        raise InputError("soft_target_weight", args.soft_target_weight, problem, "use a number up to 1")
    if args.soft_target_below > 1:
        problem, fix = "no probability", "use a number up to 1"
        raise InputError("soft_target_below", args.soft_target_below, problem, fix)
    _check_soft_target_context(args)


def _check_soft_target_context(args: Any) -> None:
    name, context = "soft_target_context", args.soft_target_context
    if context == "state" and args.soft_target_source == "student":
        problem = "with soft_target_source='student' what is learnt is what it says already"
        raise InputError(name, context, problem, "use 'later_state' or 'before', or a teacher")
    if context != "later_state":
        return
    if args.state_source not in ("trajectory", "on_policy"):
        problem = f"state_source={args.state_source!r} has no order of commits, so no later state"
        raise InputError(name, context, problem, "use state_source='trajectory' or 'on_policy'")
    if args.state_order == "released":
        problem = "with state_order='released' late commits are visible, so no later state follows"
        raise InputError(name, context, problem, "use state_order='trajectory'")


def refusal(args: TrainingArguments, error: Exception) -> InputError:
    """What transformers refused, under the setting whose value is not valid, or that its message names."""
    text = _first_line(error)
    fields = [item.name for item in dataclasses.fields(args)]
    of_value = [name for name in fields if text.startswith(f"{getattr(args, name)} is not a valid ")]
    name = next((word for word in [*of_value, *re.findall(r"\w+", text)] if word in fields), None)
    if name is None:
        return InputError("TrainingArguments", type(error).__name__, text, "change the setting that is meant")
    return InputError(name, getattr(args, name), f"refused by transformers ({text})", "use another value")


def warmup_covers_run(args: TrainingArguments) -> bool:
    """Whether the learning rate never reaches its peak; False where the number of steps is not known.

    A run of one step with any warm-up has a rate of 0: its student is its teacher.
    """
    if args.max_steps <= 0 or args.lr_scheduler_type in (*_SCORED, SchedulerType.CONSTANT):
        return False
    return args.get_warmup_steps(args.max_steps) >= args.max_steps


def warn_of_small_set(args: TrainingArguments, num_trajectories: int) -> None:
    """Log that an optimizer step takes all there is, where it was to take more."""
    count = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    if count > num_trajectories:
        _logger.warning(
            f"a batch of {count} trajectories, but there are {num_trajectories}: every optimizer step takes "
            f"each of them once"
        )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
