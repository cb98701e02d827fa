"""Checked access to the fields of a foreign record; every error names the field and the record."""

import reprlib
from typing import Any

from t3d.errors import InputError

Record = dict[str, Any]
"""One record of a foreign format, as JSON holds it."""


def wrong_kind(name: str, value: object, where: str, expected: str) -> InputError:
    """The error for a value that is not what the format says; ``where`` names the record."""
    return InputError(name, reprlib.repr(value), f"{where}: not {expected}", f"give {expected}")


def required(record: Record, name: str, where: str) -> Any:
    """The value of a key that the format demands."""
    if name not in record:
        keys = ", ".join(record) or "none"
        raise InputError(name, where, f"this key is missing (found: {keys})", "check the input's format")
    return record[name]


def text_field(record: Record, name: str, where: str) -> str:
    """A text."""
    value = required(record, name, where)
    if not is_text(value):
        raise wrong_kind(name, value, where, "a text")
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
    """The record's own ``id``, which t3d writes into every format, or the fallback."""
    return text_field(record, "id", where) if "id" in record else fallback
