"""What a report shows, before it is a page: every text is as it was read, and may be anybody's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from t3d.report.points import Line


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A plot of lines."""

    title: str
    lines: Sequence[Line]
    xlabel: str
    ylabel: str = "accuracy (%)"
    has_powers: bool = False
    """The horizontal axis doubles from tick to tick."""
    is_small: bool = False
    """Two stand side by side."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Texts; the first ``num_names`` columns are names, the others numbers."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    num_names: int = 1
    note: str = ""
    is_folded: bool = False
    """Shown when it is asked for."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """An answer and its verdict."""

    source: str
    """Of which evaluation, setting and task."""
    id: str
    question: str
    reference: str
    response: str
    is_right: bool
    reason: str


@dataclass
class Content:
    """All of a report; what a run does not have stays empty."""

    title: str
    finding: str = ""
    """What was found, in one sentence."""
    facts: list[tuple[str, str]] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    training: list[tuple[str, list[Chart]]] = field(default_factory=list)
    """By student the curves of its training."""
    samples: list[Sample] = field(default_factory=list)
    config: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    config_of: str = ""
    """Whose the configuration is, where it is not the run's but one evaluation's of several."""
    environment_of: str = ""
    """The same of the environment."""
    notes: list[str] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing that a report is for."""
        return not (self.charts or self.tables or self.training)
