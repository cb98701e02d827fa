"""Two processes of one group, as torchrun starts them, which import what they share only once."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

# Forked before anything that runs: no thread, no process group and no device exists yet.
FORK = """
import os
children = []
for rank in "01":
    child = os.fork()
    if child == 0:
        os.environ |= {"RANK": rank, "LOCAL_RANK": rank}
        break
    children.append(child)
else:
    ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    raise SystemExit(0 if ends == [0, 0] else f"the processes ended with {ends}")
"""


def run_two_processes(
    imports: str, work: str, folder: Path, arguments: Sequence[str], seconds: float = 120
) -> None:
    """Run ``work`` in two processes after one ran ``imports``; a failure if one ends badly or late."""
    script = folder / "worker.py"
    script.write_text(imports + FORK + work)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    shared = {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    process = subprocess.Popen(
        [sys.executable, "-u", str(script), *arguments],
        env={**os.environ, **shared},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        text = process.communicate(timeout=seconds)[0]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, 9)
            process.wait()
    assert process.returncode == 0, text
