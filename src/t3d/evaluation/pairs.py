"""Which cells and lines of two evaluations belong together."""

import re
from collections.abc import Sequence

from t3d.errors import InputError
from t3d.evaluation.samples import GradedSamples, Key
from t3d.work.kept import Row

Pair = tuple[Row, Row]
DATA_FIELDS = ("question", "answer", "reference")
"""Fields that two answers to the same problem have in common."""
_SHOWN = 3
"""Ids that an error names."""


def check_sources(first: GradedSamples, second: GradedSamples) -> None:
    """Raise InputError for a cell of ``t3d reproduce`` and one of other problems, or lines that have ids."""
    ours, theirs = first.source, second.source
    if (ours is None) != (theirs is None):
        cell, other = (second, first) if ours is None else (first, second)
        problem = f"a cell numbers its problems, and {other.path} names them by id"
        raise InputError("evaluations", cell.path, problem, "compare cells with cells")
    for name, value in (ours or {}).items():
        if theirs is not None and name in theirs and theirs[name] != value:
            problem = f"{name} is {theirs[name]!r}, but {value!r} in {first.path}, so the problems differ"
            raise InputError("evaluations", second.path, problem, f"compare cells of the same {name}")


def match_cells(
    first: GradedSamples, second: GradedSamples, settings: Sequence[tuple[str, str]]
) -> list[tuple[Key, Key]]:
    """Cells of the same task and of matched settings, in the order of the first evaluation's names.

    A name that one side's lines do not give agrees with any. Raises InputError if a setting is unknown, if
    nothing matches, or if a cell without names matches several.
    """
    for index, evaluation in enumerate((first, second)):
        known = {key.setting for key in evaluation.cells}
        for pair in settings:
            if pair[index] not in known and None not in known:
                name, fix = (
                    ("setting_a", "setting_b")[index],
                    f"{evaluation.path} has {evaluation.describe()}",
                )
                raise InputError(name, pair[index], "no such setting", fix)
    matches = [
        (key, other)
        for key in sorted(first.cells, key=lambda names: natural_order(str(names)))
        for other in sorted(second.cells, key=lambda names: natural_order(str(names)))
        if _agree(key.task, other.task)
        if (
            any(_agree(key.setting, a) and _agree(other.setting, b) for a, b in settings)
            if settings
            else _agree(key.setting, other.setting)
        )
    ]
    for side, evaluation in enumerate((first, second)):
        keys = [match[side] for match in matches]
        unnamed = [key for key in keys if None in key and keys.count(key) > 1]
        if unnamed:
            problem = f"the lines of {evaluation.path} do not name their task and setting, and several match"
            fix = "choose one with setting_a and setting_b, or compare with a file of one task"
            raise InputError("evaluations", str(unnamed[0]), problem, fix)
    if not matches:
        problem = f"has {first.describe()}, but {second.path} has {second.describe()}"
        fix = "set setting_a and setting_b to compare different settings of one task"
        raise InputError("evaluations", first.path, problem, fix)
    return matches


def _agree(first: str | None, second: str | None) -> bool:
    return None in (first, second) or first == second


def pair_rows(
    first: GradedSamples, second: GradedSamples, key_a: Key, key_b: Key, *, common_only: bool
) -> tuple[list[Pair], dict[str, int]]:
    """The lines of both with the same id, by id, and how many ids only one has.

    Raises InputError if ids differ and not ``common_only``, if none is common, or if the data differ.
    """
    rows_a, rows_b = first.cells[key_a], second.cells[key_b]
    only_a, only_b = (
        sorted(set(x) - set(y), key=natural_order) for x, y in ((rows_a, rows_b), (rows_b, rows_a))
    )
    common = sorted(set(rows_a) & set(rows_b), key=natural_order)
    if (only_a or only_b) and not (common and common_only):
        counts = [
            f"{len(ids)} ids are only in {each.path}{_some(ids)}"
            for each, ids in ((first, only_a), (second, only_b))
        ]
        fix = "evaluate both on the same split, limit, problem_seed and samples_per_prompt"
        fix += ", or set common_only" if common else ""
        problem = f"{'; '.join(counts)}; {len(common)} are in both"
        raise InputError("id", str(key_a), problem, fix)
    pairs = [(rows_a[identity], rows_b[identity]) for identity in common]
    for pair in pairs:
        _check_same_data(pair, first.path, second.path)
    return pairs, {"left_out_a": len(only_a), "left_out_b": len(only_b)}


def _some(ids: Sequence[str]) -> str:
    if not ids:
        return ""
    return f" ({', '.join(ids[:_SHOWN])}{', ...' if len(ids) > _SHOWN else ''})"


def _check_same_data(pair: Pair, *paths: str) -> None:
    for name in DATA_FIELDS:
        found = [row.get(name) for row in pair]
        if None not in found and found[0] != found[1]:
            shown = " but ".join(
                f"{shorten(str(value), 60)!r} in {path}" for value, path in zip(found, paths, strict=True)
            )
            fix = "evaluate both on the same data"
            raise InputError("id", pair[0]["id"], f"its {name} is {shown}", fix)


def natural_order(text: str) -> list[str | int]:
    """Sort key by which ``p/9`` comes before ``p/10``."""
    parts = re.split(r"([0-9]{1,18})", text)
    return [int(part) if index % 2 else part for index, part in enumerate(parts)]


def shorten(text: str, length: int) -> str:
    """One printable line: the beginning and, because answers stand there, more of the end."""
    line = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in " ".join(text.split()))
    return line if len(line) <= length else f"{line[: length // 3]} ... {line[-(length - length // 3) :]}"
