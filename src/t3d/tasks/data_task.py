"""What all benchmarks share: problems from files of the user's, nothing drawn, and verdicts with reasons."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from t3d.errors import InputError
from t3d.grading.verdict import Verdict
from t3d.problems.files import DataFile, own_folder, read_only_file
from t3d.problems.problem import Problem
from t3d.problems.prompt_styles import PromptKind


class DataTask(ABC):
    """A benchmark in a folder, which may also hold it in one of its own name, or in a file."""

    name: str
    kind: PromptKind
    splits: tuple[str, ...]
    options: tuple[str, ...]
    """Arguments of the constructor that users set, as flags and in lm-eval's metadata."""

    def __init__(self, folder: str | Path | None) -> None:
        self._given = None if folder is None else Path(folder)

    @property
    def folder(self) -> Path:
        """Where the files are. Raises InputError if none was given."""
        if self._given is None:
            raise InputError("data", None, f"{self.name} needs its data", "give the folder that holds them")
        return own_folder(self._given, self.name.partition("-")[0])

    def read_file(self, patterns: Sequence[str], what: str) -> DataFile:
        """The one file of these names, the preferred first. Raises InputError for none, or several."""
        return read_only_file(self.folder, patterns, f"{what} of {self.name}")

    def problems(self, split: str, limit: int | None, seed: int) -> list[Problem]:
        """The first ``limit`` problems of a split, in the order of the file; nothing is drawn."""
        del seed
        if split not in self.splits:
            raise InputError("split", split, f"not a split of {self.name}", f"use {' or '.join(self.splits)}")
        return self.split_problems(split)[:limit]

    @abstractmethod
    def split_problems(self, split: str) -> list[Problem]:
        """All problems of one of the splits."""

    @abstractmethod
    def assess(self, problem: Problem, response: str) -> Verdict:
        """The verdict on a response, with what was found in it and the reason."""

    def grade(self, problem: Problem, response: str) -> bool:
        """Whether the response is right."""
        return self.assess(problem, response).correct

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What verdicts depend on, JSON-ready."""
