"""Checked access to the fields of a foreign record; every error names the field and the record."""

import reprlib
from collections.abc import Sequence
from typing import Any

from t3d.errors import InputError

Record = dict[str, Any]
"""One record of a foreign format, as JSON holds it."""


def wrong_kind(name: str, value: object, where: str, expected: str) -> InputError:
    """The error for a value that is not what the format says; ``where`` names the record."""
    return InputError(name, reprlib.repr(value), f"{where}: not {expected}", f"give {expected}")


def required(record: Record, name: str, where: str) -> Any:
    """The value of a key that the format demands."""
    return record[first_key(record, (name,), where)]


def first_key(record: Record, names: Sequence[str], where: str) -> str:
    """The first of these keys that the record has; the format demands one of them."""
    for name in names:
        if name in record:
            return name
    keys = ", ".join(record) or "none"
    problem = f"this key is missing (found: {keys})"
    raise InputError(", ".join(names), where, problem, "check the input's format")


def text_field(record: Record, name: str, where: str) -> str:
    """A text."""
    value = required(record, name, where)
    if not is_text(value):
        raise wrong_kind(name, value, where, "a text")
    return value


def said_text(record: Record, names: Sequence[str], where: str) -> str:
    """The text, not empty, of the first of these keys that the record has."""
    name = first_key(record, names, where)
    text = text_field(record, name, where)
    if not text.strip():
        raise wrong_kind(name, text, where, "a text that says something")
    return text


def texts(record: Record, name: str, where: str) -> list[str]:
    """A list of texts; empty where it is null."""
    value = required(record, name, where)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise wrong_kind(name, value, where, "a list of texts")
    return value


def is_text(value: object) -> bool:
    """Whether a value is a text without lone surrogates, which JSON can hold and no tokenizer takes."""
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)


def ints(value: object, name: str, where: str) -> tuple[int, ...]:
    """A list of whole numbers that 32 bits hold."""
    is_list = isinstance(value, list)
    if not is_list or not all(type(item) is int and -(2**31) <= item < 2**31 for item in value):
        raise wrong_kind(name, value, where, "a list of whole numbers of 32 bits")
    return tuple(value)


def record_id(record: Record, fallback: str, where: str) -> str:
    """The record's own ``id``, a text or a whole number, or the fallback."""
    if type(record.get("id")) is int:  # as data sets and data frames number their rows
        return str(record["id"])
    return text_field(record, "id", where) if "id" in record else fallback
