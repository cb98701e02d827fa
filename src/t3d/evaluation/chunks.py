"""Evaluation that survives a kill: fixed chunks of requests, each kept as soon as it is graded."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from t3d.atomic import discard, write_text
from t3d.claim import CHUNK_SIZE, claim, fingerprint
from t3d.data.prompts import Problem
from t3d.decoding.completion import check_requests
from t3d.decoding.params import DecodeParams
from t3d.errors import InputError
from t3d.evaluation.evaluate import (
    EvalResult,
    GradedChunk,
    Sample,
    combine,
    decode_and_grade,
    evaluation_requests,
    write_results,
)
from t3d.evaluation.metrics import CostCounts
from t3d.evaluation.task import Task
from t3d.models.loading import LoadedModel
from t3d.progress import Progress


def evaluate_to_folder(
    loaded: LoadedModel,
    task: Task,
    problems: Sequence[Problem],
    params: DecodeParams,
    output: str | Path,
    *,
    config: Mapping[str, Any],
    batch_size: int = 256,
    samples_per_prompt: int = 1,
    chunk_size: int = CHUNK_SIZE,
    label: str = "evaluate",
) -> EvalResult:
    """Evaluate and write ``samples.jsonl`` and ``results.json`` (with ``config``) into a folder.

    Chunks lie in ``OUTPUT/chunks`` until all are there; the same call continues after a kill. Its
    numbers are those of an uninterrupted call, and its seconds the sum over the chunks. The weights
    must be as they were loaded. Raises InputError if another run is using the folder or left chunks
    of another evaluation in it, for an id used twice, a prompt that cannot fit, or no problem at all.
    """
    requests = evaluation_requests(loaded, task, problems, samples_per_prompt)
    check_requests((request for _, request in requests), params, loaded.model.config.max_position_embeddings)
    rows = [(problem.id, problem.question, problem.answer, problem.task) for problem in problems]
    plan = {
        "task": task.name,
        "problems": {"count": len(problems), "sha256": fingerprint(rows)},
        "decode": asdict(params),
        "model": loaded.identity(),
        "batch_size": batch_size,
        "samples_per_prompt": samples_per_prompt,
        "chunk_size": chunk_size,
    }
    graded: list[GradedChunk] = []
    with claim(Path(output) / "chunks", plan, "chunk-*.json") as chunks:
        with Progress(label, len(requests)) as progress:
            for first in range(0, len(requests), chunk_size):
                file = chunks / f"chunk-{first // chunk_size:05d}.json"
                part = requests[first : first + chunk_size]
                if file.is_file():
                    graded.append(_read_chunk(file))
                    progress.advance(len(part))
                    continue
                graded.append(
                    decode_and_grade(loaded, task, part, params, batch_size=batch_size, progress=progress)
                )
                write_text(file, json.dumps(asdict(graded[-1]), ensure_ascii=False))
        result = combine(task, params, requests, graded)
        write_results(output, [result], config)
        discard(chunks)
    return result


def _read_chunk(path: Path) -> GradedChunk:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        fix = "delete it; the same command then decodes it again"
        raise InputError("output", str(path), f"damaged ({error})", fix) from error
    samples = tuple(Sample(**sample) for sample in fields["samples"])
    return GradedChunk(samples=samples, counts=CostCounts(**fields["counts"]))
