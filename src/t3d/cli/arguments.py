"""A command's line as tyro reads it; what tyro refuses is said in one line, not in a box of several."""

import dataclasses
import io
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import redirect_stderr
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import tyro

from t3d.errors import InputError
from t3d.field_types import type_text

Fields = Mapping[str, dataclasses.Field]
"""A command's, by name."""


def parsed(
    command: Any, prog: str, arguments: Sequence[str], fields: Fields, description: str | None = None
) -> Any:
    """The command of these arguments. Raises InputError for arguments that make none."""
    try:
        with redirect_stderr(io.StringIO()):
            return tyro.cli(command, prog=prog, args=arguments, description=description)
    except SystemExit as stop:
        if not stop.code:  # the help
            raise
        error = _refusal(stop)
    raise error or _reason(prog, arguments, fields)


def check_flags_are_used(command: Any, users: Mapping[str, Collection[str]], tasks: Sequence[str]) -> None:
    """Raise InputError for a flag of ``command`` that is set with none of its ``users`` among the tasks."""
    defaults = {item.name: item.default for item in dataclasses.fields(command)}
    for flag, names in users.items():
        value = getattr(command, flag)
        if value != defaults[flag] and not set(names) & set(tasks):
            problem = f"no task of {', '.join(names)} is named, so it is ignored"
            raise InputError(flag, value, problem, "leave it out")


def is_positional(item: dataclasses.Field) -> bool:
    """Whether a field is given without a flag."""
    return tyro.conf.Positional in get_args(item.type)


def usage(prog: str, fields: Fields) -> str:
    """The shortest line: ``t3d fetch NAME --output OUTPUT``."""
    required = [item for item in fields.values() if _is_required(item)]
    flags = [f"{_flag(item.name)} {item.name.upper()}" for item in required if not is_positional(item)]
    words = [item.name.upper() for item in required if is_positional(item)]
    return " ".join([prog, *words, *flags])


def _is_required(item: dataclasses.Field) -> bool:
    return item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _refusal(stop: SystemExit) -> InputError | None:
    """What a command's own checks raised, for which tyro stopped."""
    error = stop.__context__
    while error is not None and not isinstance(error, InputError):
        error = error.__context__
    return error


def _reason(prog: str, arguments: Sequence[str], fields: Fields) -> InputError:
    """Why tyro refuses these arguments, whose flags are known."""
    given, loose = _given(arguments, fields)
    for name, values in given.items():
        for error in _wrong_values(fields[name], values):
            return error
    for word in loose:
        if word.startswith("-"):
            return InputError("flag", word, "not known", f"see {prog} --help")
        fix = f"leave it out, or put quotes around a value of several words; see {prog} --help"
        return InputError("argument", word, "belongs to no flag", fix)
    for name, item in fields.items():
        if _is_required(item) and name not in given:
            return InputError(name, None, "not given", f"write {usage(prog, fields)}")
    return InputError("arguments", " ".join(arguments), "cannot be read", f"see {prog} --help")


def _given(arguments: Sequence[str], fields: Fields) -> tuple[dict[str, list[str]], list[str]]:
    """Values by field, as tyro gives them out, and words that are left over."""
    given: dict[str, list[str]] = {}
    loose: list[str] = []
    positional = [name for name, item in fields.items() if is_positional(item)]
    name: str | None = None
    for argument in arguments:
        if re.match(r"--?(?!(inf|infinity|nan)$)[a-z]", argument, re.IGNORECASE):
            flag, is_joined, value = argument.partition("=")
            name = _field_of(flag, fields)
            if name is None:
                loose.append(argument)
            else:
                given[name] = [value] if is_joined else []
            continue
        if name is None or len(given[name]) >= _most_values(fields[name]):
            name = next((each for each in positional if each not in given), None)
        if name is None:
            loose.append(argument)
        else:
            given.setdefault(name, []).append(argument)
    return given, loose


def _field_of(flag: str, fields: Fields) -> str | None:
    name = flag.removeprefix("--").replace("-", "_")
    return next((each for each in (name, name.removeprefix("no_")) if each in fields), None)


def _kind(item: dataclasses.Field) -> Any:
    """The type of a value that is not None."""
    kind = get_args(item.type)[0] if is_positional(item) else item.type
    others = [each for each in get_args(kind) if each is not NoneType]
    return others[0] if NoneType in get_args(kind) else kind


def _most_values(item: dataclasses.Field) -> float:
    kind = _kind(item)
    return 0 if kind is bool else float("inf") if get_origin(kind) is tuple else 1


def _wrong_values(item: dataclasses.Field, values: Sequence[str]) -> Iterator[InputError]:
    kind, flag = _kind(item), _flag(item.name)
    if kind is bool:
        for value in values:
            yield InputError(item.name, value, "a flag without a value", f"write {flag} or --no-{flag[2:]}")
    elif get_origin(kind) is tuple:
        kind = get_args(kind)[0]
    elif not values:
        yield InputError(item.name, None, "has no value", f"write one behind {flag}")
    for value in values:
        if not _reads(value, kind, can_be_none=NoneType in get_args(item.type)):
            is_choice = get_origin(kind) is Literal
            problem = "not known" if is_choice else f"not {type_text(kind)}"
            yield InputError(item.name, value, problem, f"use {type_text(kind)}")


def _reads(text: str, kind: Any, *, can_be_none: bool) -> bool:
    """Whether tyro makes a value of that type of a text."""
    if can_be_none and text == "None":
        return True
    if kind in (int, float):
        try:
            kind(text)
        except ValueError:
            return False
    return get_origin(kind) is not Literal or text in map(str, get_args(kind))
