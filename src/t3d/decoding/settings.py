"""Decoding settings by label: block size and how many tokens a denoising step commits."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from t3d.decoding.params import (
    NOT_LEFT_TO_RIGHT,
    OF_DRAFTS,
    DecodeParams,
    LeftToRight,
    StaticRemasking,
    steps_of,
)
from t3d.errors import InputError

_OF_LEFT_TO_RIGHT: dict[str, Any] = {name: getattr(DecodeParams, name) for name in ("context", *OF_DRAFTS)}
"""Fields that the other strategies ignore, and their defaults."""
_OF_OTHERS: dict[str, Any] = {name: getattr(DecodeParams, name) for name in NOT_LEFT_TO_RIGHT}


def decoding_settings(
    *,
    block_sizes: Sequence[int],
    tokens_per_step: Sequence[int] = (),
    dynamic: Sequence[float] = (),
    entropy_bounds: Sequence[float] = (),
    left_to_right: Sequence[LeftToRight] = (),
    shared: DecodeParams,
) -> dict[str, DecodeParams]:
    """Every block size with everything else, by label: ``B4-T2``, ``B4-dynamic`` (threshold 0.9),
    ``B4-dynamic-0.95``, ``B4-entropy-0.1``, ``B4-left-to-right``, ``B4-self-speculative`` (drafts behind the
    last token that is checked), ``B4-self-speculative-all``, ``B4-self-speculative-auto``.

    ``dynamic`` are confidence thresholds, ``entropy_bounds`` those of ``entropy_bounded``; a block may take
    as many steps as it has tokens in both. ``shared`` gives all else, and the strategy of those with a
    number of tokens per step; what it says of context holds for ``left_to_right``, of drafts for the one that
    drafts. Raises InputError for a size, number, threshold or bound that cannot be.
    """
    if shared.predicts == "next":
        others = {"tokens_per_step": tokens_per_step, "dynamic": dynamic, "entropy_bounds": entropy_bounds}
        return _of_next(tuple(block_sizes), others, left_to_right, shared)
    found: dict[str, DecodeParams] = {}
    for size in block_sizes:
        full = dataclasses.replace(shared, block_size=size, steps_per_block=size, **_OF_LEFT_TO_RIGHT)
        for count in tokens_per_step:
            found[f"B{size}-T{count}"] = dataclasses.replace(full, steps_per_block=steps_of(size, count))
        for threshold in dynamic:
            ending = "" if threshold == DecodeParams.confidence_threshold else f"-{threshold}"
            found[f"B{size}-dynamic{ending}"] = dataclasses.replace(
                full, remasking="low_confidence_dynamic", confidence_threshold=threshold
            )
        for bound in entropy_bounds:
            found[f"B{size}-entropy-{bound}"] = dataclasses.replace(
                full, remasking="entropy_bounded", entropy_bound=bound
            )
        for strategy in left_to_right:
            drafts = {name: getattr(shared, name) for name in _OF_LEFT_TO_RIGHT}
            found[_label(size, strategy, shared)] = _of_strategy(
                dataclasses.replace(full, **_OF_OTHERS, **drafts), strategy
            )
    if not found:
        raise InputError("block_size", tuple(block_sizes), "no setting to evaluate", "give at least one")
    default, strategies = DecodeParams.remasking, get_args(StaticRemasking)
    if shared.remasking not in strategies or (shared.remasking != default and not tokens_per_step):
        problem = "no strategy of a setting with a number of tokens per step"
        raise InputError("remasking", shared.remasking, problem, f"use {default}")
    return found


def static_setting(field: str, name: str, shared: DecodeParams) -> DecodeParams:
    """Of a label such as ``B8-T4``, blocks of 8 and four tokens per step, or ``B8-T4-temperature-1``, whose
    temperature stands over that of ``shared``. Raises InputError, naming the field, for another label, and
    for numbers that cannot be."""
    found = re.fullmatch(r"B([0-9]{1,6})-T([0-9]{1,6})(?:-temperature-([0-9]{1,3}(?:\.[0-9]{1,6})?))?", name)
    if found is None:
        problem = "no block size and tokens per step"
        raise InputError(field, name, problem, "write for example B8-T4, or B8-T4-temperature-1")
    size, count = int(found[1]), int(found[2])
    try:
        if found[3] is not None:
            shared = dataclasses.replace(shared, temperature=float(found[3]))
        settings = decoding_settings(block_sizes=(size,), tokens_per_step=(count,), shared=shared)
    except InputError as error:
        raise InputError(field, name, f"{error.field}={error.value!r} {error.problem}", error.fix) from error
    return next(iter(settings.values()))


def _label(size: int, strategy: LeftToRight, shared: DecodeParams) -> str:
    names_groups = strategy == "self_speculative" and shared.draft_groups != "last"
    ending = f"-{shared.draft_groups}" if names_groups else ""
    return f"B{size}-{strategy.replace('_', '-')}{ending}"


def _of_next(
    sizes: tuple[int, ...],
    others: Mapping[str, Sequence[float]],
    strategies: Sequence[LeftToRight],
    shared: DecodeParams,
) -> dict[str, DecodeParams]:
    """Those of an autoregressive model: left to right, with drafts or without."""
    fix = "use left_to_right or self_speculative alone (t3d eval --left-to-right --self-speculative)"
    problem = "of an autoregressive model, which is decoded token by token"
    if sizes != (1,):
        raise InputError("block_size", sizes, problem, "leave it out")
    for name, values in others.items():
        if values:
            raise InputError(name, values[0], problem, fix)
    if not strategies:
        raise InputError("left_to_right", (), problem, fix)
    return {_label(1, strategy, shared): _of_strategy(shared, strategy) for strategy in strategies}


def _of_strategy(params: DecodeParams, strategy: LeftToRight) -> DecodeParams:
    """By this strategy; one that drafts nothing has nothing to say of drafts."""
    unsaid = () if strategy == "self_speculative" else OF_DRAFTS
    return dataclasses.replace(
        params, remasking=strategy, **{name: getattr(DecodeParams, name) for name in unsaid}
    )


def setting_flags(params: DecodeParams) -> dict[str, Any]:
    """The flag of ``t3d eval`` that names a checkpoint's one setting.

    Raises InputError for steps of unequal tokens.
    """
    if params.is_left_to_right:
        return {params.remasking: True}
    if params.remasking == "low_confidence_dynamic":
        return {"dynamic": str(params.confidence_threshold)}
    if params.remasking == "entropy_bounded":
        return {"entropy_bound": str(params.entropy_bound)}
    count, rest = divmod(params.block_size, params.steps_per_block)
    if rest:
        problem = f"the checkpoint decodes blocks of {params.block_size} in {params.steps_per_block} steps"
        raise InputError("tokens_per_step", None, problem, "give numbers that divide the block size")
    return {"tokens_per_step": str(count)}
