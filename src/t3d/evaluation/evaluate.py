"""Evaluate a model on tasks under decoding settings: in memory, or in a folder that survives a kill."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from t3d.decoding.completion import Completion, DecodeRequest, check_requests
from t3d.decoding.llm import LLM, decode_requests
from t3d.decoding.params import BATCH_SIZE, DecodeParams
from t3d.errors import InputError, require_once, require_unique_ids
from t3d.evaluation.added import Entry, Found, keep_finished, kept_entries
from t3d.evaluation.finished import (
    RESULTS,
    SAMPLES,
    UNFINISHED,
    check_evaluation,
    check_lines,
    check_results,
    hash_of_lines,
)
from t3d.evaluation.measure import Asked, measure
from t3d.evaluation.samples import jsonl
from t3d.models.loading import LoadedModel
from t3d.tasks.task import PosedTask
from t3d.work.files import read_json, write_errors, write_text
from t3d.work.kept import CHUNK_SIZE, KeptLines, once
from t3d.work.plan import fingerprint, full_plan, of_unknown_origin, sealed, take_finished
from t3d.work.progress import Progress
from t3d.work.versions import versions

_MAY_GROW = ("tasks", "settings")
"""Objects of a plan whose entries do not depend on each other: to those that are there more can be added."""


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """How models are evaluated."""

    samples_per_prompt: int = 1
    latency_samples: int = 0
    """Problems of each task under each setting that are decoded once more, one by one, for their seconds."""
    batch_size: int = BATCH_SIZE
    """Requests decoded together."""
    chunk_size: int = CHUNK_SIZE
    """Below float32, where rounding depends on the batch: requests per chunk; a cut one is decoded again."""


def evaluate(
    loaded: LoadedModel,
    tasks: Sequence[PosedTask],
    settings: Mapping[str, DecodeParams],
    output: str | Path | None = None,
    config: EvalConfig | None = None,
    *,
    report: Mapping[str, Any] | None = None,
    label: str = "evaluate",
) -> list[Entry]:
    """Evaluate every task under every setting; the entries are task by task, setting by setting.

    With ``output``, a folder, ``samples.jsonl`` and then ``results.json`` are written, whose ``config`` is
    ``report``. Responses and verdicts lie in ``OUTPUT/unfinished`` until all are there; the same call
    continues after a kill and ends with the numbers of an uninterrupted one. Its seconds are the sum over
    the parts. Entries that the same call finished before are read; so are those of a call with fewer tasks or
    settings, and the others are added to them. The weights must be as they were loaded.

    Raises InputError if another run is using the folder or it holds work or results of another evaluation,
    or of one with more tasks or settings, for a task or id used twice, a prompt that cannot fit, no problem
    at all, or one that cannot be graded.
    """
    config = EvalConfig() if config is None else config
    requests = requests_of(loaded, tasks, settings, config.samples_per_prompt)
    if output is None:
        return [entry for entry, _ in _found(loaded, tasks, settings, requests, config, None, label)]
    check_evaluation(Path(output))
    plan = {
        "tasks": {posed.task.name: _task_plan(posed) for posed in tasks},
        "settings": {name: asdict(params) for name, params in settings.items()},
        "model": loaded.identity(),
        **asdict(config),
    }

    def work(folder: Path) -> list[Entry]:
        keep_finished(Path(output), folder)
        found = _found(loaded, tasks, settings, requests, config, folder, label)
        samples, entries = jsonl(row for _, rows in found for row in rows), [entry for entry, _ in found]
        with write_errors(output):
            (Path(output) / RESULTS).unlink(missing_ok=True)  # of fewer entries: a copy is in the folder
        write_text(Path(output) / SAMPLES, samples)
        made = {**_results(entries, report or {}, loaded, plan), **hash_of_lines(samples)}
        write_text(Path(output) / RESULTS, json.dumps(sealed(made), indent=2) + "\n")
        return entries

    take = partial(_take, Path(output), plan)
    return once(Path(output) / UNFINISHED, plan, "*.jsonl", take=take, work=work, may_grow=_MAY_GROW)


def evaluation_requests(loaded: LoadedModel, posed: PosedTask, samples_per_prompt: int = 1) -> list[Asked]:
    """Every problem as often as it is to be answered, each time with its request.

    Raises InputError if there is no problem, if one cannot be graded, if two share an id, or where the style
    has no prompt of that kind.
    """
    if not posed.problems:
        raise InputError(
            "limit", 0, f"no problem of {posed.task.name!r} to evaluate", "use a limit of 1 or more"
        )
    require_unique_ids((problem.id for problem in posed.problems), "problems")
    for problem in posed.problems:
        posed.task.check(problem)
    requests = decode_requests(loaded.tokenizer, posed.problems, style=posed.style, kind=posed.kind)
    return [
        (problem, sample)
        for problem, request in zip(posed.problems, requests, strict=True)
        for sample in request.samples(samples_per_prompt)
    ]


def requests_of(
    loaded: LoadedModel,
    tasks: Sequence[PosedTask],
    settings: Mapping[str, DecodeParams],
    samples_per_prompt: int = 1,
) -> dict[str, list[Asked]]:
    """What each task asks, after all checks of :func:`evaluate` that need no decoding."""
    names = [posed.task.name for posed in tasks]
    require_once("tasks", names)
    found: dict[str, list[Asked]] = {}
    for name, posed in zip(names, tasks, strict=True):
        found[name] = evaluation_requests(loaded, posed, samples_per_prompt)
        for params in settings.values():
            positions = loaded.model.config.max_position_embeddings
            check_requests((request for _, request in found[name]), params, positions)
    return found


def _found(
    loaded: LoadedModel,
    tasks: Sequence[PosedTask],
    settings: Mapping[str, DecodeParams],
    requests: Mapping[str, Sequence[Asked]],
    config: EvalConfig,
    folder: Path | None,
    label: str,
) -> list[Found]:
    """Every task under every setting, measured unless it lies in the folder."""
    llm = LLM(loaded, max_batch_size=config.batch_size)
    is_exact = loaded.model.dtype in (torch.float32, torch.float64)
    num_alone = sum(min(len(posed.problems), config.latency_samples) for posed in tasks)
    num_responses = len(settings) * (sum(map(len, requests.values())) + num_alone)
    kept = {} if folder is None else kept_entries(folder)
    found = []
    with Progress(label, num_responses) as progress:
        _warm_up(llm, requests, settings)
        for posed, (setting, params) in product(tasks, settings.items()):
            name = posed.task.name
            if (name, setting) in kept:
                progress.skip(len(requests[name]) + min(len(posed.problems), config.latency_samples))
                found.append(kept[name, setting])
                continue
            path = None if folder is None else folder / f"{name}.{setting}.jsonl"
            measured = measure(
                posed.task,
                requests[name],
                params,
                partial(_decode, llm, params),
                KeptLines(path, fresh="response"),
                chunk_size=None if is_exact else config.chunk_size,
                num_alone=config.latency_samples,
                on_response=progress.advance,
            )
            how = {"prompt": {"style": posed.style, "kind": posed.kind}, **posed.grader_settings()}
            entry = {"setting": setting, **measured.summary(), **how}
            found.append((entry, [{"setting": setting, **row} for row in measured.samples]))
    return found


def _decode(
    llm: LLM,
    params: DecodeParams,
    requests: Sequence[DecodeRequest],
    on_finish: Callable[[Completion], None],
) -> None:
    llm.decode(requests, params, on_finish=on_finish)


def _warm_up(llm: LLM, requests: Mapping[str, Sequence[Asked]], settings: Mapping[str, DecodeParams]) -> None:
    """Decode a block, so that what a process does once is not in the seconds of the first measurement."""
    _, request = next(iter(requests.values()))[0]
    params = next(iter(settings.values()))
    llm.decode([request], dataclasses.replace(params, max_new_tokens=1))


def _task_plan(posed: PosedTask) -> dict[str, Any]:
    rows = [
        (problem.id, problem.question, problem.answer, problem.task, problem.prefix)
        for problem in posed.problems
    ]
    return {
        "problems": {"count": len(rows), "sha256": fingerprint(rows)},
        "prompt": {"style": posed.style, "kind": posed.kind},
        **posed.grader_settings(),
    }


def _take(output: Path, plan: Mapping[str, Any]) -> list[Entry] | None:
    """The entries that the same call has finished; None: none, or not all."""
    results = output / RESULTS
    if not results.is_file():
        return None
    match read_json(results):
        case {"plan": dict() as before, "results": list()} as found:
            check_results(found, results)
            check_lines(found, output / SAMPLES, results)
            return found["results"] if take_finished(results, before, plan, may_grow=_MAY_GROW) else None
    raise of_unknown_origin(results)


def _results(
    entries: Sequence[Entry], config: Mapping[str, Any], loaded: LoadedModel, plan: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "results": list(entries),
        "config": dict(config),
        "config_hash": fingerprint(dict(config)),
        "versions": versions(),
        "model": loaded.identity(),
        "plan": full_plan(plan),
    }
