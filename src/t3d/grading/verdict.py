"""What a grader says of one response."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

OTHER_RULES = ("strict-match", "flexible-extract")
"""Rules whose verdicts stand beside the first: lm-evaluation-harness's two for GSM8K."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What a grader says of one response.

    ``extracted`` is the answer that was found, or None; ``grader`` names the one that compared it;
    ``others`` holds verdicts by OTHER_RULES, by name.
    """

    correct: bool
    extracted: str | None
    reason: str
    grader: str = ""
    others: Mapping[str, bool] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """The verdict as fields of a row, JSON-ready; VERDICT_FIELDS are the possible ones."""
        row = {"correct": self.correct, "extracted": self.extracted, "reason": self.reason}
        return {**row, **self.others, **({"grader": self.grader} if self.grader else {})}


VERDICT_FIELDS = ("correct", "extracted", "reason", "grader", *OTHER_RULES)
