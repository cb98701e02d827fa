"""Evaluate a model on tasks under decoding settings: in memory, or in a folder that survives a kill."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from t3d.decoding.completion import check_requests
from t3d.decoding.params import DecodeParams
from t3d.decoding.posed_requests import decode_requests
from t3d.errors import InputError, require_once, require_unique_ids
from t3d.evaluation.added import Entry, keep_finished
from t3d.evaluation.answering import EvalConfig, Evaluation
from t3d.evaluation.finished import (
    RESULTS,
    SAMPLES,
    UNFINISHED,
    check_evaluation,
    check_lines,
    check_results,
    hash_of_lines,
)
from t3d.evaluation.measure import Asked
from t3d.evaluation.samples import jsonl
from t3d.models.loading import LoadedModel
from t3d.tasks.task import PosedTask
from t3d.work.failures import Failures, new_attempt
from t3d.work.files import read_json, write_errors, write_text
from t3d.work.kept import once
from t3d.work.plan import check_same, fingerprint, full_plan, of_unknown_origin, sealed, take_finished
from t3d.work.shards import Shard, once_by_shards
from t3d.work.versions import versions

_MAY_GROW = ("tasks", "settings")
"""Objects of a plan whose entries do not depend on each other: to those that are there more can be added."""


def evaluate(
    loaded: LoadedModel,
    tasks: Sequence[PosedTask],
    settings: Mapping[str, DecodeParams],
    output: str | Path | None = None,
    config: EvalConfig | None = None,
    *,
    report: Mapping[str, Any] | None = None,
    label: str = "evaluate",
    max_errors: int = 0,
) -> list[Entry]:
    """Evaluate every task under every setting; the entries are task by task, setting by setting.

    With ``output``, a folder, ``samples.jsonl`` and then ``results.json`` are written, whose ``config`` is
    ``report``. Responses and verdicts lie in ``OUTPUT/unfinished`` until all are there; the same call
    continues after a kill and ends with the numbers of an uninterrupted one. Its seconds are the sum over
    the parts. Entries that the same call finished before are read; so are those of a call with fewer tasks or
    settings, and the others are added to them. The weights must be as they were loaded.

    In a folder ``max_errors`` requests may make the model raise: their responses count as wrong and as
    ``num_errors``, ``errors.jsonl`` lists them, and the next call tries them again, for which
    ``OUTPUT/unfinished`` stays. With one more TooManyErrors is raised.

    Raises InputError if another run is using the folder or it holds work or results of another evaluation,
    or of one with more tasks or settings, for a task or id used twice, a prompt that cannot fit, no problem
    at all, or one that cannot be graded.
    """
    config = EvalConfig() if config is None else config
    requests = requests_of(loaded, tasks, settings, config.samples_per_prompt)
    work = Evaluation(loaded, tasks, settings, requests, config, label)
    if output is None:
        return [entry for entry, _ in work.found(None)]
    check_evaluation(Path(output))
    failures = work.failures(Path(output), max_errors, new_attempt())
    how: dict[str, Any] = {
        "take": partial(_take, Path(output), work.plan, failures),
        "work": partial(_write, Path(output), work, report or {}, failures, True),
        "may_grow": _MAY_GROW,
        "stays": failures.any,
    }
    return once(Path(output) / UNFINISHED, work.plan, "*.jsonl", **how)


@dataclass(frozen=True)
class SharedEvaluation:
    """The same by one of several runs in one folder: it answers and grades the chunks of a shard.

    Chunks of ``config.chunk_size`` requests are counted over all tasks and settings.
    """

    work: Evaluation
    output: Path
    report: Mapping[str, Any]
    max_errors: int = 0
    """Requests that may fail, in all runs together."""
    attempt: str = ""
    """Of workers that make all chunks together: the same name for each. Without it every call is one."""
    told: str = ""
    """The output's name, where it is made here under another. Nothing can then be added to what is finished:
    its two files are not replaced as one."""

    @property
    def plan(self) -> dict[str, Any]:
        """All that the entries depend on."""
        return full_plan(self.work.plan)

    @property
    def sizes(self) -> list[int]:
        """Requests of each chunk."""
        return self.work.sizes

    @property
    def notes(self) -> list[str]:
        """Nothing is left out."""
        return []

    def files(self, shard: Shard) -> list[Path]:
        """Of a shard's chunks, where they are kept until all are there."""
        files = self.work.files(self.output / UNFINISHED)
        return [file for number, file in enumerate(files) if shard.takes(number)]

    def is_made(self, shard: Shard) -> bool:
        """Whether the shard's answers are there, and nothing is to be tried again."""
        return self.work.is_complete(self.output / UNFINISHED, self.output, self._failures(), shard)

    def make(self, shard: Shard) -> list[Entry] | None:
        """Answer and grade a shard's chunks. The run after which all are there writes the files and has the
        entries; None: there are some missing, or another one wrote them."""
        failures = self._failures()

        def write(folder: Path) -> list[Entry] | None:
            is_tried = not (self.attempt and failures.to_try())
            is_complete = is_tried and self.work.is_complete(folder, self.output, failures)
            return (
                _write(self.output, self.work, self.report, failures, False, folder) if is_complete else None
            )

        may_grow = () if self.told else _MAY_GROW
        how: dict[str, Any] = {
            "take": partial(_take, self.output, self.work.plan, failures, may_grow, self.told),
            "part": lambda folder: self.work.answer(folder, self.output, shard, failures),
            "work": write,
            "may_grow": may_grow,
            "stays": failures.any,
        }
        return once_by_shards(self.output / UNFINISHED, self.work.plan, "*.jsonl", shard, **how)

    def _failures(self) -> Failures:
        return self.work.failures(self.output, self.max_errors, self.attempt or new_attempt())


