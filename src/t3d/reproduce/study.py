"""A study: students and decoding settings of one's own choice, in groups, as a YAML file.

    title: what it asks
    common: {settings: [B4-T1, B8-T4], learning_rate: 1.2e-3}
    seeds: [0, 1, 2]
    groups:
      - title: few prompts, many epochs
        common: {num_prompts: 160, override: [noise_refresh=once]}
        base: Naive TD
        rows:
          - {name: Naive TD, method: naive_td}
          - {name: T3D, method: t3d, seeds: [0]}

Keys of ``common`` and of a row are those of :class:`~t3d.reproduce.cell_choice.CellChoice`. A row wins over
its group, that over the whole; overrides add up, the later one of a field wins. A row of the teacher itself
(``method: original``) takes of ``common`` what an evaluation takes.
"""

import dataclasses
import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from t3d.errors import InputError, require_file
from t3d.field_types import fit, read_value, type_text
from t3d.reproduce.cell_choice import CellChoice
from t3d.reproduce.recipes import ORIGINAL

_STUDY = ("title", "common", "seeds", "groups")
_OF_EVALUATION = ("settings", "split", "limit", "suite", "data", "teacher", "tasks", "max_new_tokens")
_OF_EVALUATION += ("samples_per_prompt", "device", "batch_size")
_GROUP = ("title", "note", "common", "seeds", "base", "rows")


@dataclass(frozen=True, kw_only=True)
class StudyRow:
    """One student, of one or more seeds."""

    name: str
    choices: Mapping[int, CellChoice]
    """By seed."""

    @property
    def settings(self) -> tuple[str, ...]:
        """Decoding settings, the same for all seeds."""
        return next(iter(self.choices.values())).settings


@dataclass(frozen=True, kw_only=True)
class StudyGroup:
    """Rows of one table."""

    title: str
    rows: tuple[StudyRow, ...]
    note: str = ""
    base: str | None = None
    """Name of the row that the others are compared with, prompt by prompt."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """What a study file asks for."""

    title: str
    groups: tuple[StudyGroup, ...]

    def choices(self) -> Iterator[CellChoice]:
        """Every cell once: seed by seed, so that an unfinished study has all of its first seeds."""
        found = [choice for group in self.groups for row in group.rows for choice in row.choices.values()]
        yield from dict.fromkeys(sorted(found, key=lambda choice: choice.seed))


def read_study(path: str | Path) -> Study:
    """A study from its file. Raises InputError, naming the key, for anything that no study has."""
    path = Path(path)
    require_file("file", path, "give a YAML file")
    try:
        found = read_value(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            "file", str(path), f"cannot be read ({error.strerror})", "give a YAML file"
        ) from error
    except (yaml.YAMLError, ValueError) as error:
        problem = f"not YAML ({' '.join(str(error).split())[:200]})"
        raise InputError("file", str(path), problem, "write title, groups and rows") from error
    whole = _mapping("study", found, _STUDY)
    groups = _items("groups", whole)
    study = Study(
        title=_text("title", whole), groups=tuple(_group(item, whole, number) for number, item in groups)
    )
    titles = [group.title for group in study.groups]
    _require_unique("groups", titles)
    return study


def _group(found: Any, whole: Mapping[str, Any], number: int) -> StudyGroup:
    where = f"groups, item {number}"
    group = _mapping(where, found, _GROUP)
    rows = tuple(_row(item, whole, group, place) for place, item in _items("rows", group))
    _require_unique("rows", [row.name for row in rows])
    base = group.get("base")
    if base is not None and base not in [row.name for row in rows]:
        fix = f"use one of {', '.join(row.name for row in rows)}"
        raise InputError("base", base, f"no row of {where} has this name", fix)
    title, note = _text("title", group), _text("note", group) if "note" in group else ""
    return StudyGroup(title=title, note=note, base=base, rows=rows)


def _row(found: Any, whole: Mapping[str, Any], group: Mapping[str, Any], number: int) -> StudyRow:
    fields = [item.name for item in dataclasses.fields(CellChoice) if item.name != "seed"]
    row = dict(_mapping(f"rows, item {number}", found, ("name", "seeds", *fields)))
    name = _text("name", row)
    of_row = {key: value for key, value in row.items() if key not in ("name", "seeds")}
    seeds: Any = next((layer["seeds"] for layer in (row, group, whole) if "seeds" in layer), [0])
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int for seed in seeds):
        raise InputError("seeds", seeds, "no list of whole numbers", "write for example seeds: [0, 1, 2]")
    _require_unique("seeds", [str(seed) for seed in seeds])
    given: dict[str, Any] = {}
    is_teacher = row.get("method") == ORIGINAL
    for layer in (whole, group, {"common": of_row}):
        common = _mapping("common", layer.get("common", {}), fields)
        if is_teacher and common is not of_row:
            common = {key: value for key, value in common.items() if key in _OF_EVALUATION}
        overrides = [*given.get("override", []), *_overrides(common.get("override"))]
        given |= {**common, "override": overrides}
    kinds = get_type_hints(CellChoice)
    values = {key: _fitting(key, value, kinds[key]) for key, value in given.items()}
    for required in ("method", "settings"):
        if required not in values:
            problem, fix = f"row {name!r} has none", f"write {required}: in the row or in common"
            raise InputError(required, None, problem, fix)
    return StudyRow(name=name, choices={seed: CellChoice(seed=seed, **values) for seed in seeds})


def _fitting(key: str, value: Any, kind: Any) -> Any:
    if key == "override":
        value = list({item.partition("=")[0]: item for item in value}.values())
    try:
        return fit(value, kind)
    except ValueError as error:
        raise InputError(key, value, f"is not {type_text(kind)}", f"write {type_text(kind)}") from error


def _overrides(value: Any) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InputError("override", value, "no list of texts", "write override: [NAME=VALUE, ...]")
    return value


def _mapping(where: str, found: Any, known: Sequence[str]) -> Mapping[str, Any]:
    if not isinstance(found, Mapping):
        raise InputError(where, found, "not a mapping", f"write some of {', '.join(known[:6])}")
    for key in found:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            fix = f"did you mean {close[0]!r}" if close else f"use some of {', '.join(known)}"
            raise InputError(where, key, "unknown key", fix)
    return found


def _items(name: str, owner: Mapping[str, Any]) -> list[tuple[int, Any]]:
    found = owner.get(name)
    if not isinstance(found, list) or not found:
        raise InputError(name, found, "no list with an item", f"write {name}: and an item below")
    return list(enumerate(found, start=1))


def _text(name: str, owner: Mapping[str, Any]) -> str:
    value = owner.get(name)
    if not isinstance(value, str) or not value.strip():
        raise InputError(name, value, "no text", f"write {name}: and a text")
    value = value.strip()
    if name != "note" and len(value.splitlines()) > 1:
        raise InputError(name, value, "more than one line", "write one, as a table has it")
    return value


def _require_unique(field: str, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(field, twice[0], "stands twice", "give each its own name")
