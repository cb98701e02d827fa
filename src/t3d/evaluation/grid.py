"""A grid of tasks and decoding settings, evaluated into a folder; survives a kill at any moment."""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from t3d.decoding.completion import check_requests
from t3d.decoding.llm import LLM
from t3d.decoding.params import DecodeParams, StaticRemasking
from t3d.errors import InputError
from t3d.evaluation.cell import CellResult, evaluate_cell
from t3d.evaluation.evaluate import Asked, EvalResult, evaluation_requests
from t3d.models.loading import LoadedModel
from t3d.tasks.task import ExplainingTask, PosedTask
from t3d.work.claim import CHUNK_SIZE, claim, fingerprint, full_plan, take_finished
from t3d.work.files import discard, write_text
from t3d.work.progress import Progress
from t3d.work.versions import versions


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Decoding settings: every block size with everything else.

    ``dynamic`` are confidence thresholds, ``entropy_bounds`` those of ``entropy_bounded``; a block may take
    as many steps as it has tokens in both.
    """

    block_sizes: tuple[int, ...] = (4,)
    tokens_per_step: tuple[int, ...] = (1,)
    dynamic: tuple[float, ...] = ()
    entropy_bounds: tuple[float, ...] = ()

    def settings(self, shared: DecodeParams) -> dict[str, DecodeParams]:
        """Settings by label: ``B4-T2``, ``B4-dynamic`` (threshold 0.9), ``B4-dynamic-0.95``,
        ``B4-entropy-0.1``.

        ``shared`` gives all else, and the strategy of the static ones. Raises InputError for a size, number,
        threshold or bound that cannot be.
        """
        found: dict[str, DecodeParams] = {}
        for size in self.block_sizes:
            full = dataclasses.replace(shared, block_size=size, steps_per_block=size)
            for count in self.tokens_per_step:
                found[f"B{size}-T{count}"] = dataclasses.replace(full, steps_per_block=_steps(size, count))
            for threshold in self.dynamic:
                ending = "" if threshold == DecodeParams.confidence_threshold else f"-{threshold}"
                found[f"B{size}-dynamic{ending}"] = dataclasses.replace(
                    full, remasking="low_confidence_dynamic", confidence_threshold=threshold
                )
            for bound in self.entropy_bounds:
                found[f"B{size}-entropy-{bound}"] = dataclasses.replace(
                    full, remasking="entropy_bounded", entropy_bound=bound
                )
        if not found:
            raise InputError("block_size", self.block_sizes, "no setting to evaluate", "give at least one")
        default, strategies = DecodeParams.remasking, get_args(StaticRemasking)
        if shared.remasking not in strategies or (shared.remasking != default and not self.tokens_per_step):
            problem = "no strategy of a setting with a number of tokens per step"
            raise InputError("remasking", shared.remasking, problem, f"use {default}")
        return found


def _steps(block_size: int, tokens_per_step: int) -> int:
    if tokens_per_step < 1:
        raise InputError("tokens_per_step", tokens_per_step, "not positive", "use 1 or more")
    if block_size % tokens_per_step:
        problem = f"does not divide block_size={block_size}"
        raise InputError("tokens_per_step", tokens_per_step, problem, f"use divisors of {block_size}")
    return block_size // tokens_per_step


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """How a grid is evaluated."""

    samples_per_prompt: int = 1
    latency_samples: int = 0
    """Problems of each cell that are decoded once more, one by one, for their seconds."""
    batch_size: int = 256
    """Requests decoded together."""
    chunk_size: int = CHUNK_SIZE
    """Requests between two waits for the slowest; below float32 a cut chunk is decoded again."""


def evaluate_grid(
    loaded: LoadedModel,
    tasks: Sequence[PosedTask],
    settings: Mapping[str, DecodeParams],
    output: str | Path,
    config: EvalConfig,
    *,
    report: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Evaluate every task under every setting; write ``samples.jsonl`` and then ``results.json``.

    Returns the entries of ``results.json``, whose ``config`` is ``report``. Responses and verdicts lie in
    ``OUTPUT/cells`` until all are there; the same call continues after a kill and ends with the numbers of an
    uninterrupted one. Its seconds are the sum over the parts. Entries that the same call finished before are
    read. The weights must be as they were loaded. Raises InputError if another run is using the folder or it
    holds cells or results of another evaluation, for a task or id used twice, a prompt that cannot fit, no
    problem at all, or one that cannot be graded.
    """
    requests = _requests(loaded, tasks, settings, config.samples_per_prompt)
    plan = {
        "tasks": {posed.task.name: _task_plan(posed) for posed in tasks},
        "settings": {label: asdict(params) for label, params in settings.items()},
        "model": loaded.identity(),
        **asdict(config),
    }
    results = Path(output) / "results.json"
    if results.is_file():
        before = _read_results(results)
        take_finished(results, before.get("plan"), plan)
        return before["results"]
    llm = LLM(loaded, max_batch_size=config.batch_size)
    num_alone = sum(min(len(posed.problems), config.latency_samples) for posed in tasks)
    num_responses = len(settings) * (sum(map(len, requests.values())) + num_alone)
    with claim(Path(output) / "cells", plan, "*.jsonl") as folder:
        with Progress("evaluate", num_responses) as progress:
            _warm_up(llm, requests, settings)
            cells = [
                evaluate_cell(
                    llm,
                    posed.task,
                    requests[posed.task.name],
                    params,
                    folder / f"{posed.task.name}.{label}.jsonl",
                    chunk_size=config.chunk_size,
                    num_alone=config.latency_samples,
                    progress=progress,
                )
                for posed in tasks
                for label, params in settings.items()
            ]
        named = list(zip(itertools.product(tasks, settings), cells, strict=True))
        entries = [_entry(posed, label, cell) for (posed, label), cell in named]
        write_samples(output, [(label, cell.result) for (_, label), cell in named])
        write_text(results, _results(entries, report, loaded, plan))
        discard(folder)
    return entries


