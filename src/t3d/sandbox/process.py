"""The parent's side of a tested program: start it, bring it together with its tests, and end it in time.

Two processes: the program's (``runner.py``), which is told nothing of the tests, and the tests'
(``judge.py``), which runs no code of the program's. They talk to each other through a socket; what comes of
it only the tests' process tells this one, through a socket that the program's has never had. The program's
standard output, its end, and the time it takes are watched here.
"""

import marshal
import os
import select
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any, Literal, cast, get_args

from t3d.sandbox.boot import first_words, scratch_file, start
from t3d.sandbox.channel import send
from t3d.sandbox.judge_server import JudgeServer, SandboxError

START_LIMIT_S = 60.0
"""Seconds until both must be ready, however busy the machine is; they count against no program."""
END_LIMIT_S = 5.0
CHUNK_BYTES = 2**16

Failure = Literal["wrong", "memory", "exit", "error", "suspicious", "output limit"]
"""What the tests' process reports: an assertion, a MemoryError, SystemExit, another exception, a trick, a
value that is too large."""
Killed = Literal["timeout", "output limit"]
"""Why a program is ended from here."""
End = Literal["done", "failed", "exit"] | Killed
Reason = Literal["passed", "not run", "timeout"] | Failure
"""Why a stage, or a test, counts as it does. ``suspicious``: the program passed off an object of its own as a
value, or spoke unasked. ``not run``: one before it failed, or there are no tests."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A program and what is to be run against it, in this order, until the first exception.

    ``program_names``: names of Python's own that mean the program's function in the stages.
    """

    source: str
    stages: tuple[str, ...]
    program_names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """How an interpreter is to confine itself.

    ``uid`` to change to; ``landlock``: arguments of ``make_ruleset`` in ``walls.py``; ``seccomp``: filter;
    ``limits``: of resources, by name; ``max_files``: in the current folder; ``parent``: id of the parent.
    """

    packages: tuple[str, ...] = ()
    uid: int | None = None
    landlock: dict[str, Any] | None = None
    seccomp: bytes | None = None
    limits: dict[str, int] = field(default_factory=dict)
    max_files: int | None = None
    parent: int | None = None

    def fields(self) -> dict[str, Any]:
        """As what is sent."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


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

    ``reports``: of the program itself and of the stages, in order, up to the first that failed. ``end``:
    ``done`` if none did, ``failed`` if one did, ``exit`` if the program's process ended by itself, otherwise
    why it was killed. ``exit_status``: negative for a signal; None if it was killed.
    """

    reports: tuple[Report, ...]
    end: End
    exit_status: int | None


def execute(
    command: Sequence[str],
    request: Request,
    job: Job,
    server: JudgeServer,
    *,
    time_limit_s: float,
    max_bytes: int,
    folder: str | None = None,
) -> Outcome:
    """Run a program by ``command``, an interpreter with its flags, and its tests in a child of ``server``.

    ``time_limit_s`` is wall-clock time for every stage, counted from the report before it; ``max_bytes``
    limits the program's output, and each value that crosses. When this returns, both processes have ended.
    Raises SandboxError if they never become ready.
    """
    reports, reports_to = socket.socketpair()
    ours, theirs = socket.socketpair()
    with scratch_file() as errors, reports, reports_to, ours, theirs:
        try:
            channel = theirs.fileno()
            pipe = subprocess.PIPE
            process = start(command, pass_fds=(channel,), stdout=pipe, stderr=errors, folder=folder)
        except OSError as error:
            raise SandboxError(f"{command[0]} does not start: {error}") from error
        words = {**request.fields(), "source": job.source, "channel": channel, "max_bytes": max_bytes}
        tests = {
            "stages": job.stages,
            "program_names": job.program_names,
            "max_bytes": max_bytes,
            "time_limit_s": time_limit_s,
            "limits": {name: value for name, value in request.limits.items() if name != "NPROC"},
        }
        with process:
            try:
                server.judge(reports_to, ours)
                for sent in (theirs, ours, reports_to):
                    sent.close()
                send_job(reports, tests)
                conversation = Conversation(process, reports, first_words("runner", words), max_bytes)
                return conversation.run(1 + len(job.stages), time_limit_s)
            except NeverReadyError as error:
                process.kill()
                errors.seek(0)
                said = errors.read(2000).decode(errors="replace").strip() or server.said() or "no message"
                raise SandboxError(f"the sandbox does not start ({error}): {said}") from None
            finally:
                end_process(process, reports)


