"""Help, version and refusals of the command line start without the heavy libraries."""

import importlib
import json
import subprocess
import sys

import pytest

import t3d
import t3d.training

HEAVY = ("torch", "transformers", "datasets", "matplotlib", "pyarrow", "accelerate", "lm_eval")
MODEL = "--model nowhere"
REFUSED = [
    f"generate {MODEL} --prompt hi",
    "generate --prompt hi --limit 3",
    "generate --prompt hi --block-size 0",
    "generate --prompt hi --dtype float8",
    "generate --prompt hi --drafter nowhere",
    "generate --prompts nowhere.jsonl",
    f"rollout {MODEL} --task chain --output out",
    "rollout --model mini --task chian --output out",
    "rollout --model mini --prompts nowhere.jsonl --output out",
    f"train {MODEL} --trajectories nowhere.parquet --output out",
    "train --model mini --trajectories nowhere.parquet --output out",
    "train --model mini --trajectories nowhere.parquet --output out --device cuda:1",
    "train --model mini --trajectories there --output out --preset t4d",
    f"distil {MODEL} --task chain --output out",
    "distil --model mini --task chain --output out --preset t4d",
    f"eval {MODEL} --tasks chain --output out",
    "eval --model mini --tasks chian --output out",
    f"serve {MODEL}",
    "serve --model mini --teacher nowhere",
    "convert nowhere --output out",
    "view nowhere",
    "report nowhere",
    "mini oracle --models nowhere",
    "theory --trajectories nowhere.parquet",
    "demo --method t4d",
    "demo --dtype float8",
    "demo --device cuda:1",
    "reproduce table9",
    "reproduce table1 --suite maxi",
    "reproduce cell --method t4d --settings B8-T4",
    "reproduce cell --method t3d --learning-rate 1e-3 --settings B8-T5",
    "reproduce study nowhere.yaml",
]
"""What command line and files alone can refuse."""
SCRIPT = f"""
import json, sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

from t3d.cli.main import COMMANDS, main

lines = [["--version"], ["--help"], ["frobnicate"], ["--hepl"]]
for name in COMMANDS:
    if name != ("lm-eval",):  # its flags are another program's
        lines += [[*name, "--help"], [*name, "--lerning-rate", "1"]]
lines += [line.split() for line in {REFUSED!r}]
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


def test_help_version_and_refused_lines_import_nothing_heavy(tmp_path):
    (tmp_path / "there").touch()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    outcomes = json.loads(done.stdout)
    assert len(outcomes) > 60
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
