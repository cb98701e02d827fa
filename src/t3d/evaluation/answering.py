"""Every task under every setting: answered, graded, measured, by any number of runs.

The questions of a task under a setting are answered in fixed chunks. The answers to each chunk lie in a file
of its own (``TASK.SETTING.chunk-00000.jsonl``), so that it does not matter which run made it.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from t3d.decoding.completion import Completion, DecodeRequest, DecodingError
from t3d.decoding.llm import LLM
from t3d.decoding.params import BATCH_SIZE, DecodeParams
from t3d.errors import InputError
from t3d.evaluation.added import Found, kept_entries
from t3d.evaluation.finished import ERRORS, UNFINISHED
from t3d.evaluation.measure import Asked, answer, summed_up
from t3d.evaluation.unanswered import Unanswered
from t3d.models.loading import LoadedModel
from t3d.tasks.task import PosedTask
from t3d.work.failures import Failures, unit_errors_file
from t3d.work.kept import CHUNK_SIZE, KeptLines
from t3d.work.plan import fingerprint
from t3d.work.progress import Progress
from t3d.work.shards import LinesOfChunks, Shard


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


@dataclass(frozen=True)
class Questions:
    """What a task asks under a setting; its chunks are counted on from those of the one before."""

    posed: PosedTask
    setting: str
    params: DecodeParams
    asked: Sequence[Asked]
    first_chunk: int
    chunk_size: int

    @property
    def key(self) -> tuple[str, str]:
        """Names of the task and of the setting."""
        return self.posed.task.name, self.setting

    def of_shard(self, shard: Shard) -> list[Asked]:
        """The requests of the shard's chunks."""
        chunks = self._chunks
        return [(problem, request) for problem, request in self.asked if shard.takes(chunks[request.id])]

    @property
    def sizes(self) -> list[int]:
        """Requests of each chunk."""
        firsts = range(0, len(self.asked), self.chunk_size)
        return [len(self.asked[first : first + self.chunk_size]) for first in firsts]

    def lines(self, folder: Path | None, asked: Sequence[Asked]) -> KeptLines:
        """What is kept of the answers to these requests: a file for each chunk."""
        if folder is None:
            return KeptLines(fresh="response")
        files = self.files(folder)
        numbers = {request.id: self._chunks[request.id] - self.first_chunk for _, request in asked}
        return LinesOfChunks({name: files[number] for name, number in numbers.items()}, fresh="response")

    def files(self, folder: Path) -> list[Path]:
        """Where the answers to each chunk are kept."""
        return [
            folder / f"{'.'.join(self.key)}.chunk-{number:05d}.jsonl" for number in range(len(self.sizes))
        ]

    def unanswered(self, failures: Failures, asked: Sequence[Asked]) -> Unanswered:
        """Those of these requests that failed."""
        return Unanswered(failures, {request.id: self._chunks[request.id] for _, request in asked})

    @cached_property
    def _chunks(self) -> dict[str, int]:
        """Chunk of every request, by id."""
        return {
            request.id: self.first_chunk + index // self.chunk_size
            for index, (_, request) in enumerate(self.asked)
        }


