"""What keeps a report small: long texts end early, and what matters least is left out first."""

import dataclasses
from collections.abc import Iterator

from t3d.report.html.content import Content

MOST_BYTES = 300_000
_MOST_CHARACTERS = 1500


def clipped(text: str) -> str:
    """A text, or its beginning and how much more there is."""
    left_out = len(text) - _MOST_CHARACTERS
    return text if left_out <= 0 else f"{text[:_MOST_CHARACTERS]} … ({left_out:,} more characters)"


def shortened(content: Content) -> Iterator[Content]:
    """Ever less of a report: fewer answers, then the last of the folded tables, curves, plots and tables."""
    content = dataclasses.replace(content, notes=list(content.notes))
    for kind in ("samples", "folded", "training", "charts", "tables", "config"):
        while (shorter := _without_last(content, kind)) is not None:
            note = "Parts are left out here, so that the page stays small; they are in the run's files."
            content = dataclasses.replace(shorter, notes=list(dict.fromkeys([*shorter.notes, note])))
            yield content


def _without_last(content: Content, kind: str) -> Content | None:
    """Without half of the answers, or without one other part; None: there is none left."""
    if kind == "folded":
        folded = [table for table in content.tables if table.is_folded]
        tables = [table for table in content.tables if not folded or table is not folded[-1]]
        return dataclasses.replace(content, tables=tables) if folded else None
    found = getattr(content, kind)
    if not found:
        return None
    if kind == "config":
        return dataclasses.replace(content, config={})
    return dataclasses.replace(content, **{kind: found[: len(found) // 2 if kind == "samples" else -1]})
