"""Compare answers in worker processes, because nothing else can stop sympy in the middle of a computation.

Workers live on from one answer to the next. One that is late, dies or is interrupted is killed and its
replacement starts at once, in the background. A worker is a program of its own (:mod:`math_process`), not a
fork and not a multiprocessing child, so it neither needs an importable ``__main__`` nor inherits anything.
Needs a POSIX system.
"""

import json
import math
import os
import select
import signal
import subprocess
import sys
import time
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Literal

GraderName = Literal["math_verify", "legacy", "exact"]
"""``exact``: equal texts, which needs no worker."""
MathReason = Literal["equal", "different", "no answer", "unparsed", "time limit", "worker died"]
"""Why an answer is right (``equal``) or wrong. ``unparsed``: the grader cannot read it, or it is too long."""

TIME_LIMIT_S = 3.0
"""Default of seconds that one comparison may take."""
START_LIMIT_S = 60.0
MAX_MEMORY = 2 * 2**30
PROCESS_FILE = Path(__file__).with_name("math_process.py")


def usable_cores() -> int:
    """Processor cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class MathWorker:
    """One process that compares one pair of answers after another; for one thread at a time."""

    def __init__(self, grader: GraderName, *, time_limit_s: float) -> None:
        self._grader, self._time_limit_s = grader, time_limit_s
        self._process: subprocess.Popen[bytes] | None = None
        self._finalizer: weakref.finalize | None = None
        self._is_ready = self._is_awaited = False

    @property
    def pid(self) -> int | None:
        """Id of the process, or None while there is none."""
        return None if self._process is None else self._process.pid

    def compare(self, answer: str, gold: str) -> MathReason:
        """The verdict; starts or replaces the process where that is needed."""
        # Interrupted, so that a reply may still come, or died while idle.
        if self._is_awaited or (self._process is not None and self._process.poll() is not None):
            self.close()
        process = self._process or self._start()
        self._is_awaited = True
        if not self._is_ready:
            self._wait_until_ready(process)
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps({"answer": answer, "gold": gold}).encode() + b"\n")
            process.stdin.flush()
            reason = json.loads(self._read_line(process, self._time_limit_s))
        except (TimeoutError, EOFError, BrokenPipeError) as error:
            self.close()
            self._start()
            return "time limit" if isinstance(error, TimeoutError) else "worker died"
        self._is_awaited = False
        return reason

    def close(self) -> None:
        """End the process. Closing twice does nothing."""
        if self._finalizer is not None:
            self._finalizer()
        self._process, self._is_ready, self._is_awaited = None, False, False

    def _start(self) -> subprocess.Popen[bytes]:
        cpu_seconds = math.ceil(self._time_limit_s) + 2
        # -P: the program's own folder holds modules whose names others might import.
        arguments = [self._grader, str(cpu_seconds), str(MAX_MEMORY)]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", str(PROCESS_FILE), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONHASHSEED": "0"},  # sympy orders terms by hash in places
            start_new_session=True,  # Ctrl-C is for the parent, which then ends the worker
        )
        self._finalizer = weakref.finalize(self, _end, self._process, os.getpid())
        return self._process

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        try:
            line = self._read_line(process, START_LIMIT_S)
        except (TimeoutError, EOFError):
            line = b"it says nothing"
        if line != b"ready\n":
            self.close()
            why = line.decode(errors="replace").strip()
            raise RuntimeError(f"the math worker does not start ({why}); try: python {PROCESS_FILE}")
        self._is_ready = True

    @staticmethod
    def _read_line(process: subprocess.Popen[bytes], seconds: float) -> bytes:
        """The next line. Raises TimeoutError after ``seconds``, EOFError if the worker ends."""
        assert process.stdout is not None
        poll = select.poll()
        poll.register(process.stdout, select.POLLIN)
        deadline, received = time.monotonic() + seconds, b""
        while not received.endswith(b"\n"):
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not poll.poll(remaining * 1000):
                raise TimeoutError
            chunk = os.read(process.stdout.fileno(), 2**16)
            if not chunk:
                raise EOFError
            received += chunk
        return received


def _end(process: subprocess.Popen[bytes], owner: int) -> None:
    """Kill a worker and wait for its end; in a forked child of the owner it is not ours to end."""
    assert process.stdin is not None and process.stdout is not None
    if owner == os.getpid():
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    with suppress(BrokenPipeError):  # part of a request that it did not take
        process.stdin.close()
    process.stdout.close()