def send_job(reports: socket.socket, job: dict[str, Any]) -> None:
    """Tell the tests' process what to run. Raises NeverReadyError."""
    try:
        send(reports.fileno(), marshal.dumps(job))
    except OSError as error:
        raise NeverReadyError(f"the tests' process: {error}") from None


def end_process(process: subprocess.Popen[bytes], reports: socket.socket) -> None:
    """Kill the program's process with its group, unless it has been waited for; wait for it and the tests'.

    Below bubblewrap the kernel ends the tested process a moment later: that closes its standard output, and
    its end of the socket to the tests, whose process then ends by itself.
    """
    if process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()
    deadline = time.monotonic() + END_LIMIT_S
    assert process.stdout is not None
    for descriptor in (process.stdout.fileno(), reports.fileno()):
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        while poll.poll(1000 * max(0.0, deadline - time.monotonic())):
            try:
                if not os.read(descriptor, CHUNK_BYTES):
                    break
            except ConnectionResetError:
                break


class NeverReadyError(Exception):
    """A process ended, or took too long, before it was ready."""


class Conversation:
    """One program: writes its request, reads output and verdicts, and stops at the first reason to."""

    def __init__(
        self, process: subprocess.Popen[bytes], reports: socket.socket, words: bytes, output_limit: int
    ) -> None:
        assert process.stdin is not None and process.stdout is not None
        self._process, self._output_limit = process, output_limit
        self._to_send = memoryview(words)
        self._is_ready, self._partial_line = False, b""
        self._reports: list[Report] = []
        self._num_stages = 0
        self._output_bytes = 0
        self._selector = selectors.PollSelector()
        os.set_blocking(process.stdin.fileno(), False)
        self._selector.register(process.stdin, selectors.EVENT_WRITE, self._send)
        self._selector.register(process.stdout, selectors.EVENT_READ, self._receive_output)
        self._selector.register(reports, selectors.EVENT_READ, self._receive_reports)

    def run(self, num_stages: int, time_limit_s: float) -> Outcome:
        """Until the stages are done, the process has ended, or a limit is reached."""
        self._num_stages = num_stages
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
        try:
            chunk = file.recv(CHUNK_BYTES)
        except ConnectionResetError:  # it has not even read what it was sent
            chunk = b""
        if not chunk:
            return self._hear(b"ended")
        *lines, self._partial_line = (self._partial_line + chunk).split(b"\n")
        for line in lines:
            if line == b"gone\t":
                self._selector.unregister(file)  # the program's process has ended, or will not answer
                return None
            if end := self._hear(line):
                return end
        return None

    def _hear(self, line: bytes) -> End | None:
        """Take one line of the tests' process, and say whether that is the end."""
        status, _, detail = line.decode("ascii").partition("\t")
        if status == "ready":
            self._is_ready = True
            return None
        if not self._is_ready:
            raise NeverReadyError("the tests' process ended")
        if status == "passed":
            self._reports.append(Report(reason="passed"))
            return "done" if len(self._reports) == self._num_stages else None
        if status not in get_args(Failure):
            status, detail = "error", "the tests' process ended"
        self._reports.append(Report(reason=cast("Failure", status), detail=detail))
        return "failed"


def _signed(return_code: int | None) -> int | None:
    """Exit status as subprocess gives it, for a process below bubblewrap too, which adds 128 to a signal."""
    return 128 - return_code if return_code is not None and return_code > 128 else return_code
