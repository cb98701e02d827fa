"""Run untrusted Python programs: isolated, limited, one process each, and none left behind.

What a program is kept from: files outside its private folder (it may read the interpreter and the installed
packages), the network, other processes, more memory, time, threads, files and output than its limits, and new
processes of its own. Success is a receipt for every test, sent from inside the interpreter by code that the
program can neither reach nor imitate (``runner.py``), never an exit status or a printed line.

Not prevented, since tests and program share an interpreter, as in every grader that runs assertions: a
program can return objects that are equal to everything, read what a test expects from the test's frame,
replace functions that a test calls, and change its own process below Python (by ctypes, say).
"""

import itertools
import math
import os
import sys
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from t3d.errors import InputError, require_positive
from t3d.sandbox.bubblewrap import bubblewrap_command
from t3d.sandbox.landlock import MIN_VERSION, landlock_ruleset, landlock_version
from t3d.sandbox.paths import interpreter, package_folders
from t3d.sandbox.process import INTERPRETER_FLAGS, Outcome, Request, SandboxError, execute
from t3d.sandbox.seccomp import seccomp_filter

Isolation = Literal["bubblewrap", "landlock", "none"]
# systemd's range for users that exist while a service runs. A program gets one of its own, so that the
# kernel counts its threads alone.
FIRST_USER, NUM_USERS = 61184, 4336
MAX_OPEN_FILES = 64
MAX_USER_PROCESSES = 4096
"""Of an ordinary user's processes and threads together, where a program has no user id of its own."""

_user_numbers = itertools.count(os.getpid())


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
    """Runs programs under one kind of isolation. Threads may share it; it holds nothing between programs.

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
        self, source: str, tests: Sequence[str], *, setup: str = "", time_limit_s: float | None = None
    ) -> Outcome:
        """Run a program, then the setup code, then each test, all in one namespace, until one fails.

        The reports are of these, in this order.
        """
        limits = self.limits if time_limit_s is None else replace(self.limits, time_limit_s=time_limit_s)
        return run_isolated(self.isolation, Request(stages=(source, setup, *tests)), limits)


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


def run_isolated(isolation: Isolation, request: Request, limits: Limits) -> Outcome:
    """Run the program of a request, which says what to run, in the given isolation and limits."""
    command: list[str] | None = [interpreter(), *INTERPRETER_FLAGS]
    is_confined = isolation != "none"
    request = replace(
        request,
        packages=package_folders(),
        limits=_resource_limits(isolation, request, limits),
        seccomp=seccomp_filter() if is_confined else None,
        uid=FIRST_USER + next(_user_numbers) % NUM_USERS if is_confined and os.geteuid() == 0 else None,
    )
    with _private_folder(isolation, request.uid) as folder:
        if isolation == "bubblewrap":
            command = bubblewrap_command(command, folder_bytes=limits.folder_bytes)
            if command is None:
                raise SandboxError("bwrap is not installed")
        elif isolation == "landlock":
            assert folder is not None
            request = replace(request, landlock=landlock_ruleset(folder), parent=os.getpid())
        return execute(
            command,
            request,
            time_limit_s=limits.time_limit_s,
            output_limit=limits.output_bytes,
            folder=folder,
        )


@contextmanager
def _private_folder(isolation: Isolation, uid: int | None) -> Generator[str | None]:
    """A folder for one program; bubblewrap makes its own in memory."""
    if isolation == "bubblewrap":
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="t3d-sandbox-", ignore_cleanup_errors=True) as folder:
        if uid is not None:
            os.chown(folder, uid, uid)
        yield folder


def _resource_limits(isolation: Isolation, request: Request, limits: Limits) -> dict[str, int]:
    values = {
        "AS": limits.memory_bytes,
        "CPU": math.ceil(limits.time_limit_s * len(request.stages)) + 1,
        "FSIZE": limits.file_bytes,
        "NOFILE": MAX_OPEN_FILES,
        "CORE": 0,
        "NPROC": limits.num_threads,
    }
    if isolation == "landlock" and os.geteuid() != 0:
        values["NPROC"] = MAX_USER_PROCESSES
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
        tests = [
            f"assert is_refused(open, {str(secret)!r})",
            f"assert is_refused(open, {str(secret)!r}, 'a')",
            f"assert is_refused(open, {str(Path(folder, 'new'))!r}, 'w')",
            f"assert is_refused(os.unlink, {str(secret)!r})",
            "assert is_refused(os.fork)",
            "assert is_refused(socket.socket)",
            "open('inside', 'w').write('x')",
        ]
        try:
            outcome = run_isolated(isolation, Request(stages=(PROBE, *tests)), DEFAULT_LIMITS)
        except SandboxError as error:
            return " ".join(str(error).split())[:300]
    for step, report in zip(["the probe", *tests], outcome.reports, strict=False):
        if not report.passed:
            return f"{step}: {report.reason} {report.detail}"
    return None if outcome.end == "done" else f"the probe ended with {outcome.end}"
