"""Commands that are killed for real, at random moments, lose nothing and double nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "kill_and_resume.py"


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(os.name != "posix", reason="kills a process group")
@pytest.mark.parametrize("command", ["rollout", "train", "eval"])
def test_a_command_killed_five_times_ends_like_one_that_was_not(command):
    arguments = [sys.executable, str(SCRIPT), "--command", command, "--kills", "5", "--seed", "1"]
    result = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count(" kill ") == 5
