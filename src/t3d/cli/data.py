"""The commands ``t3d data ...``: look at, check, convert and make trajectories."""

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console

from t3d.cli.options import ProblemChoice
from t3d.cli.record_name import check_record_name
from t3d.errors import InputError, require_positive
from t3d.interchange.formats.names import FormatName
from t3d.tasks.benchmarks import BENCHMARKS
from t3d.work.files import check_output_file

if TYPE_CHECKING:
    from t3d.interchange.formats.assemble import Drop, ImportSettings
    from t3d.models.token_ids import LoadedTokenizer
    from t3d.trajectory import Trajectory

MAX_LISTED = 20
"""Problems that ``validate`` prints one by one."""
MAX_NAMED = 3
"""Records that ``convert`` names per reason."""
RECORD_FLAGS = ("steps_per_block", "first_step", "task", "teacher")
IMPORT_FLAGS = ("block_size", *RECORD_FLAGS, "mask_token_id", "stop_token_ids")
"""Flags of ``convert`` for what only foreign records leave open; the first group is taken as it is."""


@dataclass(frozen=True, kw_only=True)
class DataStats:
    """Print what a file of trajectories holds: counts, lengths, steps, settings."""

    trajectories: str
    """Parquet file of t3d rollout or t3d data convert."""
    json: bool = False
    """Print JSON instead of a table."""

    def run(self) -> None:
        """Run the command."""
        from t3d.interchange.stats import trajectory_stats
        from t3d.report.trajectory_stats import stats_table
        from t3d.trajectory import read_trajectories

        stats = trajectory_stats(read_trajectories(self.trajectories))
        if self.json:
            print(json.dumps(dataclasses.asdict(stats), indent=2))
        else:
            Console().print(stats_table(stats, title=f"{self.trajectories}{self._part()}"))

    def _part(self) -> str:
        from t3d.trajectory import read_plan
        from t3d.work.parts import part_of

        part = part_of(read_plan(self.trajectories))
        return "" if part is None else f": a part, from record {part.first + 1} of {part.of} on"


@dataclass(frozen=True, kw_only=True)
class DataValidate:
    """Check every record of a file of trajectories; exit status 2 if anything is wrong."""

    trajectories: str
    """Parquet file of t3d rollout or t3d data convert."""
    model: str | None = None
    """Also compare token ids and tokenizer with this checkpoint: folder, hub id or mini."""

    def run(self) -> None:
        """Run the command."""
        from t3d.interchange.validate import validate_file
        from t3d.models.loading import load_tokenizer

        loaded = None if self.model is None else load_tokenizer(self.model)
        num_records, problems = validate_file(self.trajectories, loaded)
        if not problems:
            print(f"{num_records} records, no problem")
            return
        for problem in problems[:MAX_LISTED]:
            print(f"{problem.id}: {problem.problem}")
        if len(problems) > MAX_LISTED:
            print(f"and {len(problems) - MAX_LISTED} more")
        num_broken = len({problem.id for problem in problems})
        found = f"{len(problems)} problems under {num_broken} ids in {num_records} records"
        raise InputError(
            "trajectories", self.trajectories, found, "remove or repair the records listed above"
        )


@dataclass(frozen=True, kw_only=True)
class DataSolutions(ProblemChoice):
    """Write problems with their solutions as records to fine-tune on (t3d train --preset sft)."""

    output: str
    """Parquet file to write."""
    model: str
    """Checkpoint whose tokenizer and token ids hold: folder, hub id or mini."""
    block_size: int = 8
    """The student's: its blocks are filled to the end."""

    def run(self) -> None:
        """Run the command."""
        from t3d.interchange.solutions import solution_trajectory
        from t3d.models.loading import load_tokenizer
        from t3d.trajectory import is_without_plan, write_trajectories

        require_positive(self, "block_size")
        check_output_file(self.output, self.prompts, is_own=is_without_plan)
        check_record_name(self.output)
        if self.task in BENCHMARKS:
            fix = "take the training problems of t3d data prompts, such as --source gsm8k_train"
            raise InputError("task", self.task, "its problems come without solutions to learn from", fix)
        posed = self.resolve()
        loaded = load_tokenizer(self.model)
        records = [
            solution_trajectory(problem, loaded, self.block_size, style=posed.style, kind=posed.kind)
            for problem in posed.problems
        ]
        write_trajectories(self.output, records)
        print(f"{len(records)} records in {self.output}")


