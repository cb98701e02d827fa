"""The command ``t3d rollout``: a teacher decodes prompts, and its trajectories are kept."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from t3d.cli.config_file import UNWRITTEN, check_config, write_config
from t3d.cli.decode_flags import DecodeFlags, Flat
from t3d.cli.options import DecodingModelChoice, ProblemChoice
from t3d.cli.processes import own_device, own_shard
from t3d.cli.ray_flags import OnRay, RayFlags
from t3d.cli.record_name import check_record_name
from t3d.decoding.params import BATCH_SIZE
from t3d.decoding.rollout_filter import RolloutFilter, is_graded
from t3d.errors import InputError, require_at_least_zero, require_positive
from t3d.model_choice import check_model
from t3d.problems.problem import Problem
from t3d.scale.stored import StoredWork
from t3d.tasks.task import PosedTask
from t3d.work.failures import failed_line, new_attempt
from t3d.work.files import check_output_file
from t3d.work.kept import CHUNK_SIZE
from t3d.work.plan import full_plan
from t3d.work.remote import RemoteOutput, is_remote
from t3d.work.shards import Shard

if TYPE_CHECKING:
    from t3d.decoding.rollout import FileRollout
    from t3d.decoding.sample_choice import SampleChoice
    from t3d.trajectory import Trajectory

_FILES = (("", ".yaml", ".errors.jsonl"), ".chunks")
"""What is added to an output's name for its files, and for the folder of its chunks."""
MAX_NAMED = 4
"""Prompts that are left out and named."""


@dataclass(frozen=True, kw_only=True)
class Rollout(DecodingModelChoice, ProblemChoice):
    """Let a teacher decode prompts and keep its trajectories."""

    output: str
    """Parquet file to write; its settings go to OUTPUT.yaml. Also on an object store, such as
    s3://BUCKET/NAME.parquet (docs/scaling.md)."""
    batch_size: int = BATCH_SIZE
    """Requests decoded together."""
    chunk_size: int = CHUNK_SIZE
    """Prompts decoded between two saves; a killed rollout continues after the last."""
    on_long_prompt: Literal["skip", "error"] = "error"
    """A prompt that leaves no room for max_new_tokens stops the rollout, or is left out and counted."""
    num_samples: int = 1
    """Responses drawn for each prompt; several have the ids ID#0, ID#1, ..."""
    rollout_filter: RolloutFilter = "none"
    """Of a prompt's samples none keeps all; likelihood the likeliest; fewest_steps the one of fewest
    denoising steps; correct all that are right; correct_fewest_steps the one of these with fewest steps;
    teacher the one that --scores-from finds likeliest of those whose every token it gives a tenth or more."""
    scores_from: str | None = None
    """Of rollout_filter teacher: a checkpoint of --model's tokens, which no answer key is needed for."""
    max_errors: int = 0
    """Prompts that may make the model raise. They are left out, listed in OUTPUT.errors.jsonl, and tried
    again by the same command; one more ends the rollout. 0: the first does."""
    shard: str | None = None
    """I/N: roll out every N-th chunk, from the I-th on. The last of N runs with the same output makes it;
    other outputs are merged by t3d data merge. Processes of torchrun take a shard each by themselves."""
    decode: Flat = field(default_factory=DecodeFlags)

    workers: OnRay = field(default_factory=RayFlags, metadata=UNWRITTEN)

    def run(self) -> None:
        """Run the command."""
        require_positive(self, "batch_size", "chunk_size", "num_samples")
        require_at_least_zero(self, "max_errors")
        shard = own_shard(self.shard)
        self.workers.check(shard)
        was_there = self._check_output()
        if self.workers.ray:
            self._asked(is_told=True)  # what can be refused before there are workers
            prepare, output = partial(prepared_rollout, self, attempt=new_attempt()), self.output
            how: dict[str, Any] = {
                "label": "rollout",
                "items": "prompts",
                "told_identity": self.told_identity,
            }
            lines = self.workers.made(prepare, output, was_there, self.device, **how)
        else:
            is_one = is_remote(self.output) and shard is None  # it makes chunk after chunk, with one bound
            prepared = prepared_rollout(self, is_told=True, attempt=new_attempt() if is_one else "")
            for note in prepared.notes:
                print(note)
            lines = prepared.run(shard)
        for line in lines:
            print(line)

    def _check_output(self) -> bool:
        """Whether there is one; what can be refused of its name before the work."""
        check_record_name(self.output)
        if is_remote(self.output):
            remote = RemoteOutput(self.output, *_FILES)
            there = remote.there()
            remote.pull(there, {".yaml"}.__contains__)
            with remote.errors():
                check_config(self, f"{remote.local}.yaml", self.prompts)
            return "" in there
        check_output_file(self.output, self.prompts)
        check_config(self, f"{self.output}.yaml", self.prompts)
        return Path(self.output).is_file()

    def _asked(self, *, is_told: bool) -> "_Asked":
        """The prompts, how to decode them and what to keep; the checkpoint's part is printed if wanted."""
        self.check_model()
        self._check_scores()
        posed = self.resolve()
        decode = self.decode.resolve(self.own_settings(), is_told=is_told)
        choice = self._choice(posed)
        choice.check(decode.params())
        return _Asked(posed, decode, choice)

    def _choice(self, posed: PosedTask) -> "SampleChoice":
        """Raises InputError for a filter without use, and a graded one of problems that cannot be graded."""
        from t3d.decoding.sample_choice import SampleChoice
        from t3d.decoding.teacher_scorer import TeacherScorer

        source = self.scores_from
        return SampleChoice(
            num_samples=self.num_samples,
            rollout_filter=self.rollout_filter,
            grader=posed.sample_grader() if is_graded(self.rollout_filter) else None,
            scorer=None if source is None else TeacherScorer(source, own_device(self.device), self.dtype),
        )

    def _check_scores(self) -> None:
        """Raise InputError for a filter without the model that it asks, and for one that nobody asks."""
        if self.rollout_filter == "teacher" and self.scores_from is None:
            problem = "asks how likely a teacher finds the samples"
            raise InputError("rollout_filter", "teacher", problem, "give --scores-from CHECKPOINT")
        check_scores_from(self.scores_from, self.rollout_filter)


