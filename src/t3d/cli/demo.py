"""The command ``t3d demo``: the main job end to end on the bundled teacher."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from t3d.cli.config_file import check_config, write_config
from t3d.report.html.name import NAME, check_report
from t3d.reproduce.demo_config import DemoConfig


@dataclass(frozen=True, kw_only=True)
class Demo(DemoConfig):
    """Distil the bundled teacher into a few-step student and compare them, in minutes on a CPU."""

    output: str = "runs/demo"
    """Folder for summary.json, plot.png, report.html, student and trajectories."""

    def run(self) -> None:
        """Run the command."""
        from t3d.report.demo_table import left_to_right_table, summary_table
        from t3d.report.html.page import add_report
        from t3d.reproduce.demo import run_demo

        check_config(self, Path(self.output) / "config.yaml")
        check_report(Path(self.output) / NAME)
        summary = run_demo(self)
        config = dataclasses.replace(self, dtype=summary["dtype"])
        write_config(config, Path(self.output) / "config.yaml")
        Console().print(summary_table(summary))
        Console().print(left_to_right_table(summary))
        print(f"{summary['seconds']['total']:.0f} s; summary, plot, student, trajectories in {self.output}")
        add_report(Path(self.output))
