"""The command ``t3d rollout``: a teacher decodes prompts, and its trajectories are kept."""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from t3d.cli.config_file import check_config, write_config
from t3d.cli.options import DecodeFlags, Flat, ModelChoice, ProblemChoice, check_record_name
from t3d.decoding.params import BATCH_SIZE
from t3d.errors import InputError, require_positive
from t3d.work.files import check_output_file
from t3d.work.kept import CHUNK_SIZE

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
    decode: Flat = field(default_factory=DecodeFlags)

    def run(self) -> None:
        """Run the command."""
        from t3d.decoding.rollout import fitting_problems, roll_out_to_file
        from t3d.report.rollout import rollout_lines

        require_positive(self, "batch_size", "chunk_size")
        check_output_file(self.output, self.prompts)
        check_config(self, f"{self.output}.yaml", self.prompts)
        check_record_name(self.output)
        posed = self.resolve()
        decode = self.decode.resolve(self.own_settings())
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
        trajectories = roll_out_to_file(
            loaded,
            problems,
            decode.params(),
            self.output,
            style=posed.style,
            kind=posed.kind,
            batch_size=self.batch_size,
            chunk_size=self.chunk_size,
        )
        seconds = None if is_begun else time.perf_counter() - started
        write_config(replace(self, decode=decode.used()), f"{self.output}.yaml")
        print(f"{len(trajectories)} trajectories in {self.output}")
        for line in rollout_lines(trajectories, replace(posed, problems=problems), loaded.tokenizer, seconds):
            print(line)