def check_scores_from(source: str | None, rollout_filter: RolloutFilter) -> None:
    """Raise InputError for a model that no filter asks, and for a name that can be no checkpoint."""
    if source is None:
        return
    if rollout_filter != "teacher":
        problem = f"rollout_filter={rollout_filter!r} asks no model"
        raise InputError("scores_from", source, problem, "use --rollout-filter teacher")
    check_model(source, "scores_from")


@dataclass(frozen=True)
class _Asked:
    """What a rollout depends on, the model aside."""

    posed: PosedTask
    decode: DecodeFlags
    choice: "SampleChoice"


def prepared_rollout(
    command: Rollout, *, is_told: bool = False, attempt: str = ""
) -> "PreparedRollout | StoredRollout":
    """Load the model, and leave out what is too long for it if that is to be skipped.

    Workers that make the chunks of one run together have an ``attempt`` in common.
    """
    if not is_remote(command.output):
        return _prepared(command, command.output, is_told, attempt)
    remote = RemoteOutput(command.output, *_FILES)
    work = _prepared(replace(command, output=str(remote.local)), command.output, is_told, attempt)
    return StoredRollout(work, remote)


def _prepared(command: Rollout, told: str, is_told: bool, attempt: str) -> "PreparedRollout":
    asked = command._asked(is_told=is_told)
    from t3d.decoding.answered import fitting_problems
    from t3d.decoding.rollout import FileRollout

    posed, params = asked.posed, asked.decode.params()
    loaded, problems, too_long = command.workers.load(command.load), posed.problems, []
    if command.on_long_prompt == "skip":
        problems, too_long = fitting_problems(loaded, problems, params, style=posed.style, kind=posed.kind)
    if not problems and too_long:
        fix = "lower max_new_tokens, or shorten the prompts"
        raise InputError("on_long_prompt", "skip", "every prompt is too long", fix)
    rollout = FileRollout(
        loaded=loaded,
        problems=problems,
        params=params,
        output=Path(command.output),
        style=posed.style,
        kind=posed.kind,
        batch_size=command.batch_size,
        chunk_size=command.chunk_size,
        choice=asked.choice,
        max_errors=command.max_errors,
        attempt=attempt,
        told=told,
    )
    return PreparedRollout(command, asked, rollout, too_long)


