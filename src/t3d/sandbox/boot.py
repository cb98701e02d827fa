"""Bare interpreters that get their code through standard input: what is sent, and how they start."""

import marshal
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any

# Each module gets its own copy of the builtins, out of the program's reach. The last one serves the request.
BOOT = (
    "import builtins, marshal, sys\n"
    "modules, request = marshal.loads(sys.stdin.buffer.read())\n"
    "for name, code in marshal.loads(modules):\n"
    "    module = sys.modules[name] = type(sys)(name)\n"
    "    module.__dict__['__builtins__'] = dict(vars(builtins))\n"
    "    exec(code, module.__dict__)\n"
    "module.main(request)"
)
INTERPRETER_FLAGS = ("-P", "-s", "-S", "-B", "-c", BOOT)
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "PYTHONUTF8": "1",
    "PYTHONHASHSEED": "0",  # the order of sets, and with it a verdict, is the same every time
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
SHARED = ("values", "codec", "handles", "channel", "walls")


@cache
def code_of(module: str) -> bytes:
    """A module of this package that an interpreter runs, behind those that it shares, marshalled."""
    codes = []
    for name in (*SHARED, module):
        path = Path(__file__).with_name(f"{name}.py")
        code = compile(path.read_text(encoding="utf-8"), f"<{name}>", "exec", dont_inherit=True, optimize=2)
        codes.append((f"t3d.sandbox.{name}", code))
    return marshal.dumps(codes)


def first_words(module: str, request: dict[str, Any]) -> bytes:
    """All that an interpreter reads from standard input."""
    return marshal.dumps((code_of(module), request))


def scratch_file() -> IO[bytes]:
    """An open file without a name, in memory: no program that fills a folder is in its way."""
    if sys.platform == "linux":
        return os.fdopen(os.memfd_create("t3d"), "w+b")
    return tempfile.TemporaryFile()


def start(
    command: Sequence[str], *, pass_fds: tuple[int, ...], stdout: int, stderr: Any, folder: str | None
) -> subprocess.Popen[bytes]:
    """Start an interpreter, in a session of its own. Raises OSError."""
    return subprocess.Popen(
        [*command],
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=stderr,
        bufsize=0,
        cwd=folder,
        env=ENVIRONMENT,
        pass_fds=pass_fds,
        start_new_session=True,
    )
