"""Values that were read as YAML, made to fit the type of a configuration's field."""

import math
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

_TEXTS: dict[Any, str] = {
    float: "a number",
    int: "a whole number",
    bool: "true or false",
    str: "a text",
    NoneType: "null",
    dict: "a mapping",
}


def fit(value: Any, kind: Any) -> Any:
    """The value as one of that type: 1 and the text '1e-05' (YAML 1.1 has no such number) as floats, lists as
    tuples. Raises ValueError for a value that is none, and for numbers that are not finite.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _fit_first(value, arguments)
    if origin is Literal:
        return _require(value, value in arguments)
    if origin is tuple:
        return _fit_tuple(value, arguments)
    if origin is list:
        return [fit(item, arguments[0]) for item in _require(value, isinstance(value, list | tuple))]
    if kind is float:
        number = (
            math.nan
            if isinstance(value, bool)
            else float(_require(value, isinstance(value, int | float | str)))
        )
        return _require(number, math.isfinite(number))
    if kind is int:
        return _require(value, isinstance(value, int) and not isinstance(value, bool))
    return _require(value, isinstance(value, origin or kind))


def type_text(kind: Any) -> str:
    """The type in words: ``a number``, ``one of mean, sum``."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(type_text(argument) for argument in arguments))
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin in (list, tuple):
        return f"a list, each item {type_text(arguments[0])}"
    return _TEXTS.get(origin or kind, getattr(kind, "__name__", str(kind)))


def _fit_first(value: Any, kinds: tuple[Any, ...]) -> Any:
    for kind in kinds:
        try:
            return fit(value, kind)
        except ValueError:
            continue
    return _require(value, False)


def _fit_tuple(value: Any, kinds: tuple[Any, ...]) -> tuple[Any, ...]:
    items = _require(value, isinstance(value, list | tuple))
    kinds = (kinds[0],) * len(items) if kinds[-1] is Ellipsis else kinds
    _require(value, len(items) == len(kinds))
    return tuple(fit(item, kind) for item, kind in zip(items, kinds, strict=True))


def _require(value: Any, is_right: bool) -> Any:
    if not is_right:
        raise ValueError(f"{value!r} does not fit")
    return value
