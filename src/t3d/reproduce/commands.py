"""The command line that makes one cell again."""

import shlex

from t3d.reproduce.recipes import ORIGINAL, CellSpec
from t3d.reproduce.suites import Suite
from t3d.training.presets import override_text


def cell_command(suite: Suite, cell: CellSpec, *, quick: bool) -> str:
    """A command that trains the cell's student and evaluates it, whatever the learning-rate grid says."""
    student = cell.student
    words = ["t3d", "reproduce", "cell", "--suite", suite.name, "--teacher", student.teacher]
    words += ["--method", student.method, "--seed", str(student.seed)]
    if student.method != ORIGINAL:
        words += ["--learning-rate", f"{student.learning_rate!r}"]
    if student.overrides:
        words += ["--override", *(override_text(name, value) for name, value in student.overrides)]
    words += ["--settings", *cell.settings]
    if cell.split != "test":
        words += ["--split", cell.split]
    if cell.samples_per_prompt != 1:
        words += ["--samples-per-prompt", str(cell.samples_per_prompt)]
    if quick:
        words.append("--quick")
    return shlex.join([*words, *suite.flags, "--output", "runs/cell"])
