"""Model-written functions: only harmless arithmetic is let through, and the worker survives what is not.

The tests with ``check=False`` show what the worker contains without the allow-list.
"""

import os
import signal
import string
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t3d.mini import programs
from t3d.mini.programs import ProgramResult, ProgramWorker, refusal, run_program

GOOD = "def f(x):\n y = 3 * x + 4\n return y - 5 if y > 20 else y\n"
# The only way to a module without builtins or import: some class whose methods' globals are the os module's.
FIND = "[c for c in ().__class__.__base__.__subclasses__() if c.__name__ == '_wrap_close'][0]"
OS = f"{FIND}.__init__.__globals__"


@pytest.fixture(scope="module")
def worker():
    with ProgramWorker() as worker:
        yield worker


def test_outputs_are_those_of_the_function():
    assert run_program(GOOD, "f", [0, 1, 8, -10]) == ProgramResult(outputs=(4, 7, 23, -26), reason="ok")
    assert run_program(GOOD, "f", []) == ProgramResult(outputs=(), reason="ok")


@pytest.mark.parametrize(
    ("source", "outputs"),
    [
        ("def f(x): return -x", (0, -3)),
        ("def f(number):\n    return number", (0, 3)),
        ("def f(x):\n\tif x >= 2:\n\t\treturn 1000000 * x\n\telse:\n\t\treturn x - 1", (-1, 3000000)),
        ("def f(x):\n if x == 0:\n  y = 1\n elif x != 4:\n  y = 2\n return y", (1, 2)),
        ("# a comment\ndef f(x):\n a = b = (x + 1) * (x - 1)  # why not\n\n return a + b\n", (-2, 16)),
        ("def f(x):\n return 1 if x < 1 else 2 if x <= 3 else 3", (1, 2)),
        ("def f(x):\n return " + "(" * 99 + "x" + ")" * 99, (0, 3)),  # they leave no trace in the tree
    ],
)
def test_allowed_programs_run(source, outputs):
    assert run_program(source, "f", [0, 3]) == ProgramResult(outputs=outputs, reason="ok")


REFUSED = [
    "",
    "f",
    "def g(x):\n return x",
    "def f(x):\n return x\ndef g(x):\n return x",
    "x = 3\ndef f(x):\n return x",
    "f = lambda x: x",
    "class f: pass",
    "async def f(x):\n return x",
    "@f\ndef f(x):\n return x",
    "def f():\n return 1",
    "def f(x, y):\n return x",
    "def f(x=1):\n return x",
    "def f(x, /):\n return x",
    "def f(*x):\n return x",
    "def f(**x):\n return x",
    "def f(*, x):\n return x",
    "def f(x, *y):\n return x",
    "def f(x: y):\n return x",
    "def f(x) -> x:\n return x",
    "def f[T](x):\n return x",
    "def f(__x):\n return 1",
    *(
        f"def f(x):\n {statement}\n return x"
        for statement in (
            "import os",
            "from os import path",
            "pass",
            "x",
            "x()",
            "exit()",
            "x += 1",
            "x: int = 1",
            "x, y = 1, 2",
            "[x] = 1",
            "x.y = 1",
            "x[0] = 1",
            "while 1:\n  x = x",
            "for y in x:\n  x = y",
            "def g(x):\n  return x",
            "class g:\n  x = 1",
            "global x",
            "nonlocal x",
            "del x",
            "raise x",
            "assert x",
            "try:\n  x = 1\n finally:\n  x = 2",
            "with x:\n  x = 1",
            "match x:\n  case 1:\n   x = 2",
        )
    ),
    *(
        f"def f(x):\n return {expression}"
        for expression in (
            "print(x)",
            "__import__(x)",
            "__builtins__",
            "__debug__",
            "x.real",
            "x[0]",
            "'text'",
            "b'text'",
            "f'{x}'",
            "x ** x",
            "x << x",
            "x >> 1",
            "x / 2",
            "x // 2",
            "x % 2",
            "x & 1",
            "x | 1",
            "x ^ 1",
            "x @ x",
            "~x",
            "+x",
            "not x",
            "x and 1",
            "x or 1",
            "1 < x < 3",
            "1 if x is 1 else 2",
            "1 if x in x else 2",
            "lambda: x",
            "[x for x in x]",
            "[x]",
            "(x, x)",
            "{x}",
            "{x: x}",
            "(y := x)",
            "*x, 1",
            "(yield x)",
            "await x",
            "1.5",
            "1e3",
            "2j",
            "True",
            "None",
            "...",
            "1000001",
            "9" * 1500,
            "0x10",
            "1_0",
            "x-5if x else 1",
            "x" + " + 1" * 400,
            "-" * 1500 + "x",
            "(" * 900 + "x" + ")" * 900,
            "x +",
        )
    ),
    GOOD + " " * 2000,
    GOOD + "\0",
    GOOD + "\\",
    GOOD + "\r",
    GOOD + "\x0c",
    GOOD + "# \u00e9",
    GOOD + "# \ud800",
    "def \uff46(x):\n return x",  # Python normalizes this letter to f
    "def f(x):\nreturn x",
    "".join("\n" + " " * depth + "if x:" for depth in range(60)),
]


