"""Every task under every setting: answered, graded, measured, by any number of runs.

The questions of a task under a setting are answered in fixed chunks. The answers to each chunk lie in a file
of its own (``TASK.SETTING.chunk-00000.jsonl``), so that it does not matter which run made it.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from t3d.decoding.completion import Completion, DecodeRequest
from t3d.decoding.llm import LLM
from t3d.decoding.params import BATCH_SIZE, DecodeParams
from t3d.evaluation.added import Found, kept_entries
from t3d.evaluation.measure import Asked, Measurement, measure
from t3d.models.loading import LoadedModel
from t3d.tasks.task import PosedTask
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
        chunks = (self.first_chunk + index // self.chunk_size for index in range(len(self.asked)))
        return [pair for pair, chunk in zip(self.asked, chunks, strict=True) if shard.takes(chunk)]

    @property
    def sizes(self) -> list[int]:
        """Requests of each chunk."""
        firsts = range(0, len(self.asked), self.chunk_size)
        return [len(self.asked[first : first + self.chunk_size]) for first in firsts]

    def lines(self, folder: Path | None, asked: Sequence[Asked]) -> KeptLines:
        """What is kept of the answers to these requests: a file for each chunk."""
        if folder is None:
            return KeptLines(fresh="response")
        numbers = {request.id: index // self.chunk_size for index, (_, request) in enumerate(self.asked)}
        stem = ".".join(self.key)
        files = {request.id: folder / f"{stem}.chunk-{numbers[request.id]:05d}.jsonl" for _, request in asked}
        return LinesOfChunks(files, fresh="response")

    def is_graded(self, folder: Path, asked: Sequence[Asked]) -> bool:
        """Whether every one of these requests has its answer and the verdict on it."""
        rows = self.lines(folder, asked).rows
        return all("correct" in rows.get(request.id, {}) for _, request in asked)


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

    def found(self, folder: Path | None) -> list[Found]:
        """Every task under every setting, measured unless it lies in the folder."""
        kept = {} if folder is None else kept_entries(folder)
        num_alone = sum(map(self._num_alone, self._all))
        found = []
        with Progress(self._label, sum(len(one.asked) for one in self._all) + num_alone) as progress:
            llm = self._engine()
            for one in self._all:
                if one.key in kept:
                    progress.skip(len(one.asked) + self._num_alone(one))
                    found.append(kept[one.key])
                    continue
                measured = self._measure(llm, one, one.asked, folder, progress, self._num_alone(one))
                how = {
                    "prompt": {"style": one.posed.style, "kind": one.posed.kind},
                    **one.posed.grader_settings(),
                }
                entry = {"setting": one.setting, **measured.summary(), **how}
                found.append((entry, [{"setting": one.setting, **row} for row in measured.samples]))
        return found

    def answer(self, folder: Path, output: Path, shard: Shard) -> None:
        """Answer and grade what the chunks of a shard ask, unless it is finished."""
        kept = kept_entries(folder) or kept_entries(output)
        parts = [(one, one.of_shard(shard)) for one in self._all if one.key not in kept]
        with Progress(self._label, sum(len(asked) for _, asked in parts)) as progress:
            llm = self._engine()
            for one, asked in parts:
                if asked:
                    self._measure(llm, one, asked, folder, progress, 0)

    @property
    def sizes(self) -> list[int]:
        """Requests of each chunk."""
        return [size for one in self._all for size in one.sizes]

    def is_complete(self, folder: Path, output: Path, shard: Shard | None = None) -> bool:
        """Whether all answers are there, with their verdicts, or those of a shard."""
        kept = kept_entries(folder) or kept_entries(output)
        return all(
            one.key in kept or one.is_graded(folder, one.asked if shard is None else one.of_shard(shard))
            for one in self._all
        )

    def _num_alone(self, one: Questions) -> int:
        return min(len(one.posed.problems), self._config.latency_samples)

    def _engine(self) -> LLM:
        """It has decoded a block: what a process does once is not in the seconds of the first measurement."""
        llm = LLM(self.loaded, max_batch_size=self._config.batch_size)
        first = self._all[0]
        llm.decode([first.asked[0][1]], dataclasses.replace(first.params, max_new_tokens=1))
        return llm

    def _measure(
        self,
        llm: LLM,
        one: Questions,
        asked: Sequence[Asked],
        folder: Path | None,
        progress: Progress,
        num_alone: int,
    ) -> Measurement:
        is_exact = self.loaded.model.dtype in (torch.float32, torch.float64)
        return measure(
            one.posed.task,
            asked,
            one.params,
            partial(_decode, llm, one.params),
            one.lines(folder, asked),
            chunk_size=None if is_exact else self._config.chunk_size,
            num_alone=num_alone,
            on_response=progress.advance,
        )


def _decode(
    llm: LLM,
    params: DecodeParams,
    requests: Sequence[DecodeRequest],
    on_finish: Callable[[Completion], None],
) -> None:
    llm.decode(requests, params, on_finish=on_finish)


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
