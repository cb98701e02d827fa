"""Check and run tiny model-written Python functions, thousands a second.

What keeps an attack out is :func:`refusal`: it allows arithmetic, assignments, comparisons and branches, and
nothing that could reach the interpreter. The worker is the second line. It is one long-lived process with no
builtins for the programs, its own session, an empty environment, limits on memory, files and processes where
the platform has them, and a time limit kept by the parent. Alone it contains accidents and simple attacks;
it is not a sandbox, as a program that is not checked can read the worker's own memory. Needs a POSIX system.
"""

import ast
import atexit
import json
import math
import os
import re
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from t3d.worker_pipe import read_line, write_all

MAX_SOURCE_LENGTH = 2000
MAX_CONSTANT = 10**6
MAX_DEPTH = 40
MAX_MULTIPLICATIONS = 8
"""Keeps numbers short: every ``x = x * x`` may double their length."""
START_LIMIT_S = 60.0
WORKER_FILE = Path(__file__).with_name("program_worker.py")
UNUSUAL_CHARACTER = re.compile(r"""[^\n\t -~]|["'\\]""")
# 5if, 0x1f, 1_000: the parser warns about some, and a verdict must not depend on the warning filter.
NUMBER_IN_WORD = re.compile(r"(?<!\w)\d+[A-Za-z_]")
STATEMENTS = (ast.Assign, ast.Return, ast.If)
EXPRESSIONS = (ast.Name, ast.Constant, ast.BinOp, ast.UnaryOp, ast.Compare, ast.IfExp, ast.Load, ast.Store)
OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.USub)
COMPARISONS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq)
ALLOWED_NODES = frozenset((*STATEMENTS, *EXPRESSIONS, *OPERATORS, *COMPARISONS))


def refusal(source: str, function_name: str) -> str | None:
    """Why the AST allow-list refuses this program; None if it is allowed.

    Allowed is one function of one plain argument, made of assignments to names, ``return`` and ``if``, with
    names, integers up to 10**6, ``+ - *``, unary minus, single comparisons and conditional expressions.
    """
    if len(source) > MAX_SOURCE_LENGTH:
        return f"longer than {MAX_SOURCE_LENGTH} characters"
    if character := UNUSUAL_CHARACTER.search(source):
        return f"character {character.group()!a}"
    if number := NUMBER_IN_WORD.search(source):
        return f"number that runs into a word: {number.group()}"
    try:
        module = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return f"does not parse: {type(error).__name__}"
    if len(module.body) != 1 or not isinstance(module.body[0], ast.FunctionDef):
        return "not exactly one function"
    function = module.body[0]
    if function.name != function_name:
        return f"defines {function.name[:40]}, not {function_name}"
    return _refused_signature(function) or _refused_body(function)


def _refused_signature(function: ast.FunctionDef) -> str | None:
    # Any other child node is a decorator, annotation, default, type parameter or other kind of argument.
    if list(ast.iter_child_nodes(function)) != [function.args, *function.body]:
        return "decorator, annotation or type parameter"
    arguments = list(ast.iter_child_nodes(function.args))
    if len(arguments) != 1 or arguments != function.args.args or function.args.args[0].annotation:
        return "not exactly one plain argument"
    return "name with two underscores" if "__" in function.args.args[0].arg else None


def _refused_body(function: ast.FunctionDef) -> str | None:
    if sum(isinstance(node, ast.Mult) for node in ast.walk(function)) > MAX_MULTIPLICATIONS:
        return f"more than {MAX_MULTIPLICATIONS} multiplications"
    stack: list[tuple[ast.AST, int]] = [(statement, 1) for statement in function.body]
    while stack:
        node, depth = stack.pop()
        if type(node) not in ALLOWED_NODES:
            return f"{type(node).__name__} is not allowed"
        if depth > MAX_DEPTH:
            return f"nested deeper than {MAX_DEPTH}"
        if isinstance(node, ast.Name) and "__" in node.id:
            return "name with two underscores"
        if isinstance(node, ast.Constant) and (type(node.value) is not int or node.value > MAX_CONSTANT):
            return f"constant other than an integer up to {MAX_CONSTANT}"
        if isinstance(node, ast.Compare) and len(node.ops) != 1:
            return "chained comparison"
        stack.extend((child, depth + 1) for child in ast.iter_child_nodes(node))
    return None


@dataclass(frozen=True, kw_only=True, slots=True)
class ProgramResult:
    """What became of a program. ``outputs`` is None unless ``reason`` is ``ok``.

    Other reasons: ``refused: ...``, ``error: ...``, ``time limit``, ``memory limit`` and ``worker died``.
    """

    outputs: tuple[int, ...] | None
    reason: str