def shared_evaluation(
    loaded: LoadedModel,
    tasks: Sequence[PosedTask],
    settings: Mapping[str, DecodeParams],
    output: str | Path,
    config: EvalConfig,
    *,
    report: Mapping[str, Any] | None = None,
    label: str = "evaluate, a shard",
    max_errors: int = 0,
    attempt: str = "",
    told: str = "",
) -> SharedEvaluation:
    """An evaluation for several runs. Raises InputError as :func:`evaluate` does."""
    requests = requests_of(loaded, tasks, settings, config.samples_per_prompt)
    check_evaluation(Path(output))
    work = Evaluation(loaded, tasks, settings, requests, config, label)
    return SharedEvaluation(work, Path(output), report or {}, max_errors, attempt, told)


def _write(
    output: Path,
    work: Evaluation,
    report: Mapping[str, Any],
    failures: Failures,
    tries_again: bool,
    folder: Path,
) -> list[Entry]:
    """Make what is missing, and the files of all of it."""
    keep_finished(output, folder)
    found = work.found(folder, failures, tries_again=tries_again)
    failures.report()
    samples, entries = jsonl(row for _, rows in found for row in rows), [entry for entry, _ in found]
    with write_errors(output):
        (output / RESULTS).unlink(missing_ok=True)  # of fewer entries: a copy is in the folder
    write_text(output / SAMPLES, samples)
    made = {**_results(entries, report, work.loaded, work.plan), **hash_of_lines(samples)}
    write_text(output / RESULTS, json.dumps(sealed(made), indent=2) + "\n")
    return entries


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


def _take(
    output: Path,
    plan: Mapping[str, Any],
    failures: Failures,
    may_grow: Collection[str] = _MAY_GROW,
    told: str = "",
) -> list[Entry] | None:
    """The entries that the same call has finished; None: none, not all, or some are to be tried again."""
    results = output / RESULTS
    if not results.is_file():
        return None
    match read_json(results):
        case {"plan": dict() as before, "results": list()} as found:
            check_results(found, results)
            check_lines(found, output / SAMPLES, results)
            if failures.to_try():
                check_same(results, before, plan, may_grow=may_grow)
                return None
            name = f"{told}/{RESULTS}" if told else results
            return found["results"] if take_finished(name, before, plan, may_grow=may_grow) else None
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
