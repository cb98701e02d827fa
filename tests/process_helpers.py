"""Two processes of one group, as torchrun starts them, which import what they share only once."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

# Forked before anything runs: no thread, no process group and no device exists yet.
LAUNCH = """
import os, traceback
def launch(work, port):
    children = []
    for rank in "01":
        child = os.fork()
        if child == 0:
            os.environ |= {"RANK": rank, "LOCAL_RANK": rank, "MASTER_PORT": port}
            try:
                exec(compile(work, "work", "exec"), globals())
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(child)
    ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    if ends != [0, 0]:
        raise SystemExit(f"the processes ended with {ends}")
"""


def run_two_processes(
    imports: str, works: Sequence[str], folder: Path, arguments: Sequence[str], seconds: float = 120
) -> None:
    """Run each work in two processes, ``imports`` once before all; a failure if one ends badly or late."""
    script = folder / "works.py"
    calls = "".join(f"launch({work!r}, {str(_free_port())!r})\n" for work in works)
    script.write_text(imports + LAUNCH + calls)
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
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


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
