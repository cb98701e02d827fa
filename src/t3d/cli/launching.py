"""A command in several processes on this machine, which accelerate's own launcher starts and watches."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from t3d.errors import InputError

_SHIPPED = Path(__file__).parent / "accelerate_configs"


def accelerate_file(name: str) -> Path:
    """accelerate's settings: shipped ones by their name, or a YAML file. Raises InputError for neither."""
    shipped = {path.stem: path for path in sorted(_SHIPPED.glob("*.yaml"))}
    if name not in shipped and not Path(name).is_file():
        fix = f"use {' or '.join(shipped)}, or a YAML file that accelerate config wrote"
        raise InputError("accelerate_config", name, "not known, and no such file", fix)
    return shipped.get(name, Path(name))


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
