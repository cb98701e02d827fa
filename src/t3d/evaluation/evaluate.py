"""Decode a task's problems, grade them, measure the cost."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from t3d.decoding.completion import Completion, DecodeRequest
from t3d.decoding.llm import LLM, decode_requests
from t3d.decoding.params import DecodeParams
from t3d.errors import InputError, require_unique_ids
from t3d.evaluation.cost import CostCounts, count_cost
from t3d.evaluation.intervals import wilson_interval
from t3d.grading.math_worker import usable_cores
from t3d.grading.verdict import Verdict
from t3d.models.loading import LoadedModel
from t3d.problems.problem import Problem
from t3d.problems.prompt_styles import PromptKind, PromptStyle
from t3d.tasks.task import ExplainingTask, Task, verdict_of
from t3d.work.progress import Progress

Asked = tuple[Problem, DecodeRequest]
"""A problem and one request for an answer to it."""
RESPONSE_FIELDS = ("id", "response", "num_tokens", "num_denoising_steps", "num_forwards", "finish_reason")
"""What a sample keeps of a completion."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One graded response; ``others`` holds verdicts by other rules, by name."""

    task: str
    id: str
    question: str
    answer: str | None
    response: str
    correct: bool
    extracted: str | None
    reason: str
    others: Mapping[str, bool]
    num_tokens: int
    num_denoising_steps: int
    num_forwards: int
    finish_reason: str

    def row(self) -> dict[str, Any]:
        """The sample as a line of ``samples.jsonl``, verdicts by other rules beside the first."""
        row: dict[str, Any] = {}
        for name, value in asdict(self).items():
            row |= value if name == "others" else {name: value}
        return row


@dataclass(frozen=True, kw_only=True)
class EvalResult:
    """One task under one decoding setting."""

    task: str
    params: DecodeParams
    num_correct: int
    num_samples: int
    num_prompts: int
    distinct_answers_per_prompt: float
    """Mean number of different responses to one prompt; at most the samples drawn for it."""
    cost: dict[str, float]
    samples: tuple[Sample, ...]

    @property
    def accuracy(self) -> float:
        """Share of right responses."""
        return self.num_correct / self.num_samples

    def summary(self) -> dict[str, Any]:
        """The result without its samples, JSON-ready; accuracies in percent.

        ``latency``: seconds of wall time per response, all decoded together. ``num_timeouts`` and
        ``num_unparsed`` are those of grading.
        """
        # Answers to one prompt are not independent: the interval counts prompts, not samples.
        low, high = wilson_interval(self.accuracy * self.num_prompts, self.num_prompts)
        reasons = Counter(sample.reason for sample in self.samples)
        others = self.samples[0].others
        return {
            "task": self.task,
            "accuracy": 100 * self.accuracy,
            "ci95": [100 * low, 100 * high],
            "n": self.num_samples,
            "num_prompts": self.num_prompts,
            **{
                name: 100 * sum(sample.others[name] for sample in self.samples) / self.num_samples
                for name in others
            },
            "distinct_answers_per_prompt": self.distinct_answers_per_prompt,
            **self.cost,
            "latency": self.cost["seconds"] / self.num_samples,
            "finish_reasons": dict(Counter(sample.finish_reason for sample in self.samples).most_common()),
            "reasons": dict(reasons.most_common()),
            "num_timeouts": reasons["time limit"] + reasons["timeout"],
            "num_unparsed": reasons["unparsed"],
            "decode_params": asdict(self.params),
        }


