"""Several samples of a prompt: how many a rollout draws, and which it keeps of those that were decoded."""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from t3d.decoding.completion import Completion
from t3d.decoding.params import DecodeParams
from t3d.decoding.rollout_filter import (
    RolloutFilter,
    SampleGrader,
    ScoredSample,
    TeacherScore,
    is_graded,
    kept_samples,
)
from t3d.errors import InputError, require_choices, require_positive
from t3d.problems.problem import Problem
from t3d.work.plan import fingerprint

_AMONG_SEVERAL = ("likelihood", "fewest_steps")
"""Filters that keep the only sample of a prompt whatever it is."""


@runtime_checkable
class SampleScorer(Protocol):
    """Asks a teacher how likely it finds answers (:class:`~t3d.decoding.teacher_scorer.TeacherScorer`)."""

    def check(self, tokenizer: Any, longest: int) -> None:
        """Raise InputError where it cannot read what a model of these tokens writes, at its ``longest``."""

    def settings(self) -> dict[str, Any]:
        """What the scores depend on besides the answers, JSON-ready."""
        ...

    def scores(self, completions: Sequence[Completion]) -> Sequence[TeacherScore | None]:
        """One for each answer; None for one without an end."""
        ...


@dataclass(frozen=True, kw_only=True)
class SampleChoice:
    """How many samples of each prompt a rollout draws, and which of them it keeps.

    A graded filter needs a ``grader``, filter ``teacher`` a ``scorer``. Raises InputError where it has none,
    and for a filter that would choose among one.
    """

    num_samples: int = 1
    rollout_filter: RolloutFilter = "none"
    grader: SampleGrader | None = None
    scorer: SampleScorer | None = None

    def __post_init__(self) -> None:
        require_positive(self, "num_samples")
        require_choices(self)
        if self.num_samples == 1 and self.rollout_filter in _AMONG_SEVERAL:
            problem, fix = "each prompt has one sample, which it keeps", "use num_samples=2 or more"
            raise InputError("rollout_filter", self.rollout_filter, problem, f"{fix}, or leave it out")
        if is_graded(self.rollout_filter) and self.grader is None:
            problem = f"rollout_filter={self.rollout_filter!r} asks which samples are right"
            raise InputError("grader", None, problem, "give a SampleGrader")
        if self.rollout_filter == "teacher" and self.scorer is None:
            problem = "rollout_filter='teacher' asks how likely a teacher finds the samples"
            raise InputError("scorer", None, problem, "give a SampleScorer")

    def check(self, params: DecodeParams) -> None:
        """Raise InputError where several samples of a prompt would all be the same."""
        params.check_samples("num_samples", self.num_samples)

    def check_scorer(self, tokenizer: Any, longest: int) -> None:
        """Raise InputError where the scorer cannot read samples of these tokens, the ``longest`` with its
        prompt."""
        if self.scorer is not None:
            self.scorer.check(tokenizer, longest)

    def of_round(self, params: DecodeParams) -> "SampleChoice":
        """That of a round of several which are decoded in different ways: one sample where all of a prompt
        would be the same."""
        if self.num_samples == 1 or params.samples_differ:
            return self
        wanted = "none" if self.rollout_filter in _AMONG_SEVERAL else self.rollout_filter
        return dataclasses.replace(self, num_samples=1, rollout_filter=wanted)

    def check_kept(self, count: int) -> None:
        """Raise InputError where no sample at all was kept."""
        if count == 0:
            problem = "no sample is right" if is_graded(self.rollout_filter) else "no sample is good enough"
            fix = "raise num_samples or the temperature, or use another filter"
            if self.rollout_filter == "teacher":
                fix = "raise num_samples, and max_new_tokens where answers do not end, or use another filter"
            raise InputError("rollout_filter", self.rollout_filter, problem, fix)

    def plan(self, problems: Sequence[Problem]) -> dict[str, Any]:
        """What the kept records depend on besides what those of one sample a prompt do; empty for these."""
        if self.num_samples == 1 and self.rollout_filter == "none":
            return {}
        plan: dict[str, Any] = {"count": self.num_samples, "filter": self.rollout_filter}
        if self.grader is not None and is_graded(self.rollout_filter):
            answers = fingerprint([problem.answer for problem in problems])
            plan |= {"answers": answers, "grader": dict(self.grader.settings)}
        if self.scorer is not None and self.rollout_filter == "teacher":
            plan["scorer"] = self.scorer.settings()
        return {"samples": plan}

    def problems_of(self, ids: Iterable[str], problems: Sequence[Problem]) -> list[Problem]:
        """The problems that records with these ids answer."""
        by_id = {problem.id: problem for problem in problems}
        return [by_id[name if self.num_samples == 1 else name.rpartition("#")[0]] for name in ids]

    def kept(self, problems: Sequence[Problem], completions: Sequence[Completion]) -> list[Completion]:
        """What the filter keeps of each problem's ``num_samples`` completions, which lie side by side."""
        count, verdicts = self.num_samples, self._verdicts(problems, completions)
        scores = self._scores(completions)
        samples = [
            scored_sample(index % count, *known)
            for index, known in enumerate(zip(completions, verdicts, scores, strict=True))
        ]
        return [
            completions[first + sample.number]
            for first in range(0, len(samples), count)
            for sample in kept_samples(samples[first : first + count], self.rollout_filter)
        ]

    def _verdicts(
        self, problems: Sequence[Problem], completions: Sequence[Completion]
    ) -> Sequence[bool | None]:
        if self.grader is None or not is_graded(self.rollout_filter):
            return [None] * len(completions)
        asked = [problem for problem in problems for _ in range(self.num_samples)]
        texts = [completion.text for completion in completions]
        return self.grader.grade(list(zip(asked, texts, strict=True)))

    def _scores(self, completions: Sequence[Completion]) -> Sequence[TeacherScore | None]:
        if self.scorer is None or self.rollout_filter != "teacher":
            return [None] * len(completions)
        return self.scorer.scores(completions)


ONE_SAMPLE = SampleChoice()
"""The usual rollout."""


def scored_sample(
    number: int, completion: Completion, is_correct: bool | None, teacher: TeacherScore | None = None
) -> ScoredSample:
    """A completion as filters see it."""
    logprobs = completion.logprobs[: completion.visible_length]
    return ScoredSample(
        number=number,
        mean_logprob=sum(logprobs) / len(logprobs),
        num_denoising_steps=completion.num_denoising_steps,
        is_correct=is_correct,
        teacher=teacher,
    )