@dataclass(frozen=True)
class PreparedRollout:
    """A rollout with its model, as one process does it or a worker on Ray (t3d.scale)."""

    command: Rollout
    asked: _Asked
    rollout: "FileRollout"
    too_long: Sequence[Problem]

    @property
    def plan(self) -> dict[str, Any]:
        """All that the trajectories depend on."""
        return full_plan(self.rollout.plan)

    @property
    def sizes(self) -> list[int]:
        """Prompts of each chunk."""
        return self.rollout.sizes

    @property
    def notes(self) -> list[str]:
        """The prompts that are left out."""
        if not self.too_long:
            return []
        named = ", ".join(problem.id for problem in self.too_long[:MAX_NAMED])
        more = ", ..." if len(self.too_long) > MAX_NAMED else ""
        count = len(self.asked.posed.problems)
        return [f"left out of {count} prompts: {len(self.too_long)} too long ({named}{more})"]

    def files(self, shard: Shard) -> list[Path]:
        """Of a shard's chunks."""
        return self.rollout.files(shard)

    def is_made(self, shard: Shard) -> bool:
        """Whether the shard's chunks are there."""
        return self.rollout.is_made(shard)

    def make(self, shard: Shard) -> list[str] | None:
        """Make a shard's chunks; what is to be said of all trajectories, if they are there now."""
        trajectories = self.rollout.run_shard(shard)
        return None if trajectories is None else self._finished(trajectories, None)

    def run(self, shard: Shard | None) -> list[str]:
        """Make a shard's chunks or all; what is to be said."""
        if shard is not None:
            return self.make(shard) or [f"shard {shard}: {_left_to_do(self.rollout)}"]
        is_begun = self.rollout.output.exists() or self.rollout.chunks.exists()
        started = time.perf_counter()
        trajectories = self.rollout.run()
        return self._finished(trajectories, None if is_begun else time.perf_counter() - started)

    def _finished(self, trajectories: "Sequence[Trajectory]", seconds: float | None) -> list[str]:
        from t3d.report.rollout import rollout_lines, sample_lines

        command, choice, problems = self.command, self.asked.choice, self.rollout.problems
        used = replace(command, decode=self.asked.decode.used(), shard=None, output=self.rollout.told)
        write_config(used, f"{command.output}.yaml")
        answered = choice.problems_of((trajectory.id for trajectory in trajectories), problems)
        posed = replace(self.asked.posed, problems=answered)
        tokenizer, failures = self.rollout.loaded.tokenizer, self.rollout.failures()
        listed = str(failures.path).replace(command.output, self.rollout.told)
        return [
            f"{len(trajectories)} trajectories in {self.rollout.told}",
            *sample_lines(trajectories, problems, choice),
            *rollout_lines(trajectories, posed, tokenizer, seconds, command.rollout_filter),
            *failed_line(failures.count(), listed),
        ]


class StoredRollout(StoredWork[list[str]]):
    """The same with its output on an object store."""

    def run(self, shard: Shard | None) -> list[str]:
        """Make a shard's chunks or all; what is to be said."""
        lines = self.make(shard or Shard(1, 1))
        if lines is not None:
            return lines
        left = f"{self.num_there()} of {len(self.sizes)} chunks are in {self.remote.url}{_FILES[1]}"
        return [f"shard {shard}: {left}; the last shard makes {self.remote.url}"]


def _left_to_do(rollout: "FileRollout") -> str:
    """Who makes the output, after a shard that did not."""
    num_there, num_all = rollout.num_chunks()
    if rollout.output.is_file():
        return f"another one made {rollout.output}"
    return f"{num_there} of {num_all} chunks are in {rollout.chunks}; the last shard makes {rollout.output}"
