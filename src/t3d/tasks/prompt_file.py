"""Problems that a user wrote: a JSONL file, graded by the last box."""

import re
from functools import cached_property
from pathlib import Path
from typing import Any

from t3d.errors import InputError
from t3d.grading.math import MathGrader
from t3d.grading.math_worker import GraderName
from t3d.grading.verdict import Verdict
from t3d.problems.problem import Problem
from t3d.problems.prompt_file import read_prompt_file

_COMMAND = re.compile(r"\\[A-Za-z]+")
_WORD = re.compile(r"\w*[^\W\d_]\w*[^\W\d_]\w*")
"""Two letters or more, and what is written together with them."""
_NUMBER = re.compile(r"(?<!\w)\d")


class PromptFileTask:
    """Problems of a JSONL file, graded by the last ``\\boxed{}`` against ``answer``, as those of MATH500.

    Answers may also be words. The gold answer's own text is right under every grader; ``math_verify``, to
    which a word is a product of letters (``no`` equals ``on``), is then asked only about the same words.
    Problems can be read, and put to a model, without the grader's packages.
    """

    def __init__(self, path: str | Path, *, grader: GraderName = "math_verify") -> None:
        self.path = Path(path)
        self.name = self.path.stem
        self._grader_name: GraderName = grader

    @cached_property
    def grader(self) -> MathGrader:
        """Raises InputError if its packages are not there."""
        return MathGrader(self._grader_name)

    def problems(self, split: str, limit: int | None, seed: int) -> list[Problem]:
        """The file's first ``limit`` problems; a file has one split and no seed."""
        del split, seed
        return read_prompt_file(self.path)[:limit]

    def check(self, problem: Problem) -> None:
        """Raise InputError without a gold answer, and without the grader's packages."""
        if problem.answer is None:
            fix = f'give the line an "answer" in {self.path}'
            raise InputError(
                "answer", None, f"problem {problem.id!r} has no gold answer to grade against", fix
            )
        _ = self.grader

    def assess(self, problem: Problem, response: str) -> Verdict:
        """The verdict on a response, with the answer that was found and the reason."""
        self.check(problem)
        gold, extracted = str(problem.answer).strip(), self.grader.extract(response)
        if extracted is None:
            return self._verdict(None, "no answer")
        if extracted.strip() == gold:
            return self._verdict(extracted, "equal")
        if self.grader.name == "math_verify" and _is_words(gold) and _words(gold) != _words(extracted):
            return self._verdict(extracted, "different")
        return self.grader.grade(response, gold)

    def _verdict(self, extracted: str | None, reason: str) -> Verdict:
        return Verdict(correct=reason == "equal", extracted=extracted, reason=reason, grader=self.grader.name)

    def grade(self, problem: Problem, response: str) -> bool:
        """Whether the response is right."""
        return self.assess(problem, response).correct

    def settings(self) -> dict[str, Any]:
        """What verdicts depend on, JSON-ready."""
        return {"grader": self.grader.settings()}

    def close(self) -> None:
        """End the grader's workers."""
        self.grader.close()


def _is_words(gold: str) -> bool:
    """Whether a gold answer is plain words: no LaTeX, and no number, which may have a unit (``5 cm``)."""
    return bool(_words(gold)) and "\\" not in gold and _NUMBER.search(gold) is None


def _words(text: str) -> list[str]:
    """The words of an answer in their order, LaTeX commands aside."""
    return _WORD.findall(_COMMAND.sub(" ", text))
