"""Rollouts: a teacher decodes prompts and its trajectories are kept."""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from t3d.atomic import write_text
from t3d.data.prompts import Problem, decode_requests
from t3d.decoding.batched import decode
from t3d.decoding.completion import Completion
from t3d.decoding.params import DecodeParams
from t3d.errors import InputError
from t3d.models.loading import LoadedModel
from t3d.progress import Progress
from t3d.trajectory import Trajectory, read_trajectories, write_trajectories

CHUNK_SIZE = 512
"""Prompts per unit of work. A resumed run redoes whole chunks, so a cut leaves no trace."""


def to_trajectory(
    loaded: LoadedModel, problem: Problem, completion: Completion, params: DecodeParams, tokenizer_hash: str
) -> Trajectory:
    """A completion with what is needed to replay it and to know where it came from."""
    return Trajectory(
        id=problem.id,
        prompt_ids=completion.prompt_ids,
        response_ids=completion.response_ids,
        step_map=completion.step_map,
        visible_length=completion.visible_length,
        finish_reason=completion.finish_reason,
        block_size=params.block_size,
        mask_token_id=loaded.mask_token_id,
        decode_params=dataclasses.asdict(params),
        task=problem.task,
        teacher=loaded.source,
        teacher_hash=loaded.weights_hash,
        tokenizer_hash=tokenizer_hash,
    )


def roll_out(
    loaded: LoadedModel,
    problems: Sequence[Problem],
    params: DecodeParams,
    *,
    batch_size: int = 256,
    progress: Progress | None = None,
) -> list[Trajectory]:
    """Decode every problem once and return the trajectories in order."""
    completions = decode(
        loaded.model,
        decode_requests(loaded.tokenizer, problems),
        params,
        mask_token_id=loaded.mask_token_id,
        stop_token_ids=loaded.stop_token_ids,
        batch_size=batch_size,
        on_finish=None if progress is None else lambda _: progress.advance(),
    )
    tokenizer_hash = loaded.tokenizer_hash
    pairs = zip(problems, completions, strict=True)
    return [to_trajectory(loaded, *pair, params, tokenizer_hash) for pair in pairs]


def roll_out_to_file(
    loaded: LoadedModel,
    problems: Sequence[Problem],
    params: DecodeParams,
    output: str | Path,
    *,
    batch_size: int = 256,
) -> list[Trajectory]:
    """Roll out chunk by chunk into a Parquet file; finished chunks survive a kill.

    Chunks lie in ``OUTPUT.chunks`` until all are there. Raises InputError if that folder holds the
    chunks of another run, or if there is no problem.
    """
    if not problems:
        raise InputError("limit", 0, "no prompt to roll out", "use a limit of 1 or more")
    output = Path(output)
    chunks = output.with_name(output.name + ".chunks")
    _claim(chunks, _plan(loaded, problems, params, batch_size))
    trajectories: list[Trajectory] = []
    with Progress("rollout", len(problems)) as progress:
        for first in range(0, len(problems), CHUNK_SIZE):
            file = chunks / f"chunk-{first // CHUNK_SIZE:05d}.parquet"
            part = problems[first : first + CHUNK_SIZE]
            if file.is_file():
                trajectories += read_trajectories(file)
                progress.advance(len(part))
                continue
            rolled = roll_out(loaded, part, params, batch_size=batch_size, progress=progress)
            write_trajectories(file, rolled)
            trajectories += rolled
    write_trajectories(output, trajectories)
    shutil.rmtree(chunks)
    return trajectories


def _plan(loaded: LoadedModel, problems: Sequence[Problem], params: DecodeParams, batch_size: int) -> str:
    """Hash of everything the trajectories depend on."""
    parts = {
        "problems": [(problem.id, problem.question) for problem in problems],
        "params": dataclasses.asdict(params),
        "weights": loaded.weights_hash,
        "tokenizer": loaded.tokenizer_hash,
        "dtype": str(loaded.model.dtype),
        "batch_size": batch_size,
        "chunk_size": CHUNK_SIZE,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _claim(chunks: Path, plan: str) -> None:
    plan_file = chunks / "plan"
    if plan_file.is_file() and plan_file.read_text() != plan:
        problem = "holds the unfinished chunks of a run with other prompts, settings or weights"
        raise InputError(
            "output", str(chunks), problem, "finish that run, delete the folder or use another output"
        )
    write_text(plan_file, plan)
