"""What evaluation and rollouts need to know of a task, and tasks read from files."""

from pathlib import Path
from typing import Protocol, runtime_checkable

from t3d.data.prompts import Problem, read_prompt_file
from t3d.errors import InputError
from t3d.mini.boxed import last_boxed


@runtime_checkable
class Task(Protocol):
    """Problems and a verifier."""

    @property
    def name(self) -> str:
        """Key of the task in result files."""
        ...

    def problems(self, split: str, limit: int | None, seed: int) -> list[Problem]:
        """At most ``limit`` problems of a split, the same for the same seed."""
        ...

    def check(self, problem: Problem) -> None:
        """Raise InputError if the problem cannot be graded; called before anything is decoded."""
        ...

    def grade(self, problem: Problem, response: str) -> bool:
        """Whether the response is right."""
        ...


class PromptFileTask:
    """Problems of a JSONL file, graded by the last ``\\boxed{}`` against ``answer``."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.name = self.path.stem

    def problems(self, split: str, limit: int | None, seed: int) -> list[Problem]:
        """The file's first ``limit`` problems; a file has one split and no seed."""
        del split, seed
        return read_prompt_file(self.path)[:limit]

    def check(self, problem: Problem) -> None:
        """Raise InputError without a gold answer."""
        if problem.answer is None:
            fix = f'give the line an "answer" in {self.path}'
            raise InputError(
                "answer", None, f"problem {problem.id!r} has no gold answer to grade against", fix
            )

    def grade(self, problem: Problem, response: str) -> bool:
        """True if the boxed answer equals the gold answer as text."""
        return problem.answer is not None and last_boxed(response) == problem.answer.strip()
