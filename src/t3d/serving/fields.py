"""What a client asks for: a body's fields as prompts, decoding settings and what the answer is to hold.

A field that would change the answer and that this server does not have is refused unless its value is the one
that changes nothing, so that no answer is other than it was asked for. Null is the same as left out.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from t3d.decoding.params import DecodeParams, Remasking, stop_texts
from t3d.decoding.precedence import resolve_params
from t3d.errors import InputError
from t3d.field_types import fit, type_text

Endpoint = Literal["completions", "chat/completions"]
MAX_LOGPROBS = 20
MAX_STOPS, MAX_STOP_LENGTH = 16, 1000
MAX_ECHOED = 2**20
"""Tokens and log-probabilities that an answer repeats of its prompts."""
_PROMPT = str | list[str] | list[int] | list[list[int]]
_COMMON: dict[str, Any] = {
    "model": str,
    "max_tokens": int,
    "max_completion_tokens": int,
    "n": int,
    "stop": str | list[str],
    "seed": int,
    "temperature": float,
    "top_p": float,
    "top_k": int,
    "block_size": int,
    "tokens_per_step": int,
    "strategy": Remasking,
    "confidence_threshold": float,
    "entropy_bound": float,
    "return_step_map": bool,
    "return_drafts": bool,
    "stream": bool,
    "stream_options": dict,
}
KINDS: dict[Endpoint, dict[str, Any]] = {
    "completions": _COMMON | {"prompt": _PROMPT, "echo": bool, "logprobs": int},
    "chat/completions": _COMMON | {"messages": list[dict], "logprobs": bool, "top_logprobs": int},
}
"""Types of the fields of each endpoint."""
_OF_PARAMS = {
    "strategy": "remasking",
    **{
        name: name
        for name in (
            "stop",
            "temperature",
            "top_p",
            "top_k",
            "block_size",
            "tokens_per_step",
            "confidence_threshold",
            "entropy_bound",
        )
    },
}
"""Fields of DecodeParams by the name that requests have for them."""
_RENAMED = {
    "remasking": "strategy",
    "steps_per_block": "tokens_per_step",
    "max_new_tokens": "max_tokens",
    "prompt_ids": "prompt",
    "prompts": "prompt",
}
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "min_p": (0,),
    "logit_bias": ({},),
    "best_of": (1,),
    "suffix": ("",),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
}
"""Fields that would change the answer, by the values that do not."""
IGNORED = ("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key")
"""Fields that never change an answer."""
Prompt = str | list[int] | list[dict[str, str]]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request, understood."""

    prompts: Sequence[Prompt]
    params: DecodeParams
    """``max_new_tokens`` left aside."""
    max_tokens: int | None
    """None: as many as the server gives; 0, with ``echo``: none."""
    n: int
    echo: bool
    num_logprobs: int | None
    """How many of a prompt's likeliest tokens are told; None: no log-probability at all."""
    returns_step_map: bool
    returns_drafts: bool
    streams: bool
    streams_usage: bool


def check_echoed(asked: Asked, num_prompt_tokens: int) -> None:
    """Raise InputError for an answer that would repeat more than MAX_ECHOED."""
    count = num_prompt_tokens * asked.n * (1 + (asked.num_logprobs or 0))
    if asked.echo and count > MAX_ECHOED:
        problem = f"the answer would repeat {count} tokens and log-probabilities, more than {MAX_ECHOED}"
        raise InputError("echo", True, problem, "ask for less in one request")


def named_model(body: Any) -> str | None:
    """The model that a body names; None also for what is refused when it is read."""
    name = body.get("model") if isinstance(body, dict) else None
    return name if isinstance(name, str) else None


def read_asked(body: Any, endpoint: Endpoint, own: Mapping[str, Any], max_choices: int) -> Asked:
    """What a body asks of a model that says this of itself (``own``). Raises InputError."""
    if not isinstance(body, dict):
        raise InputError("body", type(body).__name__, "not a JSON object", 'send {"prompt": ...}')
    fields = _typed({name: value for name, value in body.items() if value is not None}, KINDS[endpoint])
    _check_stops(fields)
    prompts = _chat(fields) if endpoint == "chat/completions" else _prompts(fields)
    if len(prompts) > max_choices:
        problem = f"a request has at most {max_choices} answers"
        raise InputError("prompt", len(prompts), problem, "send fewer prompts at once")
    n, echo = fields.get("n", 1), fields.get("echo", False)
    _require("n", n, 1 <= n * len(prompts) <= max_choices, f"with {len(prompts)} prompts", 1, max_choices)
    options = fields.get("stream_options", {})
    is_known = set(options) <= {"include_usage", "include_obfuscation"}
    if options and not (fields.get("stream") and is_known and all(map(_is_switch, options.values()))):
        fix = "give it with stream=true, and include_usage alone"
        raise InputError("stream_options", options, "cannot be used", fix)
    if fields.get("return_drafts") and not fields.get("stream"):
        fix = "add stream=true, or leave it out"
        raise InputError("return_drafts", True, "an answer that comes as a whole has no drafts", fix)
    return Asked(
        prompts=prompts,
        params=_params(fields, own),
        max_tokens=_max_tokens(fields, least=0 if echo else 1),
        n=n,
        echo=echo,
        num_logprobs=_num_logprobs(fields),
        returns_step_map=fields.get("return_step_map", False),
        returns_drafts=fields.get("return_drafts", False),
        streams=fields.get("stream", False),
        streams_usage=bool(options.get("include_usage")),
    )


def renamed(error: InputError) -> InputError:
    """The same, with the names that fields have in requests."""
    fix = error.fix.replace("max_new_tokens", _RENAMED["max_new_tokens"])
    return InputError(_RENAMED.get(error.field, error.field), error.value, error.problem, fix)


