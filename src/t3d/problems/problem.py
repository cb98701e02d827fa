"""A question, its gold answer, its worked solution."""

from dataclasses import dataclass

ROLES = ("system", "user", "assistant")
"""Who speaks in a conversation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One question.

    ``id`` is unique in its set and keys every output; ``answer`` is the gold answer, or None where
    there is nothing to grade; ``task`` names the family of the question; ``solution`` is a worked answer to
    learn from (supervised fine-tuning); ``prefix`` is the opening of the answer that the released code's
    prompts for functions give, None for the usual one; ``turns`` are what was said before the question, each
    with its role, as in a chat.
    """

    id: str
    question: str
    task: str = ""
    answer: str | None = None
    solution: str | None = None
    prefix: str | None = None
    turns: tuple[tuple[str, str], ...] = ()

    @property
    def asked(self) -> tuple[object, ...]:
        """What its prompt depends on, for plans; without turns as it was before there were any."""
        return (self.id, self.question, self.task, self.prefix, *self.turns)

    @property
    def conversation(self) -> str:
        """The question with what was said before it, for readers."""
        if not self.turns:
            return self.question
        return "\n\n".join(f"{role}: {text}" for role, text in (*self.turns, ("user", self.question)))
