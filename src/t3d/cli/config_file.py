"""``--config FILE``: a YAML file whose keys are a command's flags; flags on the line override it.

A recipe is such a file with a section for each of several commands.
"""

import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from t3d.errors import InputError, require_file
from t3d.field_types import read_file_value
from t3d.work.files import check_output_file, write_text
from t3d.work.lock import locked

UNWRITTEN = {"is_written": False}
"""Metadata of fields that say who does the work: files that tell how something was made leave them out."""

_ALSO_SAYS = {
    "--tokens-per-step": ("--steps-per-block",),
    "--steps-per-block": ("--tokens-per-step",),
    "--rollout-settings": ("--block-size", "--steps-per-block", "--tokens-per-step"),
}
"""By flag: others, of one value each, that are left out of a file where the line has it."""


def flat_fields(command: Any) -> dict[str, dataclasses.Field]:
    """The command's flags by name; nested dataclasses are flattened as on the command line."""
    fields: dict[str, dataclasses.Field] = {}
    for item in dataclasses.fields(command):
        nested = item.default_factory if isinstance(item.default_factory, type) else None
        if nested is not None and dataclasses.is_dataclass(nested):
            fields |= flat_fields(nested)
        else:
            fields[item.name] = item
    return fields


def resolved_config(command: Any) -> dict[str, Any]:
    """A command's settings, flattened, as plain YAML values; without those that are :data:`UNWRITTEN`."""
    values: dict[str, Any] = {}
    for item in dataclasses.fields(command):
        if item.metadata == UNWRITTEN:
            continue
        value = getattr(command, item.name)
        if dataclasses.is_dataclass(value):
            values |= resolved_config(value)
        else:
            values[item.name] = list(value) if isinstance(value, tuple) else value
    return values


def check_config(command: Any, path: str | Path, *inputs: str | Path | None) -> None:
    """Find out before the work whether :func:`write_config` may write there.

    Raises InputError for an input, a folder, and a file that somebody else or another command wrote: one that
    names anything but flags of this command, or that is not in the form in which a command writes its flags.
    """
    check_output_file(path, *inputs, is_own=partial(_is_config_of, command))


def _is_config_of(command: Any, path: Path) -> bool:
    try:
        found = _read_mapping(str(path))
    except InputError:
        return False
    unknown = [str(key) for key in found if key not in flat_fields(command)]
    if unknown:
        problem = f"exists, and is of something else: t3d {_words(type(command))} has no {unknown[0]}"
        raise InputError("output", str(path), problem, "move it, or use another output")
    return "output" in found and path.read_bytes() == yaml.safe_dump(dict(found), sort_keys=False).encode()


def write_config(command: Any, path: str | Path) -> None:
    """Write the resolved settings so that ``--config`` runs the command again.

    A file that says so already stays, also where nothing can be written. Several processes may write it at
    once, such as shards of what is finished.
    """
    path, text = Path(path), yaml.safe_dump(resolved_config(command), sort_keys=False)
    if not _says(path, text):
        with locked(path, wait=True):
            if not _says(path, text):
                write_text(path, text)


def _says(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode()


def flags_of(command: Any) -> list[str]:
    """A command's settings as the flags that give them again."""
    settings = resolved_config(command)
    return [flag for name, value in settings.items() for flag in _flags("", name, value)]


def without_replaced(flags: Sequence[str], line: Sequence[str]) -> list[str]:
    """A file's flags without those for which the line has another that says the same."""
    given = {argument.partition("=")[0] for argument in line}
    replaced = {name for flag, names in _ALSO_SAYS.items() if flag in given for name in names}
    return [flag for flag in flags if flag.partition("=")[0] not in replaced]


def flags_from_file(path: str, command: Any) -> list[str]:
    """Command-line flags for the keys of a YAML file, or of the command's section of a recipe.

    Raises InputError for a missing or malformed file, an unknown key, or a value that is no scalar
    and no list, and for a recipe without a section for the command.
    """
    mapping = _read_mapping(path)
    sections = _sections(path, mapping)
    return flags_of_section(path, sections, command) if sections else _flags_of(path, mapping, command)


def flags_of_section(path: str, sections: Mapping[str, Mapping[str, Any]], command: Any) -> list[str]:
    """The same for a recipe's sections, as :func:`stages_of` gives them."""
    name = _words(command)
    if name not in sections:
        problem = f"a recipe of {', '.join(sections)}, without {name}"
        raise InputError("config", path, problem, f"write '{name}:' with its flags below")
    return _flags_of(f"{path}, section {name}", sections[name], command)


def stages_of(path: str) -> dict[str, Mapping[str, Any]]:
    """The sections of a recipe: a file of several commands, each with its flags; none of one command's.

    Raises InputError for a missing or malformed file, and for one that mixes sections and flags.
    """
    return _sections(path, _read_mapping(path))


def _sections(path: str, found: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    sections = {str(name): value for name, value in found.items() if isinstance(value, Mapping)}
    if sections and len(sections) < len(found):
        flag = next(name for name, value in found.items() if not isinstance(value, Mapping))
        fix = f"write it below a section, such as {next(iter(sections))}"
        raise InputError("config", flag, f"beside sections, in {path}", fix)
    return sections


def _flags_of(where: str, mapping: Mapping[str, Any], command: Any) -> list[str]:
    fields = flat_fields(command)
    flags: list[str] = []
    for key, value in mapping.items():
        if key not in fields:
            close = difflib.get_close_matches(str(key), fields, n=1)
            fix = f"did you mean {close[0]!r}" if close else f"use one of {', '.join(fields)}"
            raise InputError("config", key, f"unknown key in {where}", fix)
        flags += _flags(where, key, value)
    return flags


def _words(command: Any) -> str:
    """``data prompts`` of DataPrompts."""
    return " ".join(re.findall("[A-Z][a-z]+", command.__name__)).lower()


def _read_mapping(path: str) -> Mapping[str, Any]:
    require_file("config", path, "give a YAML file")
    try:
        mapping = read_file_value(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError) as error:  # the second: not UTF-8, or a number of 5,000 digits
        first_lines = " ".join(str(error).split())[:200]
        fix = "write one 'key: value' per line"
        raise InputError("config", path, f"not YAML ({first_lines})", fix) from error
    if not isinstance(mapping, Mapping | None):
        raise InputError("config", path, "not a mapping", "write one 'key: value' per line")
    return mapping or {}


def _flags(path: str, key: str, value: Any) -> Sequence[str]:
    flag = "--" + key.replace("_", "-")
    if value is None:
        return []
    if isinstance(value, bool):
        return [flag if value else "--no-" + flag.removeprefix("--")]
    if isinstance(value, list):
        return [flag, *map(str, value)]
    if isinstance(value, (str, int, float)):
        return [f"{flag}={value}"]
    fix = "use a number, a text, true, false or a list"
    raise InputError(key, value, f"not a plain value in {path}", fix)
