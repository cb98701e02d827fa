"""The commands ``t3d data merge`` and ``t3d data split``: files of trajectories and their parts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from t3d.cli.record_name import check_record_name
from t3d.errors import InputError
from t3d.work.failures import errors_file, list_failures
from t3d.work.files import check_output_file


@dataclass(frozen=True, kw_only=True)
class DataMerge:
    """Put parts of a rollout together, or join whole files; no record is lost, doubled or changed.

    Prompts that failed in all of them (t3d rollout --max-errors) are counted, and listed beside the output.
    """

    output: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUTPUT")]
    """Parquet file to write."""
    parts: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PART...")]
    """Outputs of t3d rollout --shard, or their folders of chunks; files of t3d data split; or whole files."""

    def run(self) -> None:
        """Run the command."""
        from t3d.interchange.merge import failures_of, files_of, merge
        from t3d.trajectory import is_without_plan, read_plan, write_trajectories

        if not self.parts:
            raise InputError("parts", None, "not given", "write t3d data merge OUTPUT PART...")
        check_record_name(self.output)
        files = [file for part in self.parts for file in files_of(part)]
        merged = merge(files)

        def is_own(found: Path) -> bool:
            return is_without_plan(found) if merged.plan is None else read_plan(found) == merged.plan

        check_output_file(self.output, *files, is_own=is_own)
        write_trajectories(self.output, merged.trajectories, plan=merged.plan)
        doubled = f"; {merged.num_doubled} were there twice, equal" if merged.num_doubled else ""
        failed = failures_of(files, merged.trajectories)
        list_failures(Path(self.output), failed)
        print(f"{len(merged.trajectories)} records of {len(files)} files in {self.output}{doubled}")
        if failed:
            print(f"{len(failed)} of their prompts failed, listed in {errors_file(Path(self.output))}")


@dataclass(frozen=True, kw_only=True)
class DataSplit:
    """Cut a file of trajectories into parts beside it, which t3d data merge puts together again."""

    file: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """Parquet file of t3d rollout or t3d data."""
    parts: int
    """How many: NAME-00000-of-00004.parquet and so on, each of as many records, in their order."""

    def run(self) -> None:
        """Run the command."""
        from t3d.interchange.merge import split

        for output in split(self.file, self.parts):
            print(output)
