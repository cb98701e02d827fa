"""Which problems can be rolled out: those that fit, and of them those that do not make the model raise."""

import dataclasses
from collections.abc import Sequence
from itertools import compress

from t3d.decoding.completion import Completion, is_too_long
from t3d.decoding.failing import decode_without_failing
from t3d.decoding.llm import LLM
from t3d.decoding.params import BATCH_SIZE, DecodeParams
from t3d.decoding.posed_requests import decode_requests
from t3d.decoding.sample_choice import ONE_SAMPLE, SampleChoice
from t3d.models.loading import LoadedModel
from t3d.problems.problem import Problem
from t3d.problems.prompt_styles import PromptKind, PromptStyle
from t3d.trajectory import Trajectory
from t3d.work.failures import Failure
from t3d.work.progress import Progress


def fitting_problems(
    loaded: LoadedModel,
    problems: Sequence[Problem],
    params: DecodeParams,
    *,
    style: PromptStyle = "plain",
    kind: PromptKind = "math",
) -> tuple[list[Problem], list[Problem]]:
    """The problems whose prompts leave room for the new tokens, and those that are too long."""
    requests = decode_requests(loaded.tokenizer, problems, style=style, kind=kind)
    max_positions = loaded.model.config.max_position_embeddings
    fits = [not is_too_long(request, params, max_positions) for request in requests]
    return list(compress(problems, fits)), [one for one, fit in zip(problems, fits, strict=True) if not fit]


def roll_out_answered(
    loaded: LoadedModel,
    problems: Sequence[Problem],
    params: DecodeParams,
    *,
    max_failed: int,
    progress: Progress,
    style: PromptStyle = "plain",
    kind: PromptKind = "math",
    batch_size: int = BATCH_SIZE,
    choice: SampleChoice = ONE_SAMPLE,
) -> tuple[list[Trajectory], list[Failure]]:
    """A rollout in memory without the problems that make the model raise, which come apart.

    With more of these than ``max_failed`` there is no trajectory.
    """
    choice.check(params)
    requests = decode_requests(loaded.tokenizer, problems, style=style, kind=kind)
    problem_of = {
        sample.id: request.id for request in requests for sample in request.samples(choice.num_samples)
    }
    told = set[str]()

    def advance(completion: Completion) -> None:
        progress.advance(int(completion.id not in told))
        told.add(completion.id)

    completions, failed = decode_without_failing(
        LLM(loaded, max_batch_size=batch_size),
        [sample for request in requests for sample in request.samples(choice.num_samples)],
        params,
        max_failed=max_failed,
        prompt_of=problem_of.__getitem__,
        on_finish=advance,
    )
    if len(failed) > max_failed:
        return [], failed
    lost = {each.id for each in failed}
    answered = [problem for problem in problems if problem.id not in lost]
    return trajectories_of(loaded, answered, completions, choice), failed


def trajectories_of(
    loaded: LoadedModel,
    problems: Sequence[Problem],
    completions: Sequence[Completion],
    choice: SampleChoice,
) -> list[Trajectory]:
    """Those of the samples that are kept of each problem's completions."""
    origin = {
        "teacher": loaded.source,
        "teacher_hash": loaded.weights_hash,
        "tokenizer_hash": loaded.tokenizer_hash,
    }
    kept = choice.kept(problems, completions)
    answered = choice.problems_of((completion.id for completion in kept), problems)
    return [
        dataclasses.replace(completion.trajectory, task=problem.task, **origin)
        for problem, completion in zip(answered, kept, strict=True)
    ]