def _requests(
    loaded: LoadedModel,
    tasks: Sequence[PosedTask],
    settings: Mapping[str, DecodeParams],
    samples_per_prompt: int,
) -> dict[str, list[Asked]]:
    """What each task asks, after all checks that need no decoding."""
    found: dict[str, list[Asked]] = {}
    for posed in tasks:
        name = posed.task.name
        if name in found:
            raise InputError("tasks", name, "given twice", "give each task once")
        found[name] = evaluation_requests(
            loaded, posed.task, posed.problems, samples_per_prompt, style=posed.style, kind=posed.kind
        )
        for params in settings.values():
            positions = loaded.model.config.max_position_embeddings
            check_requests((request for _, request in found[name]), params, positions)
    return found


def _warm_up(llm: LLM, requests: Mapping[str, Sequence[Asked]], settings: Mapping[str, DecodeParams]) -> None:
    """Decode a block, so that what a process does once is not in the seconds of the first cell."""
    _, request = next(iter(requests.values()))[0]
    params = next(iter(settings.values()))
    llm.decode([request], dataclasses.replace(params, max_new_tokens=1))


def write_samples(folder: str | Path, results: Sequence[tuple[str, EvalResult]]) -> None:
    """Write ``samples.jsonl``: a line per response, cell after cell, with the label of its setting."""
    lines = [
        json.dumps({"setting": label} | sample.row()) + "\n"  # ASCII: a text may hold lone surrogates
        for label, result in results
        for sample in result.samples
    ]
    write_text(Path(folder) / "samples.jsonl", "".join(lines))


def _task_plan(posed: PosedTask) -> dict[str, Any]:
    rows = [
        (problem.id, problem.question, problem.answer, problem.task, problem.prefix)
        for problem in posed.problems
    ]
    return {
        "problems": {"count": len(rows), "sha256": fingerprint(rows)},
        "prompt": {"style": posed.style, "kind": posed.kind},
        **_grader_settings(posed),
    }


def _grader_settings(posed: PosedTask) -> dict[str, Any]:
    return posed.task.settings() if isinstance(posed.task, ExplainingTask) else {}


def _entry(posed: PosedTask, label: str, cell: CellResult) -> dict[str, Any]:
    return {
        "setting": label,
        **cell.result.summary(),
        **({"batch1_latency": cell.batch1_latency()} if cell.batch1_seconds else {}),
        "prompt": {"style": posed.style, "kind": posed.kind},
        **_grader_settings(posed),
    }


def _read_results(path: Path) -> dict[str, Any]:
    try:
        match json.loads(path.read_text(encoding="utf-8")):
            case {"plan": dict(), "results": list()} as found:
                return found
    except ValueError:
        pass
    return {}


def _results(
    entries: Sequence[Mapping[str, Any]],
    config: Mapping[str, Any],
    loaded: LoadedModel,
    plan: Mapping[str, Any],
) -> str:
    resolved = json.dumps(dict(config), sort_keys=True, default=str)
    report = {
        "results": list(entries),
        "config": dict(config),
        "config_hash": hashlib.sha256(resolved.encode()).hexdigest(),
        "versions": versions(),
        "model": loaded.identity(),
        "plan": full_plan(plan),
    }
    return json.dumps(report, indent=2, default=str) + "\n"