@pytest.mark.parametrize("source", REFUSED, ids=lambda source: ascii(source[-40:]))
def test_everything_else_is_refused_with_a_short_reason(source):
    started = time.monotonic()
    result = run_program(source, "f", [1])
    assert result.outputs is None
    assert result.reason.startswith("refused: ")
    assert len(result.reason) < 120
    assert refusal(source, "f") == result.reason.removeprefix("refused: ")
    assert time.monotonic() - started < 0.5


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return y", "error: NameError: name 'y' is not defined"),
        ("if x < 0:\n  y = 1\n return y", "error: UnboundLocalError"),
        ("return x < 3", "error: output of type bool, not int"),
        ("return f", "error: output of type function, not int"),
        ("return", "error: output of type NoneType, not int"),
        ("y = 1000000 * 1000000 * 1000000\n return y * y * 10000", "error: output of more than 40 digits"),
    ],
)
def test_an_allowed_program_can_fail(body, reason):
    result = run_program(f"def f(x):\n {body}", "f", [1])
    assert result.outputs is None
    assert result.reason.startswith(reason)


def test_output_of_forty_digits_passes_with_either_sign():
    source = "def f(x):\n y = 1000000 * 1000000 * 1000000\n return (y * y * 10000 - 1) * x"
    assert run_program(source, "f", [1, -1]).outputs == (10**40 - 1, 1 - 10**40)


def test_program_whose_numbers_explode_is_refused_and_unchecked_is_stopped(worker):
    """Each assignment doubles the digits; eight of them are allowed and end at once."""
    explosive = "def f(x):\n" + " x = x * x\n" * 150 + " return x"
    assert refusal(explosive, "f") == "more than 8 multiplications"
    started = time.monotonic()
    assert worker.run(explosive, "f", [999], check=False).reason in ("time limit", "memory limit")
    assert time.monotonic() - started < 3
    assert worker.run(GOOD, "f", [1]).outputs == (7,)
    longest = "def f(x):\n" + " x = x * x\n" * 8 + " return x - x"
    assert run_program(longest, "f", [999]).outputs == (0,)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("while 1: x = x", "time limit"),
        ("return [0] * 2**28 and 1", "memory limit"),
        ("return f(x)", "error: RecursionError"),
        ("return 9**9**9", "time limit"),
        ("import os\n os._exit(0)", "error: ImportError: __import__ not found"),
        ("raise SystemExit", "error: NameError: name 'SystemExit' is not defined"),
        ("exit()", "error: NameError: name 'exit' is not defined"),
        ("print(1)", "error: NameError: name 'print' is not defined"),
        ("return open(x)", "error: NameError: name 'open' is not defined"),
        ("return 1, 2", "error: output of type tuple, not int"),
        ("return 10**40", "error: output of more than 40 digits"),
        ("return 1 if", "error: SyntaxError"),
        ("return '\ud800'", "error: UnicodeEncodeError"),
        # With the os module, found in spite of everything:
        (f"return {OS}['_exit'](0)", "worker died"),
        (f"return {OS}['abort']()", "worker died"),
        (f"return {OS}['kill'](0, 9)", "worker died"),
        (f"return {OS}['sys'].exit(0)", "error: SystemExit: 0"),
        (f"return {OS}['open']('made', 65)", "error: OSError: [Errno 24]"),
        (f"return {OS}['mkdir']('made')", "error: FileNotFoundError"),
        (f"return {OS}['write'](1, b'x')", "ok"),  # the null device
        (
            f"""for n in (3, 4, 5, 6):
  try: {OS}['write'](n, b'{{"nonce": "0", "outputs": [1], "reason": "ok"}}\\n')
  except {OS}['error']: x = 1
 return 1""",
            "error: forged reply",
        ),
        (
            f"while 1:\n  try: {OS}['write'](4, b'x' * 999)\n  except {OS}['error']: x = 1",
            "error: forged reply",
        ),
    ],
)
def test_the_worker_alone_contains_attacks_and_the_next_program_runs(worker, body, reason):
    started = time.monotonic()
    result = worker.run(f"def f(x):\n {body}", "f", [1], check=False)
    assert result.reason.startswith(reason)
    assert result.outputs == ((1,) if reason == "ok" else None)
    assert worker.run(GOOD, "f", [0, 1, 8, -10]).outputs == (4, 7, 23, -26)
    assert time.monotonic() - started < 3


def test_a_genuine_reply_with_anything_beside_it_does_not_count(worker):
    write = f"try: {OS}['write'](n, b'{{}}')\n  except {OS}['error']: x = 1"
    source = f"def f(x):\n for n in (3, 4):\n  {write}\n return 1"
    assert worker.run(source, "f", [1], check=False).reason == "error: forged reply"
    assert worker.run(GOOD, "f", [1]).outputs == (7,)


