"""Whether an objective trains a model: checked before anything is built."""

from typing import Any

import torch

from t3d.errors import InputError
from t3d.models.gated import GatedAdapter
from t3d.predicts import predicts_of
from t3d.training.config import T3DConfig
from t3d.training.lora import base_of

_OF_BLOCKS = ("draft_open_prob", "draft_rides", "grid_origin")
"""Settings of a drafter without effect on a base that has no blocks."""


def check_trained(args: T3DConfig, model: torch.nn.Module, *, has_evaluator: bool) -> None:
    """Raise InputError for a model that the objective does not train, and for scores that nothing gives."""
    if (args.eval_strategy != "no" or args.reference_choice == "best") and not has_evaluator:
        fix = "give an evaluator, or use eval_strategy='no' and reference_choice='latest'"
        raise InputError("evaluator", None, "needed to evaluate the student during training", fix)
    base: Any = base_of(model)
    if predicts_of(base.config) == "next":
        _check_autoregressive(args, base)
    if (args.objective == "prefix_acceptance") != isinstance(model, GatedAdapter):
        problem = f"{type(model).__name__}, with objective={args.objective!r}"
        fix = "give add_gated_adapter's result for prefix_acceptance, and only for that"
        raise InputError("model", problem, "not what this objective trains", fix)


def _check_autoregressive(args: T3DConfig, base: Any) -> None:
    """Raise InputError unless it is a drafter that is trained on a base that predicts the next token, and for
    settings that such a base ignores."""
    if args.objective != "prefix_acceptance":
        problem = f"predicts the next token, which objective={args.objective!r} does not train"
        fix = "make a block-diffusion model of it with t3d convert, or train a drafter (preset drafter)"
        raise InputError("model", type(base).__name__, problem, fix)
    for name in _OF_BLOCKS:
        value = getattr(args, name)
        if value != getattr(T3DConfig, name):
            problem = "ignored: the model predicts the next token, and has no blocks"
            raise InputError(name, value, problem, "leave it out")
