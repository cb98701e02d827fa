"""Run untrusted Python programs: isolated, limited, one process each, and none left behind.

What a program is kept from: files outside its private folder (it may read the interpreter and the installed
packages), the network, other processes, more memory, time, threads, files and output than its limits, and new
processes of its own.

Its tests run in another process, which runs no code of the program's: there a name that the tests do not
define stands for the program's global, and a call crosses as values (``codec.py``). So a program decides what
its functions return and nothing else: not what that is compared with, nor how, nor what is reported.

What differs from one process: a function of the tests cannot be given to the program, an object of one of
its classes is equal to itself only, and what it does later to an argument that it has kept is not seen.
"""

import errno
import itertools
import math
import os
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from t3d.errors import InputError, require_positive
from t3d.sandbox.boot import INTERPRETER_FLAGS
from t3d.sandbox.bubblewrap import bubblewrap_command, max_files
from t3d.sandbox.judge_server import JudgeServer, SandboxError
from t3d.sandbox.landlock import MIN_VERSION, landlock_ruleset, landlock_version, max_user_threads
from t3d.sandbox.paths import interpreter, package_folders
from t3d.sandbox.process import Job, Outcome, Request, execute
from t3d.sandbox.seccomp import seccomp_filter

Isolation = Literal["bubblewrap", "landlock", "none"]
# systemd's range for users that exist while a service runs. A program gets one of its own, so that the
# kernel counts its threads alone.
FIRST_USER, NUM_USERS = 61184, 4336
MAX_OPEN_FILES = 64

ROOM_LIMIT_S = 60.0
"""Seconds to wait for room for a program's folder."""

_user_numbers = itertools.count(os.getpid())
_servers: dict[tuple[int, str], JudgeServer] = {}
"""By process id, since a fork of this process needs one of its own, and isolation."""
_servers_lock = threading.Lock()


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What one program may use.

    ``time_limit_s``: wall-clock seconds for the program, and again for its setup and each of its tests, from
    the moment it starts; CPU time is limited by their sum. ``folder_bytes``: all files together, under
    bubblewrap only.
    """

    time_limit_s: float = 10.0
    memory_bytes: int = 2**30
    file_bytes: int = 2**24
    folder_bytes: int = 2**26
    output_bytes: int = 2**24
    num_threads: int = 64

    def __post_init__(self) -> None:
        require_positive(self, "memory_bytes", "file_bytes", "folder_bytes", "output_bytes", "num_threads")
        if not 0 < self.time_limit_s < math.inf:
            raise InputError("time_limit_s", self.time_limit_s, "not a time", "use seconds above 0")


DEFAULT_LIMITS = Limits()


class Sandbox:
    """Runs programs under one kind of isolation. Threads may share it; it keeps nothing of a program.

    ``isolation`` None takes the first that works here of bubblewrap and Landlock with seccomp, and with
    ``unsafe_no_sandbox`` no isolation at all if neither does. Raises InputError where that is not allowed or
    the isolation asked for does not work.
    """

    def __init__(
        self,
        *,
        limits: Limits = DEFAULT_LIMITS,
        isolation: Isolation | None = None,
        unsafe_no_sandbox: bool = False,
    ) -> None:
        self.limits = limits
        self.isolation = choose_isolation(isolation, unsafe_no_sandbox=unsafe_no_sandbox)

    def run_tests(
        self,
        source: str,
        tests: Sequence[str],
        *,
        setup: str = "",
        program_names: Sequence[str] = (),
        time_limit_s: float | None = None,
    ) -> Outcome:
        """Run a program, and in the tests' process the setup code, then each test, until one fails.

        Setup and tests share a namespace; what it lacks is the program's. ``program_names`` are names of
        Python's own that mean the program's function there. The reports are of these, in this order.
        """
        limits = self.limits if time_limit_s is None else replace(self.limits, time_limit_s=time_limit_s)
        job = Job(source=source, stages=(setup, *tests), program_names=tuple(program_names))
        return run_isolated(self.isolation, job, limits)


def choose_isolation(isolation: Isolation | None = None, *, unsafe_no_sandbox: bool = False) -> Isolation:
    """The isolation to use, after a probe of it. Raises InputError as :class:`Sandbox` says."""
    if isolation == "none" and not unsafe_no_sandbox:
        raise InputError(
            "isolation", isolation, "programs could do anything", "set unsafe_no_sandbox as well"
        )
    if isolation == "none":
        return isolation
    if isolation not in (None, *get_args(Isolation)):
        raise InputError("isolation", isolation, "not known", "use bubblewrap, landlock or none")
    candidates: tuple[Isolation, ...] = ("bubblewrap", "landlock") if isolation is None else (isolation,)
    problems = {}
    for candidate in candidates:
        problem = isolation_problem(candidate)
        if problem is None:
            return candidate
        problems[candidate] = problem
    if unsafe_no_sandbox and isolation is None:
        return "none"
    reasons = "; ".join(f"{name}: {problem}" for name, problem in problems.items())
    raise InputError(
        "isolation",
        isolation,
        f"model-written programs cannot be isolated here ({reasons})",
        "install bubblewrap 0.7 or newer, or set unsafe_no_sandbox for programs that you trust",
    )


def run_isolated(isolation: Isolation, job: Job, limits: Limits) -> Outcome:
    """Run a program and its tests in the given isolation and limits."""
    server = judge_server(isolation)
    request = replace(confinement(isolation), limits=_resource_limits(isolation, job, limits))
    with _private_folder(isolation, request.uid) as folder:
        if isolation == "landlock":
            request = replace(request, landlock=landlock_ruleset(folder), parent=os.getpid())
        return execute(
            isolated_command(isolation, folder_bytes=limits.folder_bytes),
            request,
            job,
            server,
            time_limit_s=limits.time_limit_s,
            max_bytes=limits.output_bytes,
            folder=folder,
        )


def judge_server(isolation: Isolation) -> JudgeServer:
    """The server of tests' processes, started where there is none. Raises SandboxError if that fails."""
    key = (os.getpid(), isolation)
    with _servers_lock:
        server = _servers.get(key)
        if server is not None and server.has_ended:
            server.close()
        if server is None or server.has_ended:
            request = confinement(isolation)
            if isolation == "landlock":
                request = replace(request, landlock=landlock_ruleset(None))
            command = isolated_command(
                isolation, folder_bytes=DEFAULT_LIMITS.file_bytes, dies_with_thread=False
            )
            server = _servers[key] = JudgeServer(command, request.fields())
        return server