def test_a_worker_whose_parent_is_gone_stops_by_itself():
    """It ends with its standard input, and a program that never ends runs out of CPU time."""
    command = [sys.executable, "-I", "-S", str(programs.WORKER_FILE), "1"]
    endless = b'{"nonce": "", "source": "while 1: x = 1", "function_name": "f", "inputs": []}\n'
    for request, status in ((b"", 0), (endless, -signal.SIGXCPU)):
        finished = subprocess.run(command, input=request, capture_output=True, timeout=20, check=False)
        assert (finished.returncode, finished.stdout) == (status, b"ready\n")


@pytest.mark.parametrize(
    "body",
    ["while 1: x = x", "return [0] * 2147483648", "exit()", "raise SystemExit", "import os"],
)
def test_the_allow_list_refuses_attacks_before_anything_runs(body):
    with ProgramWorker() as fresh:
        assert fresh.run(f"def f(x):\n {body}", "f", [1]).reason.startswith("refused: ")
        assert fresh.pid is None


def test_one_process_runs_many_programs_and_is_replaced_when_it_is_killed():
    with ProgramWorker() as worker:
        assert worker.pid is None
        pids = set()
        for number in range(500):
            assert worker.run(f"def f(x):\n return x + {number}", "f", [1]).outputs == (number + 1,)
            pids.add(worker.pid)
        (first,) = pids
        assert os.getpgid(first) == os.getsid(first) == first
        os.kill(first, signal.SIGKILL)
        os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
        assert worker.run(GOOD, "f", [1]).outputs == (7,)  # a death between programs is nobody's fault
        second = worker.pid
        assert worker.run("def f(x):\n while 1: x = x", "f", [1], check=False).reason == "time limit"
        assert worker.run(GOOD, "f", [1]).outputs == (7,)
        third = worker.pid
        assert len({first, second, third}) == 3
    assert worker.pid is None
    assert not any(map(_exists, (first, second, third)))
    worker.close()


def test_an_interrupted_program_leaves_no_reply_for_the_next(worker, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    assert worker.run(GOOD, "f", [1]).outputs == (7,)
    with monkeypatch.context() as patch:
        patch.setattr(ProgramWorker, "_read_line", interrupt)
        with pytest.raises(KeyboardInterrupt):
            worker.run(GOOD, "f", [2])
    assert worker.run(GOOD, "f", [3]).outputs == (13,)


def test_requests_larger_than_a_pipe_pass(worker):
    inputs = range(50_000)
    assert worker.run("def f(x):\n return x + 1", "f", inputs).outputs == tuple(range(1, 50_001))


def test_the_worker_loads_neither_this_package_nor_torch(worker):
    count = (
        f"x = 0\n for m in {OS}['sys'].modules:\n  if m[:3] in ('t3d', 'tor', 'num'): x = x + 1\n return x"
    )
    assert worker.run(f"def f(x):\n {count}", "f", [1], check=False).outputs == (0,)
    environment = f"def f(x):\n return {OS}['environ'].__len__() + ('HOME' in {OS}['environ'])"
    assert worker.run(environment, "f", [1], check=False).outputs[0] <= 1  # Python itself may set LC_CTYPE


def test_a_forked_child_gets_its_own_worker_and_nothing_outlives_the_process():
    """In a process of its own: this one has threads, which fork does not copy."""
    script = f"""
import importlib.util, os, sys
spec = importlib.util.spec_from_file_location("programs", {programs.__file__!r})
programs = sys.modules["programs"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(programs)
good = {GOOD!r}
explicit = programs.ProgramWorker()
assert explicit.run(good, "f", [1]).outputs == programs.run_program(good, "f", [1]).outputs == (7,)
shared = programs._shared_workers[os.getpid()]
child = os.fork()
if child == 0:
    assert programs.run_program(good, "f", [8]).outputs == (23,)
    print(programs._shared_workers[os.getpid()].pid, flush=True)
    explicit.close()
    try:
        explicit.run(good, "f", [1])
    except RuntimeError:
        sys.exit(0)
    sys.exit(1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
before = shared.pid, explicit.pid
assert explicit.run(good, "f", [1]).outputs == programs.run_program(good, "f", [1]).outputs == (7,)
assert before == (shared.pid, explicit.pid)
explicit.close()
print(*before)
"""
    command = [sys.executable, "-c", script]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert finished.returncode == 0, finished.stderr
    pids = [int(pid) for pid in finished.stdout.split()]
    assert len(set(pids)) == 3
    assert not any(map(_exists, pids))


def _exists(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


MUTATION = st.tuples(
    st.integers(0, len(GOOD)),
    st.integers(0, 6),
    st.text(st.sampled_from(string.printable + "\0\u00e9\ud800"), max_size=6)
    | st.sampled_from(["x * x", " y", "\n ", "\n return ", "if ", "else ", "(", ")", "- ", "x", "y", "7"]),
)


@settings(max_examples=300, deadline=None)
@given(source=st.text(max_size=200) | st.lists(MUTATION, min_size=1, max_size=4))
def test_no_text_raises_or_hangs(source):
    if isinstance(source, list):
        mutations, source = source, GOOD
        for start, length, text in mutations:
            source = source[:start] + text + source[start + length :]
    started = time.monotonic()
    result = run_program(source, "f", [0, 1, 8, -10])
    assert (result.outputs is not None) == (result.reason == "ok")
    assert time.monotonic() - started < 3
