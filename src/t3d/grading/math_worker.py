"""Compare answers in worker processes, because nothing else can stop sympy in the middle of a computation.

Workers live on from one answer to the next. One that is late, dies or is interrupted is killed and its
replacement starts at once, in the background. A worker is a program of its own (:mod:`math_process`), not a
fork and not a multiprocessing child, so it neither needs an importable ``__main__`` nor inherits anything.
Needs a POSIX system.
"""

import json
import math
import os
import queue
import select
import signal
import subprocess
import sys
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Literal

from t3d.errors import InputError
from t3d.sandbox.worker_pipe import read_line, write_all

GraderName = Literal["math_verify", "legacy", "exact"]
"""``exact``: equal texts, which needs no worker."""
Reason = Literal["equal", "different", "unparsed", "time limit", "worker died"]
"""``unparsed``: the grader could not read one of the answers, and the texts differ."""

TIME_LIMIT_S = 3.0
"""Default of seconds that one comparison may take."""
START_LIMIT_S = 60.0
MAX_MEMORY = 2 * 2**30
MAX_REPLY_BYTES = 1000
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
        self._poll = select.poll()
        self._is_ready = self._is_awaited = False
        self._number = 0

    @property
    def pid(self) -> int | None:
        """Id of the process, or None while there is none."""
        return None if self._process is None else self._process.pid

    def compare(self, answer: str, gold: str) -> Reason:
        """The verdict; starts or replaces the process where that is needed."""
        if self._is_awaited or (self._is_ready and self._poll.poll(0)):  # interrupted, or died while idle
            self.close()
        if self._process is None:
            self._start()
        self._is_awaited = True
        if not self._is_ready:
            self._wait_until_ready()
        self._number += 1
        try:
            self._write({"number": self._number, "answer": answer, "gold": gold})
            reply = json.loads(self._read_line(self._time_limit_s))
        except TimeoutError:
            return self._replace("time limit")
        except (EOFError, BrokenPipeError):
            return self._replace("worker died")
        assert reply["number"] == self._number, "a reply to another request"
        self._is_awaited = False
        return reply["reason"]

    def close(self) -> None:
        """End the process. Closing twice does nothing."""
        if self._process is not None and self._finalizer is not None:
            assert self._process.stdout is not None
            self._poll.unregister(self._process.stdout)
            self._finalizer()
        self._process, self._is_ready, self._is_awaited = None, False, False

    def _replace(self, reason: Reason) -> Reason:
        self.close()
        self._start()
        return reason

    def _start(self) -> None:
        cpu_seconds = math.ceil(self._time_limit_s) + 2
        # -P: the program's own folder holds modules whose names others might import.
        arguments = [self._grader, str(cpu_seconds), str(MAX_MEMORY)]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", str(PROCESS_FILE), *arguments],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONHASHSEED": "0"},  # sympy orders terms by hash in places
            start_new_session=True,  # Ctrl-C is for the parent, which then ends the worker
        )
        self._finalizer = weakref.finalize(self, _end, self._process, os.getpid())
        assert self._process.stdout is not None
        self._poll.register(self._process.stdout, select.POLLIN)

    def _wait_until_ready(self) -> None:
        try:
            line = self._read_line(START_LIMIT_S)
        except (TimeoutError, EOFError):
            line = b"it says nothing"
        if line != b"ready\n":
            self.close()
            why = line.decode(errors="replace").strip()
            raise RuntimeError(f"the math worker does not start ({why}); try: python {PROCESS_FILE}")
        self._is_ready = True

    def _write(self, request: dict[str, object]) -> None:
        assert self._process is not None and self._process.stdin is not None
        write_all(self._process.stdin.fileno(), json.dumps(request).encode() + b"\n")

    def _read_line(self, seconds: float) -> bytes:
        assert self._process is not None and self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        return read_line(descriptor, seconds=seconds, max_bytes=MAX_REPLY_BYTES)


def _end(process: subprocess.Popen[bytes], owner: int) -> None:
    """Kill a worker and wait for its end; in a forked child of the owner it is not ours to end."""
    assert process.stdin is not None and process.stdout is not None
    if owner == os.getpid():
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    process.stdin.close()
    process.stdout.close()


class MathWorkers:
    """A bounded number of workers that threads share; each starts when it is first needed."""

    def __init__(
        self, grader: GraderName, *, time_limit_s: float = TIME_LIMIT_S, num_workers: int | None = None
    ) -> None:
        if time_limit_s <= 0:
            raise InputError("time_limit_s", time_limit_s, "not positive", "use a few seconds")
        self.num_workers = min(4, usable_cores()) if num_workers is None else num_workers
        if self.num_workers < 1:
            raise InputError("num_workers", num_workers, "not positive", "use 1 or more")
        self.workers = [MathWorker(grader, time_limit_s=time_limit_s) for _ in range(self.num_workers)]
        self._idle: queue.LifoQueue[MathWorker] = queue.LifoQueue()
        for worker in self.workers:
            self._idle.put(worker)

    def __enter__(self) -> "MathWorkers":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def compare(self, answer: str, gold: str) -> Reason:
        """The verdict of the next idle worker; waits for one."""
        worker = self._idle.get()
        try:
            return worker.compare(answer, gold)
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """End all workers; the next comparison starts them again."""
        for worker in self.workers:
            worker.close()