def confinement(isolation: Isolation) -> Request:
    """How an interpreter confines itself, but for folder and limits; as root with a user id of its own."""
    is_confined = isolation != "none"
    return Request(
        packages=package_folders(),
        seccomp=seccomp_filter() if is_confined else None,
        max_files=max_files() if isolation == "bubblewrap" else None,
        uid=FIRST_USER + next(_user_numbers) % NUM_USERS if is_confined and os.geteuid() == 0 else None,
    )


def isolated_command(isolation: Isolation, *, folder_bytes: int, dies_with_thread: bool = True) -> list[str]:
    """The command line of an interpreter. Raises SandboxError where bubblewrap is missing."""
    command: list[str] = [interpreter(), *INTERPRETER_FLAGS]
    if isolation != "bubblewrap":
        return command
    wrapped = bubblewrap_command(command, folder_bytes=folder_bytes, dies_with_thread=dies_with_thread)
    if wrapped is None:
        raise SandboxError("bwrap is not installed")
    return wrapped


@contextmanager
def _private_folder(isolation: Isolation, uid: int | None) -> Generator[str | None]:
    """A folder for one program; bubblewrap makes its own in memory."""
    if isolation == "bubblewrap":
        yield None
        return
    with _new_folder() as folder:
        if uid is not None:
            os.chown(folder, uid, uid)
        yield folder


def _new_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder, after a wait if there is no room: until a program that has taken all of it has ended.

    Raises InputError if there is none for longer than any such program runs.
    """
    deadline = time.monotonic() + ROOM_LIMIT_S
    while True:
        try:
            return tempfile.TemporaryDirectory(prefix="t3d-sandbox-", ignore_cleanup_errors=True)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or time.monotonic() > deadline:
                place = tempfile.gettempdir()
                raise InputError(
                    "TMPDIR",
                    place,
                    f"no folder for a program ({error.strerror})",
                    "make room, or set another",
                ) from error
        time.sleep(0.05)


def _resource_limits(isolation: Isolation, job: Job, limits: Limits) -> dict[str, int]:
    values = {
        "AS": limits.memory_bytes,
        "CPU": math.ceil(limits.time_limit_s * (1 + len(job.stages))) + 1,
        "FSIZE": limits.file_bytes,
        "NOFILE": MAX_OPEN_FILES,
        "CORE": 0,
        "NPROC": limits.num_threads,
    }
    if isolation == "landlock" and os.geteuid() != 0:
        values["NPROC"] = max_user_threads()
    if isolation == "none":
        del values["NPROC"]
    return values


PROBE = """
import os
import socket

def is_refused(function, *arguments):
    try:
        function(*arguments)
    except OSError:
        return True
    return False
"""


@cache
def isolation_problem(isolation: Isolation) -> str | None:
    """Why this isolation does not work here; None if a program that tries to get out is kept in."""
    if sys.platform != "linux":
        return "needs Linux"
    if seccomp_filter() is None:
        return f"no list of system calls for {os.uname().machine}"
    if isolation == "landlock" and landlock_version() < MIN_VERSION:
        return f"version {landlock_version()} of Landlock in this kernel, needs {MIN_VERSION}"
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        secret = Path(folder, "secret")
        secret.write_text("outside")
        secret.chmod(0o666)
        steps = [
            f"assert is_refused(open, {str(secret)!r}), 'reads'",
            f"assert is_refused(open, {str(secret)!r}, 'a'), 'writes'",
            f"assert is_refused(open, {str(Path(folder, 'new'))!r}, 'w'), 'makes files'",
            f"assert is_refused(os.unlink, {str(secret)!r}), 'deletes'",
            "assert is_refused(os.fork), 'forks'",
            "assert is_refused(socket.socket), 'opens sockets'",
        ]
        walls = PROBE + "\n".join(steps)
        # Both processes of a program have to be kept in; only the program's has a folder.
        job = Job(source=f"{walls}\nopen('inside', 'w').write('x')", stages=(walls,))
        try:
            outcome = run_isolated(isolation, job, DEFAULT_LIMITS)
        except SandboxError as error:
            return " ".join(str(error).split())[:300]
    for step, report in zip(("the program", "the tests"), outcome.reports, strict=False):
        if not report.passed:
            return f"{step}: {report.reason} {report.detail}"
    return None if outcome.end == "done" else f"the probe ended with {outcome.end}"
