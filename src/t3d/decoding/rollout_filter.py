"""Which of a prompt's samples a rollout keeps."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from t3d.problems.problem import Problem

GradedFilter = Literal["correct", "correct_fewest_steps"]
"""Filters that ask which samples are right."""
RolloutFilter = Literal["none", "likelihood", "fewest_steps", "teacher", GradedFilter]
"""Keep all samples of a prompt; the likeliest; the one of fewest denoising steps; the one that a teacher
finds likeliest of those whose every token it finds likely; all that are right; of those the one of fewest
steps."""
LEAST_LIKELY = 0.1
"""Probability that the teacher gives every token of a sample which filter ``teacher`` keeps."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherScore:
    """How likely a teacher finds an answer, each token behind all before it, at temperature 1."""

    logprob: float
    """Of the whole answer, the stop token included (nats)."""
    least_logprob: float
    """Of its least likely token."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredSample:
    """What filters know of a sample of a prompt."""

    number: int
    """Among the prompt's samples, from 0."""
    mean_logprob: float
    """Of the answer's tokens, the stop token included, each when it was committed: the model's own, at
    temperature 1."""
    num_denoising_steps: int
    """Of the whole response."""
    is_correct: bool | None = None
    """None where nobody asked."""
    teacher: TeacherScore | None = None
    """None where nobody asked, and of an answer that did not end."""


@dataclass(frozen=True, kw_only=True)
class SampleGrader:
    """Says which samples are right."""

    grade: Callable[[Sequence[tuple[Problem, str]]], Sequence[bool]]
    """Of problems with a response each."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What the verdicts depend on besides the problems, JSON-ready."""


def is_graded(rollout_filter: RolloutFilter) -> bool:
    """Whether verdicts decide."""
    return rollout_filter in get_args(GradedFilter)


def kept_samples(samples: Sequence[ScoredSample], rollout_filter: RolloutFilter) -> list[ScoredSample]:
    """Which of one prompt's samples a filter keeps, in their order; none where it finds none good enough.

    Of as few steps the likelier one is kept, of as likely ones the first.
    """
    if is_graded(rollout_filter):
        samples = [sample for sample in samples if sample.is_correct]
    if rollout_filter in ("none", "correct") or not samples:
        return list(samples)
    if rollout_filter == "teacher":
        return _likeliest_to_teacher(samples)
    if rollout_filter == "likelihood":
        return [max(samples, key=lambda sample: (sample.mean_logprob, -sample.number))]
    return [
        min(samples, key=lambda sample: (sample.num_denoising_steps, -sample.mean_logprob, sample.number))
    ]


def _likeliest_to_teacher(samples: Sequence[ScoredSample]) -> list[ScoredSample]:
    """At most one."""
    likely = [
        (sample.teacher.logprob, -sample.number, sample)
        for sample in samples
        if sample.teacher is not None and sample.teacher.least_logprob >= math.log(LEAST_LIKELY)
    ]
    return [max(likely, key=lambda one: one[:2])[2]] if likely else []
