"""What a file says that holds some of the records of a whole one, so that nobody takes it for the whole."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

PART = "part"
"""Field of a part's plan that the whole's has not: a part is never taken for the finished whole."""


@dataclass(frozen=True)
class Part:
    """Units ``first``, ``first + 1``, ... of a whole of ``of``: records, or prompts that may have several or
    none."""

    first: int
    of: int
    whole: str = ""
    """SHA-256 of the whole's records, where that was there before its parts."""
    count: int | None = None
    """Units in the part; None: one for each of its records."""


def plan_of_part(plan: Mapping[str, Any] | None, part: Part) -> dict[str, Any]:
    """The plan of a part, by that of the whole; None: the whole has none."""
    return {PART: asdict(part), **(plan or {})}


def part_of(plan: Mapping[str, Any] | None) -> Part | None:
    """Which part a file of this plan holds; None for a whole."""
    match (plan or {}).get(PART):
        case {"first": int() as first, "of": int() as of, "whole": str() as whole, **others}:
            return Part(first, of, whole, others.get("count"))
    return None


def plan_of_whole(plan: Mapping[str, Any]) -> dict[str, Any] | None:
    """The plan of the whole, by that of a part; None: the whole has none."""
    return {name: value for name, value in plan.items() if name != PART} or None
