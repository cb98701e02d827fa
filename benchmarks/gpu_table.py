"""The Markdown page of the GPU check, made from its JSON file.

python benchmarks/gpu_table.py runs/gpu_check/gpu_check.json > page.md
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def page(record: Mapping[str, Any], claims: Mapping[str, str]) -> str:
    """The page: what it ran on, one line per part, then the rows of each."""
    about, parts = record["about"], record["parts"]
    facts = ", ".join(f"{name} {_told(value)}" for name, value in about.items())
    lines = ["# GPU check", "", "```sh", "scripts/gpu_check.sh", "```", "", f"{facts}.", ""]
    if about["device"] == "cpu":
        lines += ["**No GPU was used: this says nothing about one.**", ""]
    header = ("part", "what it shows", "result", "seconds")
    table = [
        (name, claims.get(name, ""), _result(part), f"{part['seconds']:.1f}") for name, part in parts.items()
    ]
    lines += [*_table(header, table), ""]
    for name, part in parts.items():
        if part["rows"]:
            lines += [f"## {name}", "", *_table(*_columns(part["rows"])), ""]
    return "\n".join(lines)


def _result(part: Mapping[str, Any]) -> str:
    return f"{part['status']}: {part['reason']}" if part["reason"] else part["status"]


def _columns(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Every field that any row has, in the order of their first appearance."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return names, [[_told(row.get(name)) for name in names] for row in rows]


def _told(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
        case dict():
            return ", ".join(f"{name} {_told(one)}" for name, one in value.items())
        case list() | tuple():
            return ", ".join(map(_told, value))
    return str(value).replace("|", "\\|")


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


if __name__ == "__main__":
    from gpu_check import PARTS

    record = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    print(page(record, {part.name: part.claim for part in PARTS}))
