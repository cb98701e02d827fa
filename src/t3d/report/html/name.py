"""How a report is named and known; light, so that a refusal comes at once."""

from pathlib import Path

from t3d.work.files import check_output_file
from t3d.work.own import text_from

NAME = "report.html"
BEGINNING = "<!doctype html>\n<!-- t3d report -->\n"
"""Of every report, by which an older one is known."""


def check_report(path: Path) -> None:
    """Find out before the work: raise InputError where somebody else's file has the name of a report."""
    check_output_file(path, is_own=text_from(BEGINNING))
