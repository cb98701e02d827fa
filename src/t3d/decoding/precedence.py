"""Who says how to decode: flag, then config file, then the checkpoint's own settings, then the default.

A suite of ``t3d reproduce`` gives whole DecodeParams and never inherits.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, get_args, get_type_hints

from t3d.decoding.params import NOT_LEFT_TO_RIGHT, OF_DRAFTS, DecodeParams, LeftToRight, without_effect
from t3d.errors import InputError
from t3d.field_types import fit, type_text
from t3d.models.own_settings import KEY

_OF_REQUESTS = ("max_new_tokens", "seed", "n", "stop")
"""Fields that depend on what is asked, not on the model."""
OWN_FIELDS = tuple(item.name for item in dataclasses.fields(DecodeParams) if item.name not in _OF_REQUESTS)
"""Fields of which a checkpoint may say what it was trained for."""


def resolve_params(own: Mapping[str, Any], given: Mapping[str, Any] | None = None) -> DecodeParams:
    """What was ``given``, else what the checkpoint says (``own``), else DecodeParams' defaults.

    Steps belong to a block size: those of the checkpoint do not count for another one, nor do steps,
    thresholds and confidence for a strategy that has none, nor drafts for one that makes none, and a
    checkpoint that names a block size alone is decoded at full steps. ``tokens_per_step`` says the steps, and
    with them the strategy: a static one unless another is given. Raises InputError for settings of the
    checkpoint that cannot be used, and for given ones that cannot, together with them.
    """
    own, given = check_own(own), dict(given or {})
    predicts = own.get("predicts", DecodeParams.predicts)
    if given.get("predicts", predicts) != predicts:
        problem = f"of the model, not a choice: this one has predicts={predicts!r}"
        raise InputError("predicts", given["predicts"], problem, "leave it out")
    if given.get("block_size", own.get("block_size")) != own.get("block_size"):
        own.pop("steps_per_block", None)
    if given.get("tokens_per_step") is not None:
        given.setdefault("remasking", DecodeParams.remasking)
        own.pop("steps_per_block", None)
    remasking = given.get("remasking", own.get("remasking"))
    if remasking != "self_speculative":
        own = {name: own[name] for name in own if name not in OF_DRAFTS}
    if remasking in get_args(LeftToRight):
        own = {name: own[name] for name in own if name not in ("steps_per_block", *NOT_LEFT_TO_RIGHT)}
    return DecodeParams(**(own | given))


def ignored_fields(params: DecodeParams) -> dict[str, str]:
    """Fields that the others leave without effect, and why."""
    reasons = {name: f"remasking={params.remasking!r} {why}" for name, why in NOT_LEFT_TO_RIGHT.items()}
    if params.remasking == "low_confidence_dynamic":
        del reasons["confidence_threshold"]
    if params.remasking == "entropy_bounded":
        del reasons["entropy_bound"]
    if not params.is_left_to_right:
        del reasons["confidence"]
        reasons["context"] = f"remasking={params.remasking!r} reads every block whole"
    if params.remasking != "self_speculative":
        reasons |= dict.fromkeys(OF_DRAFTS, f"remasking={params.remasking!r} drafts nothing")
    if params.temperature == 0:
        drawn = "temperature=0 draws nothing, it takes the likeliest token"
        reasons |= {"top_k": drawn, "top_p": drawn}
    return reasons


def ignored_by_all(params: DecodeParams, *others: DecodeParams) -> dict[str, str]:
    """Those of ``params`` that the others ignore too."""
    each = [ignored_fields(other) for other in others]
    return {name: why for name, why in ignored_fields(params).items() if all(name in one for one in each)}


def check_used(given: Mapping[str, Any], params: DecodeParams, *others: DecodeParams) -> None:
    """Raise InputError for a setting that was ``given`` and that ``params`` and all ``others`` ignore."""
    for name, reason in ignored_by_all(params, *others).items():
        if given.get(name) is not None:
            raise without_effect(name, given[name], reason)


def check_drafts_are_used(params: DecodeParams) -> None:
    """The same for what whole settings say of drafts, but for the defaults."""
    said = {name: getattr(params, name) for name in OF_DRAFTS}
    check_used({name: said[name] for name in said if said[name] != getattr(DecodeParams, name)}, params)


def check_own(own: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint's own settings, with the steps of a block. Raises InputError for what cannot be used."""
    kinds = get_type_hints(DecodeParams)
    where = f"in {KEY} of the checkpoint's generation_config.json"
    fields: dict[str, Any] = {}
    for name, value in own.items():
        if name not in OWN_FIELDS:
            raise InputError(name, value, f"unknown {where}", f"use {', '.join(OWN_FIELDS)}")
        where_name = f"{where}, or its config.json" if name == "block_size" else where
        try:
            fields[name] = fit(value, kinds[name])
        except ValueError as error:
            fix = f"give {type_text(kinds[name])}"
            raise InputError(name, value, f"not {type_text(kinds[name])}, {where_name}", fix) from error
    if "block_size" in fields:
        fields = {"steps_per_block": fields["block_size"], **fields}
    try:
        DecodeParams(**fields)
    except InputError as error:
        raise InputError(error.field, error.value, f"{error.problem}, {where}", error.fix) from error
    return fields
