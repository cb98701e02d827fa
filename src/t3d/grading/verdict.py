"""What a grader says of one response."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What a grader says of one response.

    ``extracted`` is the answer that was found, or None; ``grader`` names the one that compared it;
    ``others`` holds verdicts by other rules, by name.
    """

    correct: bool
    extracted: str | None
    reason: str
    grader: str = ""
    others: Mapping[str, bool] = field(default_factory=dict)
