"""Rollouts: a teacher decodes prompts and its trajectories are kept."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
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
from t3d.work.parts import Part, plan_of_part
from t3d.work.plan import described, differences, fingerprint, full_plan, take_finished
from t3d.work.progress import Progress
from t3d.work.shards import Shard, once_by_shards

CHUNKS = "chunk-*.parquet"
"""Names of the files of chunks."""


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
    """Roll out chunk by chunk into a Parquet file, as :class:`FileRollout` says."""
    return FileRollout(
        loaded=loaded,
        problems=problems,
        params=params,
        output=Path(output),
        style=style,
        kind=kind,
        batch_size=batch_size,
        chunk_size=chunk_size,
        choice=choice,
    ).run()


@dataclass(frozen=True, kw_only=True)
class FileRollout:
    """A rollout chunk by chunk into a Parquet file; finished chunks survive a kill.

    Chunks lie in ``OUTPUT.chunks`` until all are there. Raises InputError for an id used twice, a prompt that
    cannot fit, no prompt at all, samples that cannot differ or of which ``choice`` keeps none, or an output
    that is a folder.
    """

    loaded: LoadedModel
    problems: Sequence[Problem]
    params: DecodeParams
    output: Path
    style: PromptStyle = "plain"
    kind: PromptKind = "math"
    batch_size: int = BATCH_SIZE
    chunk_size: int = CHUNK_SIZE
    choice: SampleChoice = ONE_SAMPLE

    def __post_init__(self) -> None:
        check_output_file(self.output)
        self.choice.check(self.params)
        if not self.problems:
            raise InputError("limit", 0, "no prompt to roll out", "use a limit of 1 or more")
        require_unique_ids((problem.id for problem in self.problems), "prompts")
        requests = decode_requests(self.loaded.tokenizer, self.problems, style=self.style, kind=self.kind)
        check_requests(requests, self.params, self.loaded.model.config.max_position_embeddings)

    @property
    def chunks(self) -> Path:
        """Folder of the finished chunks."""
        return chunks_of(self.output)

    @cached_property
    def plan(self) -> dict[str, Any]:
        """All that the trajectories depend on."""
        questions = [
            (problem.id, problem.question, problem.task, problem.prefix) for problem in self.problems
        ]
        return {
            "prompts": {
                "count": len(self.problems),
                "sha256": fingerprint(questions),
                "style": self.style,
                "kind": self.kind,
            },
            "decode": dataclasses.asdict(self.params),
            "model": {"source": self.loaded.source, **self.loaded.identity()},
            "batch_size": self.batch_size,
            "chunk_size": self.chunk_size,
            **self.choice.plan(self.problems),
        }

    def run(self) -> list[Trajectory]:
        """The trajectories of all prompts; those of a file that the same call finished before are read.

        Raises InputError if another run is using the folder of chunks or left chunks of other prompts,
        settings or weights in it, or if the output was made from such.
        """
        return once(self.chunks, self.plan, CHUNKS, take=self._take, work=self._make)

    def run_shard(self, shard: Shard) -> list[Trajectory] | None:
        """The same for one of several runs, which rolls out the chunks of its shard.

        The run after which all chunks are in the folder makes the output. None: there are some missing, or
        another one made it.
        """

        def part(folder: Path) -> None:
            firsts = [first for number, first in enumerate(self._firsts()) if shard.takes(number)]
            self._roll_out(folder, firsts, f"rollout, shard {shard}")

        def work(folder: Path) -> list[Trajectory] | None:
            return self._make(folder) if all(map(Path.is_file, self._files(folder))) else None

        how: dict[str, Any] = {"take": self._take, "part": part, "work": work}
        return once_by_shards(self.chunks, self.plan, CHUNKS, shard, **how)

    @property
    def sizes(self) -> list[int]:
        """Prompts of each chunk."""
        return [len(self.problems[first : first + self.chunk_size]) for first in self._firsts()]

    def is_made(self, shard: Shard) -> bool:
        """Whether all chunks of a shard are in the folder, or the output that was made of them is there."""
        files = enumerate(self._files(self.chunks))
        return self.output.is_file() or all(file.is_file() for number, file in files if shard.takes(number))

    def num_chunks(self) -> tuple[int, int]:
        """Chunks that are in the folder, and all."""
        files = self._files(self.chunks)
        return sum(map(Path.is_file, files)), len(files)

    def _take(self) -> list[Trajectory] | None:
        if not self.output.is_file():
            return None
        take_finished(self.output, read_plan(self.output), self.plan)
        return read_trajectories(self.output)

    def _make(self, folder: Path) -> list[Trajectory]:
        trajectories = self._roll_out(folder, self._firsts(), "rollout")
        self.choice.check_kept(len(trajectories))
        write_trajectories(self.output, trajectories, plan=full_plan(self.plan))
        return trajectories

    def _firsts(self) -> Sequence[int]:
        """Index of the first prompt of every chunk."""
        return range(0, len(self.problems), self.chunk_size)

    def _files(self, folder: Path) -> list[Path]:
        return [folder / f"chunk-{number:05d}.parquet" for number in range(len(self._firsts()))]

    def _roll_out(self, folder: Path, firsts: Sequence[int], label: str) -> list[Trajectory]:
        """Chunks that are in the folder are read, all others are rolled out."""
        how: dict[str, Any] = {"style": self.style, "kind": self.kind, "batch_size": self.batch_size}
        how["choice"] = self.choice
        files, whole = self._files(folder), full_plan(self.plan)
        parts = {first: self.problems[first : first + self.chunk_size] for first in firsts}
        trajectories: list[Trajectory] = []
        num_samples = self.choice.num_samples
        with Progress(label, sum(map(len, parts.values())) * num_samples) as progress:
            for first, part in parts.items():
                file = files[first // self.chunk_size]
                plan = plan_of_part(whole, Part(first, len(self.problems), count=len(part)))
                if file.is_file():
                    trajectories += _read_chunk(file, plan)
                    progress.skip(len(part) * num_samples)
                    continue
                rolled = roll_out(self.loaded, part, self.params, progress=progress, **how)
                write_trajectories(file, rolled, plan=plan)
                trajectories += rolled
        return trajectories


def chunks_of(output: Path) -> Path:
    """Folder of the chunks of an output."""
    return output.with_name(output.name + ".chunks")


def _read_chunk(path: Path, plan: Mapping[str, Any]) -> list[Trajectory]:
    """Raises InputError for a chunk that is not as it was written, or that another plan made."""
    fix = "delete it; the same command then rolls it out again"
    try:
        trajectories = read_trajectories(path, may_be_empty=True)  # none of its samples was kept
    except InputError as error:
        raise InputError("output", str(path), f"damaged ({error.problem})", fix) from error
    if found := differences(read_plan(path) or {}, plan):
        raise InputError("output", str(path), f"is of another run: {described(found)}", fix)
    return trajectories
