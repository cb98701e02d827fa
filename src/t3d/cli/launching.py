"""A command in several processes on this machine, which accelerate's own launcher starts and watches."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def launch(command: str, flags: Sequence[str], count: int, config: Path) -> None:
    """Run ``t3d COMMAND FLAGS`` in ``count`` processes to the end; they are stopped with this one.

    Raises SystemExit with the status of one that did not end well, after it said why.
    """
    line = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    process = subprocess.Popen([*line, "--num_processes", str(count), "-m", "t3d", command, *flags])
    try:
        status = process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    if status:
        raise SystemExit(status)