@dataclass(frozen=True, kw_only=True)
class DataConvert:
    """Convert trajectories between formats; what does not fit is dropped and counted, never changed."""

    input: str
    """File to read; for d3llm a folder of datasets or a .jsonl file."""
    output: str
    """File to write; for d3llm a folder, or a file if the name ends in .jsonl."""
    from_format: FormatName = "t3d"
    """t3d: Parquet of this library; authors: T3D's released code; dllm_rl: dLLM-RL; d3llm: d3LLM."""
    to_format: FormatName = "t3d"
    model: str | None = None
    """Checkpoint whose tokenizer and token ids hold for the records: folder, hub id or mini."""
    strict: bool = False
    """A dropped record is an error, and nothing is written."""
    block_size: int | None = None
    """Block size of the rollout. This and the flags below say what records of other formats do not."""
    steps_per_block: int | None = None
    """Denoising steps a block was given; unknown without it."""
    first_step: Literal[0, 1] = 1
    """Number of the first denoising step in the records' step maps."""
    mask_token_id: int | None = None
    """Default: the model's."""
    stop_token_ids: tuple[int, ...] | None = None
    """Default: the model's."""
    task: str = ""
    """Task to record."""
    teacher: str = ""
    """Name of the teacher to record."""

    def run(self) -> None:
        """Run the command."""
        from t3d.interchange.formats.d3llm_files import check_folder
        from t3d.interchange.formats.registry import export_file, split_for_export
        from t3d.models.loading import load_tokenizer
        from t3d.trajectory import is_without_plan, write_trajectories

        if self.to_format != "d3llm" or self.output.endswith(".jsonl"):
            # Other formats have no place to say who wrote them.
            is_own = is_without_plan if self.to_format == "t3d" else lambda _: False
            check_output_file(self.output, self.input, is_own=is_own)
        else:
            check_folder(Path(self.output))
        if self.to_format == "t3d":
            check_record_name(self.output)
        loaded = None if self.model is None else load_tokenizer(self.model)
        if self.to_format != "t3d" and loaded is None:
            problem = f"{self.to_format} holds text, which needs a tokenizer"
            raise InputError("model", None, problem, "set model")
        trajectories, dropped = self._read(loaded)
        if self.to_format != "t3d" and loaded is not None:
            trajectories, unfit = split_for_export(trajectories, self.to_format, loaded.tokenizer)
            dropped = [*dropped, *unfit]
        print(f"{len(trajectories) + len(dropped)} records, {len(dropped)} dropped")
        _print_drops(dropped)
        if dropped and self.strict:
            fix = "repair the input, or leave out strict"
            raise InputError("strict", True, f"{len(dropped)} records were dropped, nothing is written", fix)
        if not trajectories:
            fix = "check block_size, model and from_format"
            raise InputError("input", self.input, "every record was dropped, nothing is written", fix)
        if self.to_format != "t3d" and loaded is not None:
            export_file(self.output, self.to_format, trajectories, loaded.tokenizer)
        else:
            write_trajectories(self.output, trajectories)
        print(f"{len(trajectories)} records in {self.output}")

    def _read(self, loaded: "LoadedTokenizer | None") -> "tuple[list[Trajectory], list[Drop]]":
        from t3d.interchange.formats.registry import import_file
        from t3d.trajectory import read_trajectories

        if self.from_format != "t3d":
            return import_file(self.input, self.from_format, self._import_settings(loaded))
        for name in IMPORT_FLAGS:
            if getattr(self, name) != getattr(DataConvert, name):
                problem = "records of from_format='t3d' say this themselves"
                raise InputError(name, getattr(self, name), problem, "leave it out")
        return read_trajectories(self.input), []

    def _import_settings(self, loaded: "LoadedTokenizer | None") -> "ImportSettings":
        """The flags as settings; the model fills in what they leave open."""
        from t3d.interchange.formats.assemble import ImportSettings

        if self.block_size is None:
            fix = "set block_size to that of the rollout (4 in the released T3D rollouts)"
            raise InputError("block_size", None, f"{self.from_format} does not record it", fix)
        mask_token_id, stop_token_ids = self.mask_token_id, self.stop_token_ids
        if loaded is not None:
            mask_token_id = loaded.mask_token_id if mask_token_id is None else mask_token_id
            stop_token_ids = loaded.stop_token_ids if stop_token_ids is None else stop_token_ids
            if not 0 <= mask_token_id < len(loaded.tokenizer):
                problem = f"{self.model} has {len(loaded.tokenizer)} tokens"
                raise InputError("mask_token_id", mask_token_id, problem, "leave it out, or use its id there")
        if mask_token_id is None or stop_token_ids is None:
            fix = "set model, or mask_token_id and stop_token_ids for a format of token ids (d3llm)"
            raise InputError("model", None, f"{self.from_format} records neither mask nor stop tokens", fix)
        return ImportSettings(
            block_size=self.block_size,
            mask_token_id=mask_token_id,
            stop_token_ids=stop_token_ids,
            tokenizer=None if loaded is None else loaded.tokenizer,
            tokenizer_hash="" if loaded is None else loaded.tokenizer_hash,
            **{name: getattr(self, name) for name in RECORD_FLAGS},
        )


def _print_drops(dropped: "Sequence[Drop]") -> None:
    """One line per reason, the most frequent first."""
    counts = Counter(drop.reason for drop in dropped)
    for reason, count in counts.most_common():
        ids = [drop.id for drop in dropped if drop.reason == reason]
        more = ", ..." if count > MAX_NAMED else ""
        print(f"  {count}: {reason} ({', '.join(ids[:MAX_NAMED])}{more})")
