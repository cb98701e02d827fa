"""The parent's side of a tested program: start it, feed it, hear its reports, and end it in time.

Every stage has a receipt of its own: random text that the runner (``runner.py``) got with the
request, that the program is never told, and that the runner sends when the stage has ended well. Receipts
count once and in their order. Other reports begin with a mark, so that what a program writes to descriptors
it finds is no report; a program that finds the mark can report that it failed. Any other line ends the run.

Reports come through a socket, since a program can open its end of a pipe again by name (``/proc/self/fd``),
for reading, and take reports out of it: then the parent would not hear that the runner was ready.
"""

import marshal
import os
import secrets
import select
import selectors
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import IO, Any, Literal, get_args

START_LIMIT_S = 60.0
"""Seconds until the runner must be ready, however busy the machine is; they count against no program."""
END_LIMIT_S = 5.0
MAX_REPORT_LENGTH = 1000
CHUNK_BYTES = 2**16
# The runner gets its own copy of the builtins, out of the program's reach.
BOOT = (
    "import builtins, marshal, sys\n"
    "exec(marshal.load(sys.stdin.buffer), {'__name__': '__main__', '__builtins__': dict(vars(builtins))})"
)
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "PYTHONUTF8": "1",
    "PYTHONHASHSEED": "0",  # the order of sets, and with it a verdict, is the same every time
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
INTERPRETER_FLAGS = ("-P", "-s", "-S", "-B", "-c", BOOT)

Failure = Literal["wrong", "memory", "exit", "error"]
"""What the runner reports: an assertion, a MemoryError, the program's own end, another exception."""
Killed = Literal["timeout", "output limit", "forged report"]
"""Why a program is ended. ``forged report``: it wrote to the socket of reports."""
End = Literal["done", "failed", "exit"] | Killed
Reason = Literal["passed", "not run"] | Failure | Killed
"""Why a stage, or a test, counts as it does. ``not run``: one before it failed, or there are no tests."""


