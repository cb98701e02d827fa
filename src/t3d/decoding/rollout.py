"""Rollouts: a teacher decodes prompts and its trajectories are kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from t3d.decoding.answered import roll_out_answered, trajectories_of
from t3d.decoding.completion import check_requests
from t3d.decoding.llm import LLM
from t3d.decoding.params import BATCH_SIZE, DecodeParams
from t3d.decoding.posed_requests import decode_requests
from t3d.decoding.sample_choice import ONE_SAMPLE, SampleChoice
from t3d.errors import InputError, require_at_least_zero, require_unique_ids
from t3d.models.loading import LoadedModel
from t3d.problems.problem import Problem
from t3d.problems.prompt_styles import PromptKind, PromptStyle
from t3d.trajectory import Trajectory, read_plan, read_trajectories, write_trajectories
from t3d.work.failures import Failures, errors_file, new_attempt, unit_errors_file
from t3d.work.files import check_output_file
from t3d.work.kept import CHUNK_SIZE, once
from t3d.work.parts import Part, plan_of_part
from t3d.work.plan import check_same, described, differences, fingerprint, full_plan, take_finished
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
    return trajectories_of(loaded, problems, completions, choice)


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
    max_errors: int = 0
    """Prompts that may make the model raise: they are left out, listed beside the output, and tried again by
    the next attempt. With one more TooManyErrors is raised."""
    attempt: str = ""
    """Of workers that make all chunks together: the same name for each. Without it every call is one."""
    told: str = ""
    """The output's name, where it is made here under another."""

    def __post_init__(self) -> None:
        require_at_least_zero(self, "max_errors")
        check_output_file(self.output)
        self.choice.check(self.params)
        if not self.problems:
            raise InputError("limit", 0, "no prompt to roll out", "use a limit of 1 or more")
        require_unique_ids((problem.id for problem in self.problems), "prompts")
        requests = decode_requests(self.loaded.tokenizer, self.problems, style=self.style, kind=self.kind)
        check_requests(requests, self.params, self.loaded.model.config.max_position_embeddings)
        longest = max(len(request.prompt_ids) for request in requests) + self.params.max_new_tokens
        self.choice.check_scorer(self.loaded.tokenizer, longest)

    @property
    def chunks(self) -> Path:
        """Folder of the finished chunks."""
        return chunks_of(self.output)

    @cached_property
    def plan(self) -> dict[str, Any]:
        """All that the trajectories depend on."""
        return {
            "prompts": {
                "count": len(self.problems),
                "sha256": fingerprint([problem.asked for problem in self.problems]),
                "style": self.style,
                "kind": self.kind,
            },
            "decode": self.params.record(),
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
        failures = self.failures()
        how: dict[str, Any] = {"take": partial(self._take, failures), "stays": failures.any}
        return once(self.chunks, self.plan, CHUNKS, work=partial(self._make, failures, True), **how)

    def failures(self) -> Failures:
        """Prompts that failed, by chunk."""
        files = [unit_errors_file(file) for file in self._files(self.chunks)]
        return Failures(errors_file(self.output), self.max_errors, self.attempt or new_attempt(), files)

    def run_shard(self, shard: Shard) -> list[Trajectory] | None:
        """The same for one of several runs, which rolls out the chunks of its shard.

        The run after which all chunks are in the folder makes the output. None: there are some missing, or
        another one made it.
        """

        failures = self.failures()

        def part(folder: Path) -> None:
            numbers = [number for number in range(len(self._firsts())) if shard.takes(number)]
            self._roll_out(folder, numbers, f"rollout, shard {shard}", failures, True)

        def work(folder: Path) -> list[Trajectory] | None:
            is_tried = not (self.attempt and failures.to_try())
            all_there = all(map(Path.is_file, self._files(folder)))
            return self._make(failures, False, folder) if is_tried and all_there else None

        how: dict[str, Any] = {"take": partial(self._take, failures), "part": part, "work": work}
        how["stays"] = failures.any
        return once_by_shards(self.chunks, self.plan, CHUNKS, shard, **how)

    @property
    def sizes(self) -> list[int]:
        """Prompts of each chunk."""
        return [len(self.problems[first : first + self.chunk_size]) for first in self._firsts()]

    def files(self, shard: Shard) -> list[Path]:
        """Of a shard's chunks, where they are kept until all are there."""
        return [file for number, file in enumerate(self._files(self.chunks)) if shard.takes(number)]

    def is_made(self, shard: Shard) -> bool:
        """Whether nothing is to be done or tried again of a shard's chunks, or of the output of all."""
        failures, files = self.failures(), self._files(self.chunks)
        if self.output.is_file() and not failures.to_try():
            return True
        return all(
            file.is_file() and not failures.of_unit(number).to_try()
            for number, file in enumerate(files)
            if shard.takes(number)
        )

    def num_chunks(self) -> tuple[int, int]:
        """Chunks that are in the folder, and all."""
        files = self._files(self.chunks)
        return sum(map(Path.is_file, files)), len(files)

    def _take(self, failures: Failures) -> list[Trajectory] | None:
        if not self.output.is_file():
            return None
        if failures.to_try():
            check_same(self.output, read_plan(self.output), self.plan)
            return None
        take_finished(self.told or self.output, read_plan(self.output), self.plan)
        return read_trajectories(self.output)

    def _make(self, failures: Failures, tries_again: bool, folder: Path) -> list[Trajectory]:
        numbers = range(len(self._firsts()))
        trajectories = self._roll_out(folder, numbers, "rollout", failures, tries_again)
        failures.report()
        self.choice.check_kept(len(trajectories))
        write_trajectories(self.output, trajectories, plan=full_plan(self.plan))
        return trajectories

    def _firsts(self) -> Sequence[int]:
        """Index of the first prompt of every chunk."""
        return range(0, len(self.problems), self.chunk_size)

    def _files(self, folder: Path) -> list[Path]:
        return [folder / f"chunk-{number:05d}.parquet" for number in range(len(self._firsts()))]

    def _roll_out(
        self, folder: Path, numbers: Sequence[int], label: str, failures: Failures, tries_again: bool
    ) -> list[Trajectory]:
        """Chunks that are in the folder are read, others rolled out, and what failed may be tried again."""
        files, whole = self._files(folder), full_plan(self.plan)
        parts = {number: self._part(number) for number in numbers}
        trajectories: list[Trajectory] = []
        num_samples = self.choice.num_samples
        with Progress(label, sum(map(len, parts.values())) * num_samples) as progress:
            for number, part in parts.items():
                first = number * self.chunk_size
                plan = plan_of_part(whole, Part(first, len(self.problems), count=len(part)))
                kept = _read_chunk(files[number], plan) if files[number].is_file() else None
                to_try = failures.of_unit(number).to_try() if tries_again else set()
                asked = [problem for problem in part if kept is None or problem.id in to_try]
                progress.skip((len(part) - len(asked)) * num_samples)
                if asked:
                    kept = self._complete(number, kept or [], asked, failures, progress)
                    write_trajectories(files[number], kept, plan=plan)
                    failures.of_unit(number).forget(to_try)
                trajectories += kept or []
        return trajectories

    def _complete(
        self,
        number: int,
        kept: Sequence[Trajectory],
        asked: Sequence[Problem],
        failures: Failures,
        progress: Progress,
    ) -> list[Trajectory]:
        """A chunk's trajectories with those of the problems that are asked, in the order of all problems."""
        how: dict[str, Any] = {"style": self.style, "kind": self.kind, "batch_size": self.batch_size}
        how |= {"choice": self.choice, "max_failed": failures.num_left(), "progress": progress}
        rolled, failed = roll_out_answered(self.loaded, asked, self.params, **how)
        failures.add(number, failed)  # before the chunk, which without them would count as whole
        problems = self._part(number)
        names, records = {problem.id for problem in asked}, dict[str, list[Trajectory]]()
        for group in (kept, rolled):
            owners = self.choice.problems_of((record.id for record in group), problems)
            for owner, record in zip(owners, group, strict=True):
                if group is rolled or owner.id not in names:  # a kill may have come before it was forgotten
                    records.setdefault(owner.id, []).append(record)
        return [record for problem in problems for record in records.get(problem.id, [])]

    def _part(self, number: int) -> Sequence[Problem]:
        """Problems of a chunk."""
        first = number * self.chunk_size
        return self.problems[first : first + self.chunk_size]


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
