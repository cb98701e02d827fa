"""Decode a task's problems, grade them, measure the cost; results and samples as files."""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from t3d.atomic import write_text
from t3d.data.prompts import Problem, decode_requests
from t3d.decoding.completion import Completion, DecodeRequest
from t3d.decoding.params import DecodeParams
from t3d.errors import InputError, require_unique_ids
from t3d.evaluation.metrics import CostCounts, count_cost, wilson_interval
from t3d.evaluation.task import Task
from t3d.llm import LLM
from t3d.models.loading import LoadedModel
from t3d.progress import Progress
from t3d.versions import versions


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One graded response."""

    id: str
    task: str
    question: str
    answer: str | None
    response: str
    correct: bool
    num_tokens: int
    num_denoising_steps: int
    num_forwards: int
    finish_reason: str


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
        """The result without its samples, JSON-ready; accuracies in percent."""
        # Answers to one prompt are not independent: the interval counts prompts, not samples.
        low, high = wilson_interval(self.accuracy * self.num_prompts, self.num_prompts)
        return {
            "task": self.task,
            "accuracy": 100 * self.accuracy,
            "ci95": [100 * low, 100 * high],
            "n": self.num_samples,
            "distinct_answers_per_prompt": self.distinct_answers_per_prompt,
            **self.cost,
            "decode_params": asdict(self.params),
        }


@dataclass(frozen=True, kw_only=True)
class GradedChunk:
    """Some requests of an evaluation, decoded and graded, and what that took."""

    samples: tuple[Sample, ...]
    counts: CostCounts


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

    :func:`~t3d.evaluation.chunks.evaluate_to_folder` does the same and survives a kill. Raises
    InputError if there is no problem, if one cannot be graded, or if two share an id.
    """
    requests = evaluation_requests(loaded, task, problems, samples_per_prompt)
    with Progress(label, len(requests)) as progress:
        graded = decode_and_grade(loaded, task, requests, params, batch_size=batch_size, progress=progress)
    return combine(task, params, requests, [graded])


def evaluation_requests(
    loaded: LoadedModel, task: Task, problems: Sequence[Problem], samples_per_prompt: int
) -> list[tuple[Problem, DecodeRequest]]:
    """Every problem as often as it is to be answered, each time with its request.

    Raises InputError if there is no problem, if one cannot be graded, or if two share an id.
    """
    if not problems:
        raise InputError("limit", 0, f"no problem of {task.name!r} to evaluate", "use a limit of 1 or more")
    require_unique_ids((problem.id for problem in problems), "problems")
    for problem in problems:
        task.check(problem)
    return [
        (
            problem,
            request
            if samples_per_prompt == 1
            else DecodeRequest(id=f"{request.id}#{draw}", prompt_ids=request.prompt_ids),
        )
        for problem, request in zip(problems, decode_requests(loaded.tokenizer, problems), strict=True)
        for draw in range(samples_per_prompt)
    ]


def decode_and_grade(
    loaded: LoadedModel,
    task: Task,
    requests: Sequence[tuple[Problem, DecodeRequest]],
    params: DecodeParams,
    *,
    batch_size: int,
    progress: Progress,
) -> GradedChunk:
    """Decode these requests and grade the responses."""
    started = time.perf_counter()
    completions = LLM(loaded, max_batch_size=batch_size).decode(
        [request for _, request in requests], params, on_finish=lambda _: progress.advance()
    )
    counts = count_cost(completions, time.perf_counter() - started)
    pairs = zip(requests, completions, strict=True)
    samples = tuple(_grade(task, problem, completion) for (problem, _), completion in pairs)
    return GradedChunk(samples=samples, counts=counts)


def combine(
    task: Task,
    params: DecodeParams,
    requests: Sequence[tuple[Problem, DecodeRequest]],
    chunks: Sequence[GradedChunk],
) -> EvalResult:
    """The result of an evaluation from all its chunks, in the order of its requests."""
    samples = tuple(sample for chunk in chunks for sample in chunk.samples)
    ids = [problem.id for problem, _ in requests]
    num_prompts = len(set(ids))
    answers = {(identity, sample.response) for identity, sample in zip(ids, samples, strict=True)}
    counts = [chunk.counts for chunk in chunks]
    return EvalResult(
        task=task.name,
        params=params,
        num_correct=sum(sample.correct for sample in samples),
        num_samples=len(samples),
        num_prompts=num_prompts,
        distinct_answers_per_prompt=len(answers) / num_prompts,
        cost=sum(counts[1:], start=counts[0]).cost(),
        samples=samples,
    )


def _grade(task: Task, problem: Problem, completion: Completion) -> Sample:
    return Sample(
        id=completion.id,
        task=task.name,
        question=problem.question,
        answer=problem.answer,
        response=completion.text,
        correct=task.grade(problem, completion.text),
        num_tokens=completion.visible_length,
        num_denoising_steps=completion.num_denoising_steps,
        num_forwards=completion.num_forwards,
        finish_reason=completion.finish_reason,
    )


def write_results(folder: str | Path, results: Sequence[EvalResult], config: Mapping[str, Any]) -> None:
    """Write ``samples.jsonl`` and then ``results.json`` (with config, versions and a config hash)."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps({"setting": index, **asdict(sample)}, ensure_ascii=False)
        for index, result in enumerate(results)
        for sample in result.samples
    ]
    write_text(folder / "samples.jsonl", "\n".join(lines) + "\n")
    resolved = json.dumps(dict(config), sort_keys=True, default=str)
    report = {
        "results": [result.summary() for result in results],
        "config": dict(config),
        "config_hash": hashlib.sha256(resolved.encode()).hexdigest(),
        "versions": versions(),
    }
    write_text(folder / "results.json", json.dumps(report, indent=2, default=str) + "\n")