def _typed(body: Mapping[str, Any], kinds: Mapping[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in body.items():
        if name in kinds:
            try:
                fields[name] = fit(value, kinds[name])
                if isinstance(value, int) and abs(value) >= 2**63:
                    raise ValueError("no computer's whole number")
            except (ValueError, OverflowError) as error:
                fix = f"give {type_text(kinds[name])}"
                raise InputError(name, _short(value), f"not {type_text(kinds[name])}", fix) from error
        elif name in NEUTRAL:
            if not any(_is_same(value, neutral) for neutral in NEUTRAL[name]):
                raise InputError(name, _short(value), "t3d serve does not have it", "leave it out")
        elif name not in IGNORED:
            fix = f"use {', '.join(sorted(kinds))}"
            shown = name[:80].encode("ascii", "backslashreplace").decode()
            raise InputError(shown, _short(value), "not a field of this endpoint", fix)
    return fields


def _is_switch(value: Any) -> bool:
    return value is None or isinstance(value, bool)


def _is_same(value: Any, neutral: Any) -> bool:
    """False is no 0, and True no 1."""
    return value == neutral and isinstance(value, bool) == isinstance(neutral, bool)


def _short(value: Any) -> Any:
    """A value as errors show it: of a long one the beginning."""
    text = repr(value)
    return value if len(text) <= 200 else f"{text[:200]}..."


def _require(name: str, value: int, holds: bool, problem: str, least: int, most: int) -> None:
    if not holds:
        raise InputError(name, value, f"{problem} not from {least} to {most}", f"use {least} to {most}")


def _prompts(fields: Mapping[str, Any]) -> list[Prompt]:
    prompt = fields.get("prompt")
    if not prompt:
        raise InputError("prompt", prompt, "empty", "give a text, token ids, or a list of either")
    is_one = isinstance(prompt, str) or isinstance(prompt[0], int)
    return [prompt] if is_one else prompt


def _chat(fields: Mapping[str, Any]) -> list[Prompt]:
    messages = fields.get("messages")
    if not messages:
        fix = 'give messages such as {"role": "user", "content": "..."}'
        raise InputError("messages", messages, "empty", fix)
    return [[_message(message) for message in messages]]


def _message(message: Mapping[str, Any]) -> dict[str, str]:
    given = {name: value for name, value in message.items() if value is not None}
    role, content = given.get("role"), given.get("content")
    if isinstance(content, list):  # parts, of which texts alone can be read
        parts = [part.get("text") if isinstance(part, dict) else None for part in content]
        texts = [part for part in parts if isinstance(part, str)]
        content = "".join(texts) if len(texts) == len(parts) else None
    if not isinstance(role, str) or not isinstance(content, str) or set(given) - {"role", "content", "name"}:
        fix = 'give role and content, a text, as in {"role": "user", "content": "..."}'
        raise InputError("messages", _short(message), "not a message of text", fix)
    return {"role": role, "content": content}


def _params(fields: Mapping[str, Any], own: Mapping[str, Any]) -> DecodeParams:
    given = {ours: fields[name] for name, ours in _OF_PARAMS.items() if name in fields}
    given["seed"] = fields.get("seed", secrets.randbits(31))
    try:
        if "tokens_per_step" in fields:
            given |= {"remasking": given.get("remasking", DecodeParams.remasking)}  # static, as in t3d eval
        elif given.get("block_size", own.get("block_size")) != own.get("block_size"):
            given["steps_per_block"] = given["block_size"]  # of blocks it was not made for: all steps
        _check_thresholds(given, given.get("remasking", own.get("remasking", DecodeParams.remasking)))
        return resolve_params(own, given)
    except InputError as error:
        raise renamed(error) from error


def _check_thresholds(given: Mapping[str, Any], strategy: str) -> None:
    users = {"confidence_threshold": "low_confidence_dynamic", "entropy_bound": "entropy_bounded"}
    for name, user in users.items():
        if name in given and strategy != user:
            problem = f"strategy={strategy!r} does not use it"
            raise InputError(name, given[name], problem, f"leave it out, or add strategy={user!r}")


def _max_tokens(fields: Mapping[str, Any], *, least: int) -> int | None:
    named = {name: fields[name] for name in ("max_tokens", "max_completion_tokens") if name in fields}
    if len(set(named.values())) > 1:
        raise InputError("max_tokens", named["max_tokens"], "max_completion_tokens is another", "give one")
    for name, value in named.items():
        if value < least:
            raise InputError(name, value, f"below {least}", f"use {least} or more")
        return value
    return None


def _check_stops(fields: Mapping[str, Any]) -> None:
    stops = stop_texts(fields.get("stop", ()))
    if len(stops) > MAX_STOPS:
        raise InputError("stop", _short(stops), f"more than {MAX_STOPS} texts", f"give up to {MAX_STOPS}")
    for stop in stops:
        if len(stop) > MAX_STOP_LENGTH:
            problem = f"longer than {MAX_STOP_LENGTH} characters"
            raise InputError("stop", _short(stop), problem, "give shorter texts")


def _num_logprobs(fields: Mapping[str, Any]) -> int | None:
    wanted = fields.get("logprobs")
    name, count = "logprobs", wanted
    if isinstance(wanted, bool) or "top_logprobs" in fields:
        name, count = "top_logprobs", fields.get("top_logprobs", 0)
        if not wanted:
            if count:
                raise InputError(name, count, "without log-probabilities", "add logprobs=true")
            return None
    if count is not None and not 0 <= count <= MAX_LOGPROBS:
        raise InputError(name, count, f"not from 0 to {MAX_LOGPROBS}", f"use 0 to {MAX_LOGPROBS}")
    return count