class Evaluation:
    """Tasks under settings: what their entries depend on, and how they are made."""

    def __init__(
        self,
        loaded: LoadedModel,
        tasks: Sequence[PosedTask],
        settings: Mapping[str, DecodeParams],
        requests: Mapping[str, Sequence[Asked]],
        config: EvalConfig,
        label: str,
    ) -> None:
        self.loaded, self._tasks, self._settings = loaded, tasks, settings
        self._config, self._label = config, label
        self._all: list[Questions] = []
        num_chunks, size = 0, config.chunk_size
        for posed, (setting, params) in product(tasks, settings.items()):
            asked = requests[posed.task.name]
            self._all.append(Questions(posed, setting, params, asked, num_chunks, size))
            num_chunks += -(-len(asked) // size)

    @cached_property
    def plan(self) -> dict[str, Any]:
        """All that the entries depend on."""
        return {
            "tasks": {posed.task.name: _task_plan(posed) for posed in self._tasks},
            "settings": {name: params.record() for name, params in self._settings.items()},
            "model": self.loaded.identity(),
            **asdict(self._config),
        }

    def failures(self, output: Path, max_errors: int, attempt: str) -> Failures:
        """Requests that failed, by chunk."""
        folder = output / UNFINISHED
        files = [(one, unit_errors_file(file)) for one in self._all for file in one.files(folder)]
        return Failures(
            path=output / ERRORS,
            max_errors=max_errors,
            attempt=attempt,
            files=[file for _, file in files],
            labels=[dict(zip(("task", "setting"), one.key, strict=True)) for one, _ in files],
            item="response",
        )

    def found(
        self, folder: Path | None, failures: Failures | None = None, *, tries_again: bool = True
    ) -> list[Found]:
        """Every task under every setting, measured unless it lies in the folder.

        A request that fails is one of the failures, if they are kept; else it raises. Raises InputError where
        a setting has no response.
        """
        kept = {} if folder is None else self._kept(failures, folder)
        num_alone = sum(map(self._num_alone, self._all))
        found = []
        with Progress(self._label, sum(len(one.asked) for one in self._all) + num_alone) as progress:
            llm = self._engine()
            for one in self._all:
                if one.key in kept:
                    progress.skip(len(one.asked) + self._num_alone(one))
                    found.append(kept[one.key])
                    continue
                lines, how = one.lines(folder, one.asked), {"num_alone": self._num_alone(one)}
                failed = self._answer(llm, one, one.asked, lines, failures, progress, tries_again, **how)
                if failures is not None and len(failed) == len(one.asked):
                    failures.report()
                    problem, fix = f"every response failed; {failures.path} lists them", "mend what it names"
                    raise InputError("settings", f"{one.posed.task.name} {one.setting}", problem, fix)
                measured = summed_up(one.posed.task, one.asked, one.params, lines, failed)
                entry = {"setting": one.setting, **measured.summary(), **_how(one.posed)}
                found.append((entry, [{"setting": one.setting, **row} for row in measured.samples]))
        return found

    def answer(self, folder: Path, output: Path, shard: Shard, failures: Failures) -> None:
        """Answer and grade what the chunks of a shard ask, unless it is finished."""
        kept = self._kept(failures, folder, output)
        parts = [(one, one.of_shard(shard)) for one in self._all if one.key not in kept]
        with Progress(self._label, sum(len(asked) for _, asked in parts)) as progress:
            llm = self._engine()
            for one, asked in parts:
                if asked:
                    self._answer(llm, one, asked, one.lines(folder, asked), failures, progress)

    @property
    def sizes(self) -> list[int]:
        """Requests of each chunk."""
        return [size for one in self._all for size in one.sizes]

    def files(self, folder: Path) -> list[Path]:
        """Where the answers to each chunk are kept."""
        return [file for one in self._all for file in one.files(folder)]

    def is_complete(self, folder: Path, output: Path, failures: Failures, shard: Shard | None = None) -> bool:
        """Whether all requests, or those of a shard, have their answers with verdicts, or have failed.

        Those of a shard must have failed in this attempt.
        """
        kept = self._kept(failures, folder, output)

        def is_done(one: Questions) -> bool:
            asked = one.asked if shard is None else one.of_shard(shard)
            rows, unanswered = one.lines(folder, asked).rows, one.unanswered(failures, asked)
            failed = unanswered.ids()
            is_tried = shard is None or not unanswered.to_try()
            return is_tried and all(
                request.id in failed or "correct" in rows.get(request.id, {}) for _, request in asked
            )

        return all(one.key in kept or is_done(one) for one in self._all)

    def _kept(self, failures: Failures | None, *folders: Path) -> dict[tuple[str, str], Found]:
        """Entries of the first of these folders that has any, but for those of which requests failed.

        Those that have been answered since count no more, and their entry is not what it was.
        """
        kept = next((entries for folder in folders if (entries := kept_entries(folder))), {})
        if failures is None:
            return kept
        left = [one.key for one in self._all if one.unanswered(failures, one.asked).ids()]
        return {key: one for key, one in kept.items() if key not in left and not one[0].get("num_errors")}

    def _num_alone(self, one: Questions) -> int:
        return min(len(one.posed.problems), self._config.latency_samples)

    def _engine(self) -> LLM:
        """It has decoded a block: what a process does once is not in the seconds of the first measurement."""
        llm = LLM(self.loaded, max_batch_size=self._config.batch_size)
        first = self._all[0]
        with suppress(DecodingError):  # it may be one that fails, which is found when it is its turn
            llm.decode([first.asked[0][1]], dataclasses.replace(first.params, max_new_tokens=1))
        return llm

    def _answer(
        self,
        llm: LLM,
        one: Questions,
        asked: Sequence[Asked],
        lines: KeptLines,
        failures: Failures | None,
        progress: Progress,
        tries_again: bool = True,
        num_alone: int = 0,
    ) -> Collection[str]:
        """The requests that failed."""
        is_exact = self.loaded.model.dtype in (torch.float32, torch.float64)
        how: dict[str, Any] = {"chunk_size": None if is_exact else self._config.chunk_size}
        how |= {"num_alone": num_alone, "on_response": progress.advance}
        if failures is None:
            answer(one.posed.task, asked, partial(_decode, llm, one.params), lines, **how)
            return ()
        unanswered = one.unanswered(failures, asked)
        decode = partial(unanswered.decode, llm, one.params)
        how |= {"failed": unanswered.ids, "again": unanswered.to_try() if tries_again else ()}
        answer(one.posed.task, asked, decode, lines, **how)
        return unanswered.ids()


def _decode(
    llm: LLM,
    params: DecodeParams,
    requests: Sequence[DecodeRequest],
    on_finish: Callable[[Completion], None],
) -> None:
    llm.decode(requests, params, on_finish=on_finish)


def _how(posed: PosedTask) -> dict[str, Any]:
    """How a task is put, and what its verdicts depend on."""
    return {"prompt": {"style": posed.style, "kind": posed.kind}, **posed.grader_settings()}


def _task_plan(posed: PosedTask) -> dict[str, Any]:
    rows = [
        (problem.id, problem.question, problem.answer, problem.task, problem.prefix, *problem.turns)
        for problem in posed.problems
    ]
    return {
        "problems": {"count": len(rows), "sha256": fingerprint(rows)},
        **_how(posed),
    }
