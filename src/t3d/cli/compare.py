"""The command ``t3d compare``: evaluations against each other, prompt by prompt."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.text import Text

from t3d.cli.options import parse_list
from t3d.errors import InputError
from t3d.evaluation.compare import CompareConfig, compare
from t3d.evaluation.samples import read_graded
from t3d.report.comparison import TITLE, change_lines, comparison_markdown, comparison_tables
from t3d.work.files import check_output_file, write_text
from t3d.work.own import json_with, text_from
from t3d.work.versions import versions


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Compare evaluations prompt by prompt: paired differences with 95 % intervals, and what changed."""

    evaluations: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="EVALUATION...")]
    """Output folders of t3d eval, files of t3d grade, or cells of t3d reproduce (cells/LABEL.HASH.json);
    every later one is compared with the first."""
    setting_a: str | None = None
    """With commas: settings of the first evaluation, matched in turn with setting_b; one is matched with all.
    Default: equal settings."""
    setting_b: str | None = None
    """With commas: settings of the other evaluations."""
    all_pairs: bool = CompareConfig.all_pairs
    """Compare every two evaluations."""
    common_only: bool = CompareConfig.common_only
    """Compare the ids that both have; otherwise different ids are an error."""
    list_changes: int = CompareConfig.list_changes
    """Answers per comparison to list whose verdict changed."""
    output: str | None = None
    """File to write: all numbers if it ends in .json, the tables if it ends in .md."""

    def run(self) -> None:
        """Run the command."""
        if self.output is not None:
            if Path(self.output).suffix not in (".json", ".md"):
                raise InputError("output", self.output, "neither .json nor .md", "use one of these endings")
            name = Path(self.output).name
            if name == "results.json" or name.endswith(".summary.json"):
                fix = "use a name of its own, such as compare.json"
                raise InputError("output", self.output, "what t3d eval or t3d grade writes is called so", fix)
            is_markdown = self.output.endswith(".md")
            is_own = text_from(TITLE) if is_markdown else json_with("evaluations", "cells", "means")
            check_output_file(self.output, *self.evaluations, is_own=is_own)
        config = CompareConfig(
            setting_a=parse_list("setting_a", self.setting_a, str, "B4-T1,B4-T2"),
            setting_b=parse_list("setting_b", self.setting_b, str, "B4-T1,B4-T2"),
            all_pairs=self.all_pairs,
            common_only=self.common_only,
            list_changes=self.list_changes,
        )
        summary = compare([read_graded(path) for path in self.evaluations], config)
        console = Console(highlight=False, markup=False)
        for part in comparison_tables(summary):
            console.print(part, soft_wrap=isinstance(part, Text))
        for line in [*summary["notes"], *change_lines(summary)]:
            console.print(line, soft_wrap=True)
        if self.output is not None:
            report = {**summary, "versions": versions()}
            is_markdown = self.output.endswith(".md")
            text = comparison_markdown(report) if is_markdown else json.dumps(report, indent=2) + "\n"
            write_text(self.output, text)
