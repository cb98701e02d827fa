"""Values read from text, made to fit the type of a setting's field."""

import dataclasses
import json
import re
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import ConfigDict, TypeAdapter

_TEXTS: dict[Any, str] = {
    float: "a number",
    int: "a whole number",
    bool: "true or false",
    str: "a text",
    NoneType: "null",
    dict: "a mapping",
}


class _StrictLoader(yaml.SafeLoader):
    """YAML 1.1 without a key that stands twice, of which it would keep the last, and without whole numbers
    such as 010, which would be 8."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As YAML does, each key once."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value} stands twice", problem_mark=key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """As YAML does, without octal numbers that look decimal."""
        text = str(node.value)
        if re.fullmatch(r"[-+]?0[0-9_]+", text):
            problem = f"{text} begins with 0, which YAML reads in base 8"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return super().construct_yaml_int(node)


_StrictLoader.add_constructor("tag:yaml.org,2002:int", _StrictLoader.construct_yaml_int)


class _Loader(_StrictLoader):
    """And the numbers that YAML 1.1 takes for texts, such as 1e-05 and 1.5e3."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def read_value(text: str) -> Any:
    """The value of a YAML text. Raises yaml.YAMLError, and ValueError for a number of too many digits."""
    return yaml.load(text, _Loader)


def read_file_value(text: str) -> Any:
    """The value of a YAML file; numbers in 1e5's form stay the text that a flag has. Raises as read_value."""
    return yaml.load(text, _StrictLoader)


def fit(value: Any, kind: Any) -> Any:
    """The value as one of that type: whole numbers as floats, lists as tuples, and nothing else is changed.

    Raises ValueError for a value that is none, and for numbers that are not finite.
    """
    try:
        text = json.dumps(value)
    except TypeError as error:  # YAML knows dates
        raise ValueError(f"{value!r} does not fit") from error
    found = _adapter(kind).validate_json(text)  # JSON's strict rules, unlike Python's, know lists as tuples
    if dataclasses.is_dataclass(found):  # made of a mapping, whose unknown keys are lost
        raise ValueError(f"{value!r} does not fit")
    return found


@cache
def _adapter(kind: Any) -> TypeAdapter:
    return TypeAdapter(
        kind, config=ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)
    )


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
