"""A plan: all that finished work depends on, JSON-ready. Work is the same where its plans are.

Comparison is strict: a field that only one of two plans has is a difference. Where a field was added after
work had been kept, it is named by the comparer (``added_later``), whose work without it counts as of the
default that the field has now. Where an object holds parts that do not depend on each other, the comparer
may say so (``may_grow``): work of fewer parts is then a beginning of the same work, but no part may go.
"""

import hashlib
import json
import logging
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from t3d.errors import InputError
from t3d.work.versions import versions

_VERSIONS_OF_NUMBERS = ("t3d", "torch", "transformers")
CHECKSUM = "checksum"
"""Field of a record that has the checksum of the others."""
_MAX_SHOWN = 4
"""Differences that an error names."""
_FIX = "delete it to make it again, or use another output"
_LONGEST, _CUT = 40, 12
"""Characters of a value that an error shows whole, and of the part of a longer one."""

_logger = logging.getLogger(__name__)


def full_plan(plan: Mapping[str, Any]) -> dict[str, Any]:
    """The plan as it is read back from JSON, with the versions that numbers depend on."""
    found = versions()
    whole = {**plan, "versions": {name: found[name] for name in _VERSIONS_OF_NUMBERS}}
    return _as_json(whole)


def fingerprint(value: Any) -> str:
    """SHA-256 of a JSON-ready value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes; read again only when its size or time has changed."""
    state = path.stat()
    return _file_sha256(path, state.st_size, state.st_mtime_ns)


@cache
def _file_sha256(path: Path, size: int, time_ns: int) -> str:
    del size, time_ns
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """A record of finished work as JSON holds it, with a checksum of its content, which tells damage."""
    whole = _as_json(content)
    return {**whole, CHECKSUM: fingerprint(whole)}


def is_whole(record: Mapping[str, Any]) -> bool:
    """Whether a record is as :func:`sealed` made it; one of an earlier version, without checksum, passes."""
    content = {name: value for name, value in record.items() if name != CHECKSUM}
    return CHECKSUM not in record or record[CHECKSUM] == fingerprint(content)


def differences(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    *,
    added_later: Collection[str] = (),
    may_grow: Collection[str] = (),
) -> list[str]:
    """Where two plans differ: ``decode.temperature was 0.1, now 0.2``.

    ``added_later`` holds last parts of names (``temperature``) that an older plan may lack, ``may_grow``
    names of objects (``settings``) of which the older plan may lack entries.
    """
    plans = _as_json(before), _as_json(now)
    gone = [line for field in may_grow for line in _reduce_to_shared(field, *plans)]
    old, new = map(_leaves, plans)
    return gone + [
        "{} was {}, now {}".format(name, *_short(old.get(name), new.get(name)))
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name) and not (name not in old and name.rpartition(".")[2] in added_later)
    ]


def is_part(before: Mapping[str, Any], now: Mapping[str, Any], may_grow: Collection[str]) -> bool:
    """Whether the work of ``now`` is that of ``before`` and, by what these objects have gained, more."""
    return not differences(before, now, may_grow=may_grow) and bool(differences(before, now))


def _reduce_to_shared(field: str, old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Leave in an object of two plans the entries that both have; name those that only the old one had."""
    match old.get(field), new.get(field):
        case dict() as before, dict() as now:
            old[field], new[field] = (
                {name: entries[name] for name in before if name in now} for entries in (before, now)
            )
            return [f"{field}.{name} was given, now not given" for name in sorted(before.keys() - now)]
    return []


def described(found: list[str]) -> str:
    """The first few differences and how many more there are, for an error."""
    more = len(found) - _MAX_SHOWN
    return "; ".join([*found[:_MAX_SHOWN], *([f"and {more} more"] if more > 0 else [])])


def take_finished(
    output: str | Path,
    before: Mapping[str, Any] | None,
    plan: Mapping[str, Any],
    *,
    may_grow: Collection[str] = (),
) -> bool:
    """Whether a finished output is all of this plan's work; if so, say that it is taken as it is.

    ``before`` is the full plan it holds, None without one. Raises InputError if it was made by another plan
    than ``plan``: nothing finished is overwritten. False only where ``may_grow`` lets it be a part.
    """
    before = check_same(output, before, plan, may_grow=may_grow)
    if is_part(before, full_plan(plan), may_grow):
        return False
    tell_finished(output)
    return True


def check_same(
    output: str | Path,
    before: Mapping[str, Any] | None,
    plan: Mapping[str, Any],
    *,
    may_grow: Collection[str] = (),
) -> Mapping[str, Any]:
    """The full plan of a finished output. Raises InputError as :func:`take_finished` does."""
    if before is None:
        raise of_unknown_origin(output)
    if found := differences(before, full_plan(plan), may_grow=may_grow):
        problem = f"is the finished work of another run: {described(found)}"
        again = f"give what it was made with ({' and '.join(may_grow)} may be added), " if may_grow else ""
        raise InputError("output", str(output), problem, again + _FIX)
    return before


def tell_finished(output: str | Path) -> None:
    """Say that a finished output is taken as it is."""
    _logger.warning("%s was finished before by the same command; delete it to make it again", output)


def of_unknown_origin(output: str | Path) -> InputError:
    """The refusal of what stands where an output is to be, and may be somebody else's."""
    problem, fix = "exists, and nothing in it tells how it was made", "use another output, or move it away"
    return InputError("output", str(output), problem, fix)


def _as_json(plan: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(dict(plan), default=str))


def _leaves(plan: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for name, value in plan.items():
        leaves |= (
            _leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
        )
    return leaves


def _short(before: Any, now: Any) -> tuple[str, str]:
    """Two different values; where they are long, a part that begins shortly before the difference."""
    texts = _told(before), _told(now)
    num_equal = next(
        (index for index, (one, other) in enumerate(zip(*texts, strict=False)) if one != other),
        min(map(len, texts)),
    )
    first = 0 if num_equal < _CUT else num_equal - _CUT // 2
    old, new = (
        text if len(text) <= _LONGEST else f"{'...' if first else ''}{text[first : first + _CUT]}..."
        for text in texts
    )
    return old, new


def _told(value: Any) -> str:
    """A value as an error names it; nothing, or None, is what a setting is that nobody gave."""
    return "not given" if value is None else str(value)