class ProgramWorker:
    """A process that runs one program after another.

    It starts at the first program and is replaced when it dies, is late or sends anything unasked.
    ``time_limit_s`` is wall-clock time for one program with all its inputs. Threads may share a worker;
    a forked child may not use its parent's.
    """

    def __init__(self, *, time_limit_s: float = 1.0) -> None:
        self._time_limit_s = time_limit_s
        self._process: subprocess.Popen[bytes] | None = None
        self._poll = select.poll()
        self._awaiting_reply = False
        self._owner = os.getpid()
        self._lock = threading.Lock()

    def __enter__(self) -> "ProgramWorker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Id of the process, or None while there is none."""
        return None if self._process is None else self._process.pid

    def run(
        self, source: str, function_name: str, inputs: Sequence[int], *, check: bool = True
    ) -> ProgramResult:
        """Outputs of the function for each input. ``check=False`` skips the allow-list: only for tests."""
        if check and (why := refusal(source, function_name)):
            return ProgramResult(outputs=None, reason=f"refused: {why}")
        if self._owner != os.getpid():
            raise RuntimeError("this ProgramWorker belongs to another process; make one in this process")
        with self._lock:
            return self._run(source, function_name, list(inputs))

    def close(self) -> None:
        """End the process and everything it started. Closing twice, or in a forked child, does nothing."""
        if self._owner == os.getpid():
            with self._lock:
                self._stop()

    def _run(self, source: str, function_name: str, inputs: list[int]) -> ProgramResult:
        if self._awaiting_reply or self._poll.poll(0):  # interrupted, or died or spoke without being asked
            self._stop()
        if self._process is None:
            self._start()
        nonce = secrets.token_hex(8)
        request = {"nonce": nonce, "source": source, "function_name": function_name, "inputs": inputs}
        self._awaiting_reply = True
        try:
            self._write(json.dumps(request).encode() + b"\n")
            reply = self._read_line(self._time_limit_s, max_bytes=1000 + 64 * len(inputs))
        except TimeoutError:
            result = ProgramResult(outputs=None, reason="time limit")
        except (EOFError, BrokenPipeError):
            result = ProgramResult(outputs=None, reason="worker died")
        else:
            genuine = _parse_reply(reply, nonce, len(inputs))
            self._awaiting_reply = genuine is None
            result = genuine or ProgramResult(outputs=None, reason="error: forged reply")
        if self._awaiting_reply:
            self._stop()
        return result

    def _start(self) -> None:
        cpu_seconds = math.ceil(self._time_limit_s) + 1
        command = [sys.executable, "-I", "-S", "-W", "ignore", str(WORKER_FILE), str(cpu_seconds)]
        pipe = subprocess.PIPE
        with tempfile.TemporaryDirectory() as folder:  # deleted under the worker: nothing can be made in it
            self._process = subprocess.Popen(
                command,
                bufsize=0,
                stdin=pipe,
                stdout=pipe,
                stderr=subprocess.DEVNULL,
                cwd=folder,
                env={},
                start_new_session=True,
            )
        assert self._process.stdout is not None
        self._poll.register(self._process.stdout, select.POLLIN)
        try:
            ready = self._read_line(START_LIMIT_S, max_bytes=100)
        except (TimeoutError, EOFError):
            ready = b""
        if ready != b"ready\n":
            self._stop()
            raise RuntimeError(f"the program worker does not start; try: {' '.join(command)}")

    def _stop(self) -> None:
        """Kill the process group, if there is one, and wait for its end."""
        process, self._process, self._awaiting_reply = self._process, None, False
        if process is None:
            return
        assert process.stdin is not None and process.stdout is not None
        self._poll.unregister(process.stdout)
        # Nobody has waited for the leader yet, so its id cannot be another group's. macOS answers
        # PermissionError for a group of which only the dead leader is left.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdin.close()
        process.stdout.close()

    def _write(self, request: bytes) -> None:
        assert self._process is not None and self._process.stdin is not None
        write_all(self._process.stdin.fileno(), request)

    def _read_line(self, seconds: float, *, max_bytes: int) -> bytes:
        assert self._process is not None and self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        return read_line(descriptor, seconds=seconds, max_bytes=max_bytes)


def _parse_reply(reply: bytes, nonce: str, num_outputs: int) -> ProgramResult | None:
    """The result in a reply, or None if it is not one to this request."""
    try:
        match json.loads(reply):
            case {"nonce": str(echo), "outputs": None, "reason": str(reason)} if (
                echo == nonce and reason != "ok"
            ):
                return ProgramResult(outputs=None, reason=reason)
            case {"nonce": str(echo), "outputs": list(outputs), "reason": "ok"} if echo == nonce:
                if len(outputs) == num_outputs and all(type(output) is int for output in outputs):
                    return ProgramResult(outputs=tuple(outputs), reason="ok")
    except (ValueError, RecursionError):
        pass
    return None


_shared_workers: dict[int, ProgramWorker] = {}  # by process id: a forked child gets its own


def run_program(source: str, function_name: str, inputs: Sequence[int]) -> ProgramResult:
    """Outputs of ``function_name`` for each input, in one worker that all calls of this process share.

    A program that the allow-list refuses is not run. The worker starts at the first call that needs it and
    ends with this process.
    """
    worker = _shared_workers.get(os.getpid())
    if worker is None:
        # Allowed programs end by themselves: the long limit only keeps a busy machine from changing a grade.
        worker = _shared_workers.setdefault(os.getpid(), ProgramWorker(time_limit_s=10.0))
        atexit.register(worker.close)
    return worker.run(source, function_name, inputs)
