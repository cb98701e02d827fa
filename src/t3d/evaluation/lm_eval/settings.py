"""What lm-evaluation-harness may say about decoding, as t3d's settings. Needs no lm_eval."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

from t3d.decoding.params import BATCH_SIZE, DecodeParams
from t3d.decoding.precedence import resolve_params
from t3d.errors import InputError, require_positive
from t3d.field_types import fit, type_text
from t3d.problems.prompt_styles import PromptStyle

_OWN_KINDS: dict[str, Any] = {"device": str, "dtype": str, "prompt_style": PromptStyle}
_KINDS = get_type_hints(DecodeParams)
_DECODE_KINDS: dict[str, Any] = {name: _KINDS[name] for name in DecodeParams().record()} | {
    "tokens_per_step": int
}
"""Without ``n`` and ``stop``, which the harness's tasks say in their own words (repeats, until)."""
_FURTHER_NAMES = ("batch_size", "max_batch_size")
_NEEDS_REMASKING = {
    "confidence_threshold": "low_confidence_dynamic",
    "entropy_bound": "entropy_bounded",
    "draft_groups": "self_speculative",
    "max_draft_tokens": "self_speculative",
}
_LENGTH_NAMES = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""The harness's names for one thing."""


@dataclass(frozen=True, kw_only=True)
class LmEvalConfig:
    """The harness's ``--model_args``, the model itself aside."""

    decode: DecodeParams = dataclasses.field(default_factory=DecodeParams)
    device: str = "auto"
    dtype: str = "auto"
    """As in ``t3d eval``: auto is the checkpoint's own."""
    batch_size: int = BATCH_SIZE
    """Requests decoded together."""
    prompt_style: PromptStyle | None = None
    """Of the tasks ``t3d_*``; None is that of ``t3d eval``. Other tasks write their own prompts."""

    def __post_init__(self) -> None:
        require_positive(self, "batch_size")


def read_model_args(arguments: Mapping[str, Any], own: Mapping[str, Any] | None = None) -> LmEvalConfig:
    """The settings that these ``--model_args`` make, ``pretrained`` left out; what they do not say about
    decoding is as the checkpoint says (``own``).

    Raises InputError for a name that is not known, a value of another type, or names that exclude each other.
    """
    known = sorted([*_OWN_KINDS, *_DECODE_KINDS, *_FURTHER_NAMES])
    for name, value in arguments.items():
        if name not in known:
            raise InputError(name, value, "not a model_arg of t3d", f"use pretrained, {', '.join(known)}")
    others, decode = (
        {name: _typed(name, arguments[name], kind) for name, kind in kinds.items() if name in arguments}
        for kinds in (_OWN_KINDS, _DECODE_KINDS)
    )
    own = own or {}
    if "tokens_per_step" in decode:  # static decoding, as in t3d eval
        decode = {"remasking": DecodeParams.remasking, **decode}
    chosen = decode.get("remasking", own.get("remasking", DecodeParams.remasking))
    for name, remasking in _NEEDS_REMASKING.items():
        if name in decode and chosen != remasking:
            problem = f"has no effect without remasking={remasking}"
            raise InputError(name, decode[name], problem, f"add remasking={remasking}")
    params = resolve_params(own, decode)
    size = _batch_size(arguments.get("batch_size", "auto"), arguments.get("max_batch_size"))
    return LmEvalConfig(decode=params, batch_size=size, **others)


def request_params(
    params: DecodeParams, generation_kwargs: Mapping[str, Any]
) -> tuple[DecodeParams, list[str]]:
    """A request's own settings over the model's, and the texts that end its answer.

    ``do_sample`` false means temperature 0, as in the harness's other models. Raises InputError for what t3d
    cannot do.
    """
    rest = dict(generation_kwargs)
    stops = _stops(rest.pop("until", None))
    changes: dict[str, Any] = {}
    lengths = {name: rest.pop(name) for name in _LENGTH_NAMES if rest.get(name) is not None}
    for name, value in lengths.items():
        changes["max_new_tokens"] = _typed(name, value, int)
    if len(set(lengths.values())) > 1:
        raise InputError("gen_kwargs", lengths, "these mean the same", "keep max_gen_toks")
    for name in ("temperature", "top_p", "top_k"):
        if rest.get(name) is not None:
            changes[name] = _typed(name, rest[name], _DECODE_KINDS[name])
        rest.pop(name, None)
    do_sample = rest.pop("do_sample", None)
    if do_sample not in (None, True, False):
        raise InputError("do_sample", do_sample, "neither true nor false", "use true or false")
    if do_sample is False:
        changes["temperature"] = 0.0
    if rest.pop("num_beams", 1) != 1:
        raise InputError("num_beams", generation_kwargs["num_beams"], "t3d has no beam search", "use 1")
    for name, value in rest.items():
        known = ("until", "do_sample", "temperature", "top_p", "top_k", *_LENGTH_NAMES)
        raise InputError(name, value, "not one of the gen_kwargs of t3d", f"use {', '.join(known)}")
    changed = dataclasses.replace(params, **changes)
    if do_sample and changed.temperature == 0:
        fix = "set temperature above 0, or do_sample=false"
        raise InputError("do_sample", do_sample, "temperature is 0, which is greedy", fix)
    return changed, stops


def cut(text: str, stops: Sequence[str]) -> str:
    """The text before a stop, each looked for in what the ones before it left, as in the harness."""
    for stop in stops:
        text = text.partition(stop)[0]
    return text


def _stops(until: Any) -> list[str]:
    stops = [until] if isinstance(until, str) else [] if until is None else until
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise InputError("until", until, "not a text or a list of texts", 'use for example ["\\n\\n"]')
    return [stop for stop in stops if stop]  # an empty one, a tokenizer's missing stop token, ends nothing


def _batch_size(value: Any, maximum: Any) -> int:
    """A number, or the harness's ``auto``, which may name how often to try: ``auto:4``."""
    if isinstance(value, str) and value.partition(":")[0] == "auto":
        return BATCH_SIZE if maximum is None else _typed("max_batch_size", maximum, int)
    if isinstance(value, str) and value.isdecimal():  # the harness's flag is a text
        value = int(value)
    return _typed("batch_size", value, int)


def _typed(name: str, value: Any, kind: Any) -> Any:
    """The value as this type; the harness makes floats of negative whole numbers."""
    if kind is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    try:
        return fit(value, kind)
    except ValueError as error:
        raise InputError(name, value, f"not {type_text(kind)}", f"give {type_text(kind)}") from error