def evaluate(
    loaded: LoadedModel,
    task: Task,
    problems: Sequence[Problem],
    params: DecodeParams,
    *,
    batch_size: int = 256,
    samples_per_prompt: int = 1,
    label: str = "evaluate",
) -> EvalResult:
    """Decode and grade. With ``samples_per_prompt`` > 1 every problem is answered that often.

    Questions are put as they are. :func:`~t3d.evaluation.grid.evaluate_grid` evaluates several tasks and
    settings, in any prompt style, and survives a kill. Raises InputError if there is no problem, if one
    cannot be graded, or if two share an id.
    """
    requests = evaluation_requests(loaded, task, problems, samples_per_prompt)
    with Progress(label, len(requests)) as progress:
        started = time.perf_counter()
        completions = LLM(loaded, max_batch_size=batch_size).decode(
            [request for _, request in requests], params, on_finish=lambda _: progress.advance()
        )
        counts = count_cost(completions, time.perf_counter() - started)
    problems_asked = [problem for problem, _ in requests]
    verdicts = grade_responses(task, list(zip(problems_asked, (c.text for c in completions), strict=True)))
    samples = [
        graded(task, problem, response_fields(completion), verdict)
        for problem, completion, verdict in zip(problems_asked, completions, verdicts, strict=True)
    ]
    return combine(task, params, requests, samples, counts)


def evaluation_requests(
    loaded: LoadedModel,
    task: Task,
    problems: Sequence[Problem],
    samples_per_prompt: int,
    *,
    style: PromptStyle = "plain",
    kind: PromptKind = "math",
) -> list[Asked]:
    """Every problem as often as it is to be answered, each time with its request.

    Raises InputError if there is no problem, if one cannot be graded, if two share an id, or where the style
    has no prompt of that kind.
    """
    if not problems:
        raise InputError("limit", 0, f"no problem of {task.name!r} to evaluate", "use a limit of 1 or more")
    require_unique_ids((problem.id for problem in problems), "problems")
    for problem in problems:
        task.check(problem)
    requests = decode_requests(loaded.tokenizer, problems, style=style, kind=kind)
    return [
        (
            problem,
            request
            if samples_per_prompt == 1
            else DecodeRequest(id=f"{request.id}#{draw}", prompt_ids=request.prompt_ids),
        )
        for problem, request in zip(problems, requests, strict=True)
        for draw in range(samples_per_prompt)
    ]


def grade_responses(task: Task, responses: Sequence[tuple[Problem, str]]) -> Iterator[Verdict]:
    """Verdicts in order; of a task that threads may share, several are made at the same time."""
    if not isinstance(task, ExplainingTask):
        yield from (verdict_of(task, problem, response) for problem, response in responses)
        return
    with ThreadPoolExecutor(min(4, usable_cores())) as pool:
        yield from pool.map(lambda pair: verdict_of(task, *pair), responses)


def response_fields(completion: Completion) -> dict[str, Any]:
    """The fields of RESPONSE_FIELDS."""
    return {
        "id": completion.id,
        "response": completion.text,
        "num_tokens": completion.visible_length,
        "num_denoising_steps": completion.num_denoising_steps,
        "num_forwards": completion.num_forwards,
        "finish_reason": completion.finish_reason,
    }


def graded(task: Task, problem: Problem, response: Mapping[str, Any], verdict: Verdict) -> Sample:
    """The sample of a response, which has the fields of RESPONSE_FIELDS and maybe others."""
    return Sample(
        task=task.name,
        question=problem.question,
        answer=problem.answer,
        correct=verdict.correct,
        extracted=verdict.extracted,
        reason=verdict.reason,
        others=verdict.others,
        **{name: response[name] for name in RESPONSE_FIELDS},
    )


def combine(
    task: Task,
    params: DecodeParams,
    requests: Sequence[Asked],
    samples: Sequence[Sample],
    counts: CostCounts,
) -> EvalResult:
    """The result of an evaluation from its samples, which are in the order of its requests."""
    ids = [problem.id for problem, _ in requests]
    num_prompts = len(set(ids))
    answers = {(identity, sample.response) for identity, sample in zip(ids, samples, strict=True)}
    return EvalResult(
        task=task.name,
        params=params,
        num_correct=sum(sample.correct for sample in samples),
        num_samples=len(samples),
        num_prompts=num_prompts,
        distinct_answers_per_prompt=len(answers) / num_prompts,
        cost=counts.cost(),
        samples=tuple(samples),
    )
