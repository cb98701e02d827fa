"""The error for input that a user can correct, and checks that many share."""

import math
import pickle
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from functools import cache
from numbers import Integral, Real
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

MAX_SEED = 2**32 - 1
"""Of the generators that training seeds (numpy's takes 32 bits)."""


class InputError(ValueError):
    """A field has a value that cannot be used. The message names the field, the value and the fix.

    The command line prints it without a traceback and exits with status 2; every other exception is
    a bug and keeps its traceback.
    """

    def __init__(self, field: str, value: object, problem: str, fix: str) -> None:
        self.field, self.value, self.problem, self.fix = field, value, problem, fix
        super().__init__(f"{field}={value!r}: {problem}. Fix: {fix}.")

    def __reduce__(self) -> tuple[Any, ...]:
        """It is the same error in another process, where an exception is otherwise made by its text alone.

        Of a value that cannot go there its ``repr`` goes.
        """
        state = vars(self) | {"value": self.value if _is_picklable(self.value) else repr(self.value)}
        return self.__class__.__new__, (self.__class__, *self.args), state


@contextmanager
def naming(**names: str) -> Generator[None]:
    """Within it, or within a function that it decorates, InputError names fields as the caller gave them.

    ``naming(model="source")``: what is said of a model is said of the source that it was given as.
    """
    try:
        yield
    except InputError as error:
        if error.field not in names:
            raise
        raise InputError(names[error.field], error.value, error.problem, error.fix) from error


def _is_picklable(value: object) -> bool:
    try:
        pickle.dumps(value)
    except (pickle.PicklingError, TypeError, AttributeError):  # a lock, a lambda, a local class
        return False
    return True


def _require(
    settings: object, names: Iterable[str], holds: Callable[[Any], bool], problem: str, fix: str
) -> None:
    for name in names:
        value = getattr(settings, name)
        if not holds(value):
            raise InputError(name, value, problem, fix)


def require_positive(settings: object, *names: str) -> None:
    """Raise :class:`InputError` for the first of these attributes that is a number below 1; None passes."""
    _require(settings, names, lambda v: v is None or v >= 1, "not positive", "use 1 or more")


def is_whole_number(value: object) -> bool:
    """Whether a value is one: 8.0 and True are none, numpy's integers are."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def require_numbers(settings: object, *names: str) -> None:
    """Raise :class:`InputError` for the first of these attributes that is no number; True is none."""
    _require(
        settings,
        names,
        lambda v: isinstance(v, Real) and not isinstance(v, bool),
        "not a number",
        "use for example 0.9",
    )


def require_whole(settings: object, *names: str) -> None:
    """Raise :class:`InputError` for the first of these attributes that is no :func:`is_whole_number`."""
    _require(settings, names, is_whole_number, "not a whole number", "use for example 8")


def require_above_zero(settings: object, *names: str) -> None:
    """Raise :class:`InputError` for the first of these attributes that is no finite number above 0."""
    fix = "use a finite number above 0"
    _require(settings, names, lambda v: _is_finite(v) and v > 0, "not a number above 0", fix)


def require_at_least_zero(settings: object, *names: str) -> None:
    """Raise :class:`InputError` for the first of these attributes that is no finite number of 0 or more."""
    _require(
        settings, names, lambda v: _is_finite(v) and v >= 0, "not a number of 0 or more", "use 0 or more"
    )


def require_below_one(settings: object, *names: str) -> None:
    """Raise :class:`InputError` for the first of these attributes that is no number in [0, 1)."""
    fix = "use 0 or more, and less than 1"
    _require(settings, names, lambda v: _is_finite(v) and 0 <= v < 1, "not in [0, 1)", fix)


def require_seed(settings: object, name: str = "seed") -> None:
    """Raise :class:`InputError` unless this attribute seeds every generator: a whole number of 32 bits."""
    value = getattr(settings, name)
    if not (isinstance(value, Integral) and 0 <= value <= MAX_SEED):
        raise InputError(name, value, f"not a whole number from 0 to {MAX_SEED}", "use for example 0")


def require_choices(settings: object) -> None:
    """Raise :class:`InputError` for the first Literal field (or Literal or None) with another value."""
    for name, choices in _choices(type(settings)).items():
        value = getattr(settings, name)
        if value not in choices:
            known = ", ".join(choice for choice in choices if choice is not None)
            raise InputError(name, value, "not known", f"use one of {known}")


@cache
def _choices(settings: type) -> dict[str, tuple[Any, ...]]:
    """Choices by field, of the fields that have some."""
    found: dict[str, tuple[Any, ...]] = {}
    for name, kind in get_type_hints(settings).items():
        others = [argument for argument in get_args(kind) if argument is not NoneType]
        if get_origin(kind) is Literal:
            found[name] = get_args(kind)
        elif len(others) == 1 and get_origin(others[0]) is Literal:
            found[name] = (*get_args(others[0]), None)
    return found


def _is_finite(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def require_file(field: str, path: str | Path, fix: str) -> None:
    """Raise :class:`InputError` unless there is a file of this name."""
    if not Path(path).is_file():
        raise InputError(field, str(path), "is a folder" if Path(path).is_dir() else "no such file", fix)


def require_once(field: str, values: Sequence[str]) -> None:
    """Raise :class:`InputError` for the first value that is there twice."""
    for value in values:
        if values.count(value) > 1:
            raise InputError(field, value, "given twice", "give each once")


def require_unique_ids(ids: Iterable[str], owners: str) -> None:
    """Raise :class:`InputError` for the first id that two of the ``owners`` (requests, ...) share."""
    seen: set[str] = set()
    for identity in ids:
        if identity in seen:
            raise InputError("id", identity, f"used by two {owners}", "give each its own id")
        seen.add(identity)
