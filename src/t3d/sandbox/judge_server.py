"""The parent's side of the server of tests' interpreters: one that has started serves all programs."""

import atexit
import socket
import subprocess
import threading
from collections.abc import Sequence
from typing import Any

from t3d.sandbox.boot import first_words, scratch_file, start

END_LIMIT_S = 5.0


class SandboxError(RuntimeError):
    """The sandbox itself did not work; says nothing about the program."""


class JudgeServer:
    """A process that forks one for every program. Threads may share it. It ends when this process does."""

    def __init__(self, command: Sequence[str], request: dict[str, Any]) -> None:
        """``command`` is an interpreter with its flags. Raises SandboxError if it does not start."""
        self._lock = threading.Lock()
        self._log = scratch_file()
        self._socket, theirs = socket.socketpair()
        with theirs:
            try:
                descriptor = theirs.fileno()
                self._process = start(
                    command, pass_fds=(descriptor,), stdout=subprocess.DEVNULL, stderr=self._log, folder="/"
                )
            except OSError as error:
                raise SandboxError(f"{command[0]} does not start: {error}") from error
            assert self._process.stdin is not None
            try:
                with self._process.stdin as stdin:
                    stdin.write(first_words("judge", {**request, "socket": descriptor}))
            except BrokenPipeError:
                pass  # it has ended; who asks it hears so
        atexit.register(self.close)

    def judge(self, reports: socket.socket, program: socket.socket) -> None:
        """Have the program at the other end of one socket judged; verdicts go to the other."""
        with self._lock:
            try:
                socket.send_fds(self._socket, [b"j"], [reports.fileno(), program.fileno()])
            except OSError as error:
                raise SandboxError(f"the tests' interpreter has ended ({error}): {self.said()}") from None

    @property
    def has_ended(self) -> bool:
        """Whether another one is needed."""
        return self._process.poll() is not None

    def said(self) -> str:
        """The end of what it wrote to its standard error."""
        size = self._log.seek(0, 2)
        self._log.seek(max(0, size - 2000))
        return self._log.read().decode(errors="replace").strip()

    def close(self) -> None:
        """End it, and wait for that."""
        self._socket.close()
        try:
            self._process.wait(END_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
        atexit.unregister(self.close)
