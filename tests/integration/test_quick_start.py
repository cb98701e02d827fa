"""Help, version and refusals of the command line start without the heavy libraries."""

import importlib
import json
import subprocess
import sys

import pytest

import t3d
import t3d.training

HEAVY = ("torch", "transformers", "datasets", "matplotlib", "pyarrow", "accelerate", "lm_eval")
SCRIPT = f"""
import json, sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

from t3d.cli.main import COMMANDS, main

lines = [["--version"], ["--help"], ["frobnicate"], ["--hepl"]]
for name in COMMANDS:
    if name != ("lm-eval",):  # its flags are another program's
        lines += [[*name, "--help"], [*name, "--lerning-rate", "1"]]
outcomes = []
for line in lines:
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        try:
            status = main(line)
        except SystemExit as error:
            status = error.code
    outcomes.append([" ".join(line), status, [name for name in {HEAVY!r} if name in sys.modules]])
print(json.dumps(outcomes))
"""


def test_help_version_and_mistyped_lines_import_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    outcomes = json.loads(done.stdout)
    assert len(outcomes) > 30
    for line, status, imported in outcomes:
        is_help = line.endswith(("--help", "--version"))
        assert (status, imported) == (0 if is_help else 2, []), line


@pytest.mark.parametrize("package", [t3d, t3d.training], ids=lambda package: package.__name__)
def test_every_public_name_can_be_imported_from_its_package(package):
    """They are looked up when they are used."""
    fresh = importlib.import_module(package.__name__)
    assert all(getattr(fresh, name).__name__ == name for name in package.__all__)
    with pytest.raises(AttributeError, match="no attribute 'load_modle'"):
        fresh.load_modle  # noqa: B018
