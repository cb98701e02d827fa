"""The command ``t3d report``: a run's results as one page."""

import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from t3d.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write report.html of a finished run again: accuracies and costs, curves, answers, settings, versions.

    t3d eval, demo, train and reproduce write it themselves.
    """

    run_folder: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_FOLDER")]
    """Output of t3d eval, demo, train or reproduce, or a folder that holds several evaluations."""
    output: str | None = None
    """File to write. Default: RUN_FOLDER/report.html."""
    open: bool = False
    """Open the page in the browser."""

    def run(self) -> None:
        """Run the command."""
        if self.output is not None and Path(self.output).suffix not in (".html", ".htm"):
            raise InputError("output", self.output, "not the name of a page", "end it in .html")
        if not Path(self.run_folder).is_dir():
            raise InputError("run_folder", self.run_folder, "no such folder", "give a finished run's output")
        from t3d.report.html.page import write_report

        path = write_report(Path(self.run_folder), None if self.output is None else Path(self.output))
        print(path)
        if self.open:
            webbrowser.open(path.resolve().as_uri())
