"""Rollouts: a teacher decodes prompts and its trajectories are kept."""

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

from t3d.decoding.completion import check_requests, is_too_long
from t3d.decoding.llm import LLM, decode_requests
from t3d.decoding.params import BATCH_SIZE, DecodeParams
from t3d.decoding.sample_choice import ONE_SAMPLE, SampleChoice
from t3d.errors import InputError, require_unique_ids
from t3d.models.loading import LoadedModel
from t3d.problems.problem import Problem
from t3d.problems.prompt_styles import PromptKind, PromptStyle
from t3d.trajectory import Trajectory, read_plan, read_trajectories, write_trajectories
from t3d.work.files import check_output_file
from t3d.work.kept import CHUNK_SIZE, once
from t3d.work.plan import fingerprint, full_plan, take_finished
from t3d.work.progress import Progress


def roll_out(
    loaded: LoadedModel,
    problems: Sequence[Problem],
    params: DecodeParams,
    *,
    style: PromptStyle = "plain",
    kind: PromptKind = "math",
    batch_size: int = BATCH_SIZE,
    progress: Progress | None = None,
    choice: SampleChoice = ONE_SAMPLE,
) -> list[Trajectory]:
    """Decode every problem and return the trajectories in order: one each, or those that ``choice`` keeps.

    Several samples of a problem have the ids ``ID#0``, ``ID#1``, ... Raises InputError if they cannot differ.
    """
    choice.check(params)
    requests = decode_requests(loaded.tokenizer, problems, style=style, kind=kind)
    completions = LLM(loaded, max_batch_size=batch_size).decode(
        [sample for request in requests for sample in request.samples(choice.num_samples)],
        params,
        on_finish=None if progress is None else lambda _: progress.advance(),
    )
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


def roll_out_to_file(
    loaded: LoadedModel,
    problems: Sequence[Problem],
    params: DecodeParams,
    output: str | Path,
    *,
    style: PromptStyle = "plain",
    kind: PromptKind = "math",
    batch_size: int = BATCH_SIZE,
    chunk_size: int = CHUNK_SIZE,
    choice: SampleChoice = ONE_SAMPLE,
) -> list[Trajectory]:
    """Roll out chunk by chunk into a Parquet file; finished chunks survive a kill.

    Chunks lie in ``OUTPUT.chunks`` until all are there. Raises InputError if another run is using
    that folder or left chunks of other prompts, settings or weights in it, if the output was made from such,
    for an id used twice, a prompt that cannot fit, no prompt at all, samples that cannot differ or of which
    ``choice`` keeps none, or an output that is a folder. A file that the same call finished before is read.
    """
    check_output_file(output)
    choice.check(params)
    if not problems:
        raise InputError("limit", 0, "no prompt to roll out", "use a limit of 1 or more")
    require_unique_ids((problem.id for problem in problems), "prompts")
    requests = decode_requests(loaded.tokenizer, problems, style=style, kind=kind)
    check_requests(requests, params, loaded.model.config.max_position_embeddings)
    output = Path(output)
    questions = [(problem.id, problem.question, problem.task, problem.prefix) for problem in problems]
    plan = {
        "prompts": {
            "count": len(problems),
            "sha256": fingerprint(questions),
            "style": style,
            "kind": kind,
        },
        "decode": dataclasses.asdict(params),
        "model": {"source": loaded.source, **loaded.identity()},
        "batch_size": batch_size,
        "chunk_size": chunk_size,
        **choice.plan(problems),
    }

    def take() -> list[Trajectory] | None:
        if not output.is_file():
            return None
        take_finished(output, read_plan(output), plan)
        return read_trajectories(output)

    def work(chunks: Path) -> list[Trajectory]:
        how: dict[str, Any] = {"style": style, "kind": kind, "batch_size": batch_size, "choice": choice}
        trajectories = _roll_out_chunks(loaded, problems, params, chunks, chunk_size, how)
        choice.check_kept(len(trajectories))
        write_trajectories(output, trajectories, plan=full_plan(plan))
        return trajectories

    chunks = output.with_name(output.name + ".chunks")
    return once(chunks, plan, "chunk-*.parquet", take=take, work=work)


def _roll_out_chunks(
    loaded: LoadedModel,
    problems: Sequence[Problem],
    params: DecodeParams,
    folder: Path,
    chunk_size: int,
    how: Mapping[str, Any],
) -> list[Trajectory]:
    """Chunks that are in the folder are read, all others are rolled out, ``how`` :func:`roll_out` says."""
    trajectories: list[Trajectory] = []
    num_samples = how["choice"].num_samples
    with Progress("rollout", len(problems) * num_samples) as progress:
        for first in range(0, len(problems), chunk_size):
            file = folder / f"chunk-{first // chunk_size:05d}.parquet"
            part = problems[first : first + chunk_size]
            if file.is_file():
                trajectories += _read_chunk(file)
                progress.skip(len(part) * num_samples)
                continue
            rolled = roll_out(loaded, part, params, progress=progress, **how)
            write_trajectories(file, rolled)
            trajectories += rolled
    return trajectories


def _read_chunk(path: Path) -> list[Trajectory]:
    try:
        return read_trajectories(path, may_be_empty=True)  # none of its samples was kept
    except InputError as error:
        fix = "delete it; the same command then rolls it out again"
        raise InputError("output", str(path), f"damaged ({error.problem})", fix) from error