class SandboxError(RuntimeError):
    """The sandbox itself did not work; says nothing about the program."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What the runner is to do.

    ``stages``: statements to run in one namespace, the first exception ends the run.

    ``uid``: user id to change to; ``landlock``: arguments of the runner's ``make_ruleset``; ``seccomp``:
    filter; ``limits``: resource limits by name; ``parent``: process id that must still be the parent.
    """

    stages: tuple[str, ...]
    packages: tuple[str, ...] = ()
    uid: int | None = None
    landlock: dict[str, Any] | None = None
    seccomp: bytes | None = None
    limits: dict[str, int] = field(default_factory=dict)
    parent: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """How a stage went; ``detail`` is the exception, or the exit status."""

    reason: Reason
    detail: str = ""

    @property
    def passed(self) -> bool:
        """Whether it ended well."""
        return self.reason == "passed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of a program.

    ``reports``: of the stages, in order, up to the first that failed. ``end``: ``done`` if none did,
    ``failed`` if one did, ``exit`` if the process ended by itself, otherwise why it was killed.
    ``exit_status``: negative for a signal; None if it was killed.
    """

    reports: tuple[Report, ...]
    end: End
    exit_status: int | None


@cache
def runner_code() -> bytes:
    """The runner, compiled and marshalled."""
    path = Path(__file__).with_name("runner.py")
    return marshal.dumps(compile(path.read_text(encoding="utf-8"), "<runner>", "exec"))


def execute(
    command: Sequence[str],
    request: Request,
    *,
    time_limit_s: float,
    output_limit: int,
    folder: str | None = None,
) -> Outcome:
    """Run ``command``, an interpreter with ``INTERPRETER_FLAGS``, and let it serve one request.

    ``time_limit_s`` is wall-clock time for every stage, counted from the report before it. When this returns,
    the process and its group have ended. Raises SandboxError if the runner never becomes ready.
    """
    reports, reports_to = socket.socketpair()
    with tempfile.TemporaryFile() as errors, reports, reports_to:
        reports_to.shutdown(socket.SHUT_RD)
        report_to = reports_to.fileno()
        try:
            process = subprocess.Popen(
                [*command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
                cwd=folder,
                env=ENVIRONMENT,
                pass_fds=(report_to,),
                start_new_session=True,
            )
        except OSError as error:
            raise SandboxError(f"{command[0]} does not start: {error}") from error
        finally:
            reports_to.close()
        with process:
            try:
                conversation = Conversation(process, reports, request, report_to, output_limit)
                return conversation.run(time_limit_s)
            except NeverReadyError as error:
                process.kill()
                errors.seek(0)
                said = errors.read(2000).decode(errors="replace").strip()
                raise SandboxError(f"the sandbox does not start ({error}): {said or 'no message'}") from None
            finally:
                end_process(process, reports)


def end_process(process: subprocess.Popen[bytes], reports: socket.socket) -> None:
    """Kill the process with its group, unless it has been waited for, and wait.

    Below bubblewrap the kernel ends the tested process a moment later: that closes the socket of reports.
    """
    if process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()
    deadline = time.monotonic() + END_LIMIT_S
    poll = select.poll()
    poll.register(reports, select.POLLIN)
    while poll.poll(1000 * max(0.0, deadline - time.monotonic())):
        if not os.read(reports.fileno(), CHUNK_BYTES):
            return


class NeverReadyError(Exception):
    """The runner ended, or took too long, before it was ready."""


class Conversation:
    """One request: writes it, reads output and reports, and stops at the first reason to."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        reports: socket.socket,
        request: Request,
        report_to: int,
        output_limit: int,
    ) -> None:
        assert process.stdin is not None and process.stdout is not None
        self._process, self._output_limit = process, output_limit
        num_texts = 1 + len(request.stages)
        self._mark, *self._receipts = (secrets.token_hex(16).encode() for _ in range(num_texts))
        fields = {name: getattr(request, name) for name in Request.__dataclass_fields__}
        receipts = [receipt + b"\n" for receipt in self._receipts]
        fields |= {"mark": self._mark, "receipts": receipts, "report_to": report_to}
        self._to_send = memoryview(runner_code() + marshal.dumps(fields))
        self._is_ready, self._partial_line = False, b""
        self._reports: list[Report] = []
        self._output_bytes = 0
        self._selector = selectors.PollSelector()
        os.set_blocking(process.stdin.fileno(), False)
        self._selector.register(process.stdin, selectors.EVENT_WRITE, self._send)
        self._selector.register(process.stdout, selectors.EVENT_READ, self._receive_output)
        self._selector.register(reports, selectors.EVENT_READ, self._receive_reports)

    def run(self, time_limit_s: float) -> Outcome:
        """Until the stages are done, the process has ended, or a limit is reached."""
        deadline = time.monotonic() + START_LIMIT_S
        num_heard = 0
        end: End | None = None
        while end is None:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                end = "timeout"
            elif not self._selector.get_map():
                end = self._wait(remaining)
            else:
                end = self._serve(remaining)
            if self._is_ready + len(self._reports) > num_heard:
                num_heard = self._is_ready + len(self._reports)
                deadline = time.monotonic() + time_limit_s
        self._selector.close()
        if not self._is_ready:
            raise NeverReadyError(f"{end} {self._process.returncode}")
        return Outcome(
            reports=tuple(self._reports),
            end=end,
            exit_status=_signed(self._process.returncode) if end == "exit" else None,
        )

    def _serve(self, seconds: float) -> End | None:
        for key, _ in self._selector.select(seconds):
            if end := key.data(key.fileobj):
                return end
        return None

    def _wait(self, seconds: float) -> End:
        """Output and reports are closed: the process has ended, or has closed them and goes on."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return "timeout"
        return "exit"

    def _send(self, file: IO[bytes]) -> None:
        try:
            self._to_send = self._to_send[os.write(file.fileno(), self._to_send[:CHUNK_BYTES]) :]
        except BrokenPipeError:  # it has ended already
            self._to_send = self._to_send[:0]
        if not self._to_send:
            self._selector.unregister(file)
            file.close()

    def _receive_output(self, file: IO[bytes]) -> End | None:
        chunk = os.read(file.fileno(), CHUNK_BYTES)
        if not chunk:
            self._selector.unregister(file)
            return None
        self._output_bytes += len(chunk)
        return "output limit" if self._output_bytes > self._output_limit else None

    def _receive_reports(self, file: socket.socket) -> End | None:
        chunk = os.read(file.fileno(), CHUNK_BYTES)
        if not chunk:
            self._selector.unregister(file)
            return None
        *lines, self._partial_line = (self._partial_line + chunk).split(b"\n")
        for line in lines:
            if end := self._hear(line):
                return end
        return "forged report" if len(self._partial_line) > MAX_REPORT_LENGTH else None

    def _hear(self, line: bytes) -> End | None:
        """Take one line of the runner's, and say whether that is the end."""
        mark, status, detail = [*line.split(b" ", 2), b"", b""][:3]
        is_marked = secrets.compare_digest(mark, self._mark)
        name = status.decode("ascii", "replace")
        if not self._is_ready:
            self._is_ready = is_marked and name == "ready"
            return None if self._is_ready else "forged report"
        failure = next((kind for kind in get_args(Failure) if is_marked and kind == name), None)
        if failure is not None:
            self._reports.append(Report(reason=failure, detail=detail.decode("ascii", "replace")))
            return "failed"
        if not self._receipts or not secrets.compare_digest(line, self._receipts[0]):
            return "forged report"
        del self._receipts[0]
        self._reports.append(Report(reason="passed"))
        return None if self._receipts else "done"


def _signed(return_code: int | None) -> int | None:
    """Exit status as subprocess gives it, for a process below bubblewrap too, which adds 128 to a signal."""
    return 128 - return_code if return_code is not None and return_code > 128 else return_code
