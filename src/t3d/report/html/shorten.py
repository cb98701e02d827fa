"""What keeps a report small: long texts end early, and what matters least is left out first."""

from collections.abc import Sequence
from dataclasses import dataclass

MOST_BYTES = 300_000
LEFT_OUT = "Parts are left out here, so that the page stays small; they are in the run's files."
_MOST_CHARACTERS = 1500
_ORDER = ("samples", "folded", "training", "charts", "tables", "config", "environment")


def clipped(text: str) -> str:
    """A text, or its beginning and how much more there is."""
    left_out = len(text) - _MOST_CHARACTERS
    return text if left_out <= 0 else f"{text[:_MOST_CHARACTERS]} … ({left_out:,} more characters)"


@dataclass(frozen=True)
class Part:
    """A piece of a page."""

    kind: str
    html: str


def without(parts: Sequence[Part], excess: int) -> list[Part]:
    """Parts whose page has at least so many bytes less, as far as there are some.

    Fewer answers, then without the last of the folded tables, curves, plots and tables, then of the settings.
    """
    left = dict(enumerate(parts))
    for kind in _ORDER:
        of_kind = [index for index, part in enumerate(parts) if part.kind == kind]
        while excess > 0 and of_kind:
            num_kept = len(of_kind) // 2 if kind == "samples" else len(of_kind) - 1
            excess -= sum(len(left.pop(index).html.encode()) for index in of_kind[num_kept:])
            del of_kind[num_kept:]
    return list(left.values())
