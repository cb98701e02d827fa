"""What the programs in the folder ``attacks`` are after, and whether they got it. Never run them outside.

After "=== name: reasons" comes a program; lines that begin with "# test: " are its tests. Reasons are those
that the first test may fail for, and "any" is any. Names in double braces are replaced. The tests fail unless
the attack gets through: then what the program found or did lets them pass.
"""

import ctypes
import os
import re
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SECRET = "the secret of the parent"
IPC_PRIVATE, IPC_NOWAIT, IPC_RMID = 0, 0o4000, 0
LIBC = ctypes.CDLL(None)
CTYPES = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nL = ctypes.c_long"
SEARCH = """
import re, sys, types
def expected_in(objects):
    seen, found, waiting = set(), [], list(objects)
    while waiting and len(seen) < 100_000:
        value = waiting.pop()
        if id(value) in seen: continue
        seen.add(id(value))
        if isinstance(value, (str, bytes, bytearray)):
            text = value if isinstance(value, str) else value.decode('latin-1')
            found += re.findall('expected [0-9]+', text)
        elif isinstance(value, dict): waiting += [*value, *value.values()]
        elif isinstance(value, (list, tuple, set, frozenset)): waiting += value
        elif isinstance(value, types.FunctionType):
            waiting += [*(value.__closure__ or ()), value.__defaults__, value.__code__]
        elif isinstance(value, types.CodeType): waiting += value.co_consts
        elif isinstance(value, types.CellType):
            try: waiting.append(value.cell_contents)
            except ValueError: pass
        elif type(value).__name__.endswith('iterator') or type(value) in (map, zip):
            waiting.append(value.__reduce__())
        elif isinstance(value, types.FrameType):
            waiting += [value.f_back, *value.f_locals.values(), value.f_globals, value.f_builtins]
        elif hasattr(value, '__dict__'): waiting.append(vars(value))
    return found[0] if found else None
"""
CHANNEL = """
import os, struct, sys, time
frame = sys._getframe()
while 'Program' not in frame.f_globals: frame = frame.f_back
runner = frame.f_globals
while frame.f_code.co_name != 'main': frame = frame.f_back
descriptor = frame.f_locals['request']['channel']
def encoded(value): return runner['Encoder'](None, max_bytes=2**20).encode(value)
def say(value): runner['send'](descriptor, encoded(value))
def raw(parts, data):
    # A tuple of four, of which the last is written as these bytes.
    whole = b'(' + struct.pack('<I', len(parts) + 1) + b''.join(map(encoded, parts)) + data
    runner['send'](descriptor, whole)
def number():
    frame = sys._getframe()
    while frame.f_code.co_name != 'answer': frame = frame.f_back
    return frame.f_locals['number']
def hold(): time.sleep(100)
"""


@dataclass(frozen=True)
class Attack:
    """A program, tests that it can pass only by getting out, and the reasons that the first may fail for."""

    source: str
    tests: tuple[str, ...]
    reasons: frozenset[str] | None


def read_attacks() -> dict[str, Attack]:
    """The attacks by name."""
    files = sorted(Path(__file__).with_name("attacks").glob("*.txt"))
    text = "".join(file.read_text(encoding="utf-8") for file in files)
    attacks = {}
    for block in re.split(r"^=== ", text, flags=re.MULTILINE)[1:]:
        head, _, body = block.partition("\n")
        name, _, reasons = head.partition(": ")
        lines = [line for line in body.splitlines() if not line.startswith("--- ")]
        tests = tuple(line.removeprefix("# test: ") for line in lines if line.startswith("# test: "))
        source = "\n".join(line for line in lines if not line.startswith("# test: "))
        allowed = None if reasons == "any" else frozenset(reasons.split(", ")) - {"none"}
        attacks[name] = Attack(source, tests, allowed)
    return attacks


@dataclass(frozen=True)
class Surroundings:
    """What the attacks are after: files, and a queue, that by themselves let everybody read and write."""

    folder: Path
    server: socket.socket
    queue: int

    @classmethod
    def make(cls, folder: Path) -> "Surroundings":
        """Lay out the files and listen on a port."""
        (folder / "home").mkdir()
        for name in ("secret", "victim", "home/kept"):
            (folder / name).write_text(SECRET)
            (folder / name).chmod(0o666)
        for path in (folder, folder / "home"):
            path.chmod(0o777)
        with suppress(OSError):  # some file systems have no such attributes
            os.setxattr(folder / "secret", "user.t3d", SECRET.encode())
        server = socket.create_server(("127.0.0.1", 0))
        server.setblocking(False)
        queue = LIBC.msgget(IPC_PRIVATE, 0o666)
        LIBC.msgsnd(queue, (1).to_bytes(8, sys.byteorder) + SECRET.encode(), len(SECRET), IPC_NOWAIT)
        return cls(folder, server, queue)

    def fill(self, text: str) -> str:
        """Text with the names replaced."""
        names = {name: self.folder / name for name in ("secret", "victim", "home", "outside")}
        codes = {"ctypes": CTYPES, "search": SEARCH, "channel": CHANNEL}
        values = {**names, **codes, "port": self.server.getsockname()[1], "text": repr(SECRET)}
        values["queue"] = self.queue
        for name, value in values.items():
            text = text.replace("{{" + name + "}}", str(value))
        return text

    def damage(self) -> list[str]:
        """What an attack changed, or whom it reached."""
        found = []
        for name in ("secret", "victim", "home/kept"):
            path = self.folder / name
            if not path.is_file() or path.read_text() != SECRET or path.stat().st_mode & 0o777 != 0o666:
                found.append(f"{name} was changed")
        if sorted(os.listdir(self.folder)) != ["home", "secret", "victim"]:
            found.append(f"files outside: {sorted(os.listdir(self.folder))}")
        try:
            self.server.accept()[0].close()
            found.append("the network was reached")
        except BlockingIOError:
            pass
        held = ctypes.create_string_buffer(8 + len(SECRET))
        if LIBC.msgrcv(self.queue, held, len(SECRET), 0, IPC_NOWAIT) < len(SECRET):
            found.append("the queue was read")
        LIBC.msgctl(self.queue, IPC_RMID, None)
        return found
