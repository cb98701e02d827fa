"""A question, its gold answer, its worked solution."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One question.

    ``id`` is unique in its set and keys every output; ``answer`` is the gold answer, or None where
    there is nothing to grade; ``task`` names the family of the question; ``solution`` is a worked answer to
    learn from (supervised fine-tuning); ``prefix`` is the opening of the answer that the released code's
    prompts for functions give, None for the usual one.
    """

    id: str
    question: str
    task: str = ""
    answer: str | None = None
    solution: str | None = None
    prefix: str | None = None
