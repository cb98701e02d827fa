"""The command ``t3d rollout``: a teacher decodes prompts, and its trajectories are kept."""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from t3d.cli.config_file import check_config, write_config
from t3d.cli.options import DecodeFlags, Flat, ModelChoice, ProblemChoice, check_record_name
from t3d.cli.processes import own_shard
from t3d.decoding.params import BATCH_SIZE
from t3d.decoding.rollout_filter import RolloutFilter, is_graded
from t3d.errors import InputError, require_positive
from t3d.tasks.task import PosedTask
from t3d.work.files import check_output_file
from t3d.work.kept import CHUNK_SIZE

if TYPE_CHECKING:
    from t3d.decoding.rollout import FileRollout
    from t3d.decoding.sample_choice import SampleChoice

MAX_NAMED = 4
"""Prompts that are left out and named."""


@dataclass(frozen=True, kw_only=True)
class Rollout(ModelChoice, ProblemChoice):
    """Let a teacher decode prompts and keep its trajectories."""

    output: str
    """Parquet file to write; its settings go to OUTPUT.yaml."""
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
    denoising steps; correct all that are right; correct_fewest_steps the one of these with fewest steps."""
    shard: str | None = None
    """I/N: roll out every N-th chunk, from the I-th on. The last of N runs with the same output makes it;
    other outputs are merged by t3d data merge. Processes of torchrun take a shard each by themselves."""
    decode: Flat = field(default_factory=DecodeFlags)

    def run(self) -> None:
        """Run the command."""
        from t3d.decoding.rollout import FileRollout, fitting_problems
        from t3d.report.rollout import rollout_lines, sample_lines

        require_positive(self, "batch_size", "chunk_size", "num_samples")
        shard = own_shard(self.shard)
        check_output_file(self.output, self.prompts)
        check_config(self, f"{self.output}.yaml", self.prompts)
        check_record_name(self.output)
        posed = self.resolve()
        decode = self.decode.resolve(self.own_settings())
        choice = self._choice(posed)
        choice.check(decode.params())
        loaded, problems, too_long = self.load(), posed.problems, []
        if self.on_long_prompt == "skip":
            problems, too_long = fitting_problems(
                loaded, problems, decode.params(), style=posed.style, kind=posed.kind
            )
        if too_long:
            named = ", ".join(problem.id for problem in too_long[:MAX_NAMED])
            more = ", ..." if len(too_long) > MAX_NAMED else ""
            print(f"left out of {len(posed.problems)} prompts: {len(too_long)} too long ({named}{more})")
        if not problems and too_long:
            fix = "lower max_new_tokens, or shorten the prompts"
            raise InputError("on_long_prompt", "skip", "every prompt is too long", fix)
        is_begun = any(Path(path).exists() for path in (self.output, f"{self.output}.chunks"))
        started = time.perf_counter()
        rollout = FileRollout(
            loaded=loaded,
            problems=problems,
            params=decode.params(),
            output=Path(self.output),
            style=posed.style,
            kind=posed.kind,
            batch_size=self.batch_size,
            chunk_size=self.chunk_size,
            choice=choice,
        )
        trajectories = rollout.run() if shard is None else rollout.run_shard(shard)
        if trajectories is None:
            print(f"shard {shard}: {_left_to_do(rollout)}")
            return
        seconds = None if is_begun or shard else time.perf_counter() - started
        write_config(replace(self, decode=decode.used(), shard=None), f"{self.output}.yaml")
        print(f"{len(trajectories)} trajectories in {self.output}")
        for line in sample_lines(trajectories, problems, choice):
            print(line)
        answered = choice.problems_of((trajectory.id for trajectory in trajectories), problems)
        posed = replace(posed, problems=answered)
        for line in rollout_lines(trajectories, posed, loaded.tokenizer, seconds, self.rollout_filter):
            print(line)

    def _choice(self, posed: PosedTask) -> "SampleChoice":
        """Raises InputError for a filter without use, and a graded one of problems that cannot be graded."""
        from t3d.decoding.sample_choice import SampleChoice

        return SampleChoice(
            num_samples=self.num_samples,
            rollout_filter=self.rollout_filter,
            grader=posed.sample_grader() if is_graded(self.rollout_filter) else None,
        )


def _left_to_do(rollout: "FileRollout") -> str:
    """Who makes the output, after a shard that did not."""
    num_there, num_all = rollout.num_chunks()
    if rollout.output.is_file():
        return f"another one made {rollout.output}"
    return f"{num_there} of {num_all} chunks are in {rollout.chunks}; the last shard makes {rollout.output}"
