"""The sandbox's contract: what is refused, what limits count, what reaches the program. For attacks see
tests/integration/test_sandbox_attacks.py."""

import errno
import os
import re
import struct
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from setup_helpers import absent

from t3d.errors import InputError
from t3d.sandbox import bubblewrap, sandbox, seccomp
from t3d.sandbox.paths import readable_paths
from t3d.sandbox.process import Report, SandboxError
from t3d.sandbox.sandbox import Limits, Sandbox, isolation_problem

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
OK = Report(reason="passed")
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


@pytest.fixture(params=["bubblewrap", "landlock"])
def walls(request):
    if problem := isolation_problem(request.param):
        absent(problem)
    return Sandbox(isolation=request.param, limits=Limits(time_limit_s=5.0))


def test_programs_are_refused_where_nothing_isolates_them(monkeypatch):
    monkeypatch.setattr(sandbox, "isolation_problem", lambda isolation: f"no {isolation} here")
    with pytest.raises(
        InputError, match=r"bubblewrap: no bubblewrap here; landlock: no landlock here.*unsafe"
    ):
        Sandbox()
    with pytest.raises(InputError, match="no landlock here"):
        Sandbox(isolation="landlock", unsafe_no_sandbox=True)
    assert Sandbox(unsafe_no_sandbox=True).isolation == "none"


def test_the_better_isolation_that_works_is_chosen(monkeypatch):
    monkeypatch.setattr(sandbox, "isolation_problem", lambda isolation: None)
    assert Sandbox(unsafe_no_sandbox=True).isolation == "bubblewrap"
    monkeypatch.setattr(sandbox, "isolation_problem", lambda name: "no" if name == "bubblewrap" else None)
    assert Sandbox(unsafe_no_sandbox=True).isolation == "landlock"


def test_no_isolation_has_to_be_called_unsafe():
    with pytest.raises(InputError, match="unsafe_no_sandbox"):
        Sandbox(isolation="none")
    assert Sandbox(isolation="none", unsafe_no_sandbox=True).isolation == "none"


def test_the_probe_notices_an_isolation_that_lets_a_program_out(monkeypatch):
    if isolation_problem("landlock"):
        absent("needs Landlock")
    nothing = {"handled": (1 << 13).to_bytes(8, sys.byteorder), "rules": ()}  # only moves between folders
    monkeypatch.setattr(sandbox, "landlock_ruleset", lambda folder: nothing)
    assert "the program: wrong AssertionError: reads" in isolation_problem.__wrapped__("landlock")


@pytest.mark.parametrize("field", ["memory_bytes", "output_bytes", "num_threads", "time_limit_s"])
def test_limits_are_positive(field):
    with pytest.raises(InputError, match=field):
        Limits(**{field: 0})


def test_every_stage_reports_until_one_fails(walls):
    source, setup = "class A:\n    pass", "a = A()"
    outcome = walls.run_tests(source, ["assert a is not None", "assert A"], setup=setup)
    assert (outcome.end, outcome.reports) == ("done", (OK, OK, OK, OK))
    for test, status, detail in (
        ("assert A is None", "wrong", "AssertionError"),
        ("1 / 0", "error", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(0)", "exit", "SystemExit: 0"),
        ("next(iter([]))", "error", "StopIteration"),
        ("def f(:", "error", "SyntaxError: invalid syntax (<string>, line 1)"),
    ):
        outcome = walls.run_tests(source, ["assert a", test, "assert A"], setup=setup)
        failure = Report(reason=status, detail=detail)
        assert (outcome.end, outcome.reports) == ("failed", (OK, OK, OK, failure))


@pytest.mark.parametrize("source", ["assert 0", "def f(:", "x = '\0'", "x = '\ud800'"])
def test_a_program_that_fails_ends_the_run(walls, source):
    assert [report.passed for report in walls.run_tests(source, ["pass"]).reports] == [False]
    outcome = walls.run_tests("", ["pass"], setup=source)
    assert [report.passed for report in outcome.reports] == [True, False]


def test_ordinary_introspection_works(walls):
    source = (
        "import collections, enum, gc, inspect, logging, traceback, typing, warnings\n"
        "Pair = collections.namedtuple('Pair', 'a b', defaults=[1])\n"
        "class Color(enum.Enum): RED = 1\n"
        "T = typing.TypeVar('T')\n"
        "logging.warning('x')\nwarnings.warn('x')\ngc.collect()\n"
        "name = inspect.currentframe().f_code.co_name\n"
        "try: 1 / 0\nexcept ZeroDivisionError: traceback.print_exc()"
    )
    assert walls.run_tests(source, ["assert Pair(2).b == 1 and Color.RED"]).reports == (OK, OK, OK)


@pytest.mark.other_process
def test_time_is_counted_for_every_test_by_itself(walls):
    sleep = "import time; time.sleep(0.5)"
    started = time.monotonic()
    outcome = walls.run_tests(sleep, [sleep, sleep, sleep], time_limit_s=1.2)
    assert outcome.end == "done" and time.monotonic() - started > 1.5
    started = time.monotonic()
    outcome = walls.run_tests("", ["pass", "while True: pass", "pass"], time_limit_s=0.3)
    assert outcome.end == "timeout" and outcome.reports == (OK, OK, OK)
    assert time.monotonic() - started < 5


def test_a_program_that_ends_the_process_leaves_its_exit_status(walls):
    for source, status in (("import os; os._exit(3)", 3), ("import ctypes; ctypes.string_at(0)", -11)):
        outcome = walls.run_tests(source, ["pass"])
        assert (outcome.end, outcome.exit_status, outcome.reports) == ("exit", status, ())
    for ending in ("exit()", "quit(0)", "import sys; sys.exit()"):
        (report,) = walls.run_tests(ending, ["pass"]).reports
        assert report.reason == "exit"


def test_the_private_folder_is_new_and_empty_every_time(walls):
    source = "import os, tempfile\nassert os.listdir('.') == []\nopen('x', 'w').write('1')\n"
    source += (
        "assert open('x').read() == '1'\ntempfile.TemporaryFile().write(b'x')\nos.remove('x')\nopen('y', 'w')"
    )
    for _ in range(2):
        assert walls.run_tests(source, ["assert True"]).reports == (OK, OK, OK)


@pytest.mark.parametrize("places", [["/tmp"], ["/tmp", "/var/tmp"]])
def test_the_private_folder_is_empty_where_the_environment_lies_below_tmp(monkeypatch, places):
    """As with a checkout there: its packages are mounted below the folder that is the first choice."""
    if problem := isolation_problem("bubblewrap"):
        absent(problem)
    with ExitStack() as stack:
        folders = [stack.enter_context(tempfile.TemporaryDirectory(dir=place)) for place in places]
        monkeypatch.setattr(bubblewrap, "readable_paths", lambda: (*readable_paths(), *folders))
        source = "import os, tempfile\nassert os.listdir('.') == []\ntempfile.TemporaryFile().write(b'x')"
        walls = Sandbox(isolation="bubblewrap")
        assert walls.run_tests(source, ["pass"]).end == "done"


def test_no_capability_is_asked_of_a_bubblewrap_with_roots_rights(monkeypatch, tmp_path):
    """An ordinary user gets none from it, and no number of files is limited."""
    program = tmp_path / "bwrap"
    program.touch()
    monkeypatch.setattr(bubblewrap.shutil, "which", lambda name: str(program))
    for user, mode, is_limited in ((0, 0o4755, True), (1000, 0o755, True), (1000, 0o4755, False)):
        program.chmod(mode)
        monkeypatch.setattr(bubblewrap.os, "geteuid", lambda user=user: user)
        assert (bubblewrap.max_files() is not None) == is_limited
        assert ("CAP_SYS_ADMIN" in bubblewrap.bubblewrap_command([], folder_bytes=1)) == is_limited


def test_a_full_disk_is_waited_for_and_then_named(monkeypatch):
    if problem := isolation_problem("landlock"):
        absent(problem)
    walls, make, full = Sandbox(isolation="landlock"), tempfile.TemporaryDirectory, [1, 2, 3]

    def make_if_there_is_room(**options):
        if full:
            full.pop()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return make(**options)

    monkeypatch.setattr(sandbox.tempfile, "TemporaryDirectory", make_if_there_is_room)
    assert walls.run_tests("", ["pass"]).end == "done" and full == []
    full += [1] * 999
    monkeypatch.setattr(sandbox, "ROOM_LIMIT_S", 0.2)
    with pytest.raises(InputError, match=r"TMPDIR.*No space left"):
        walls.run_tests("", ["pass"])


def test_the_standard_library_and_the_packages_are_there(walls):
    modules = (
        "collections, ctypes, dataclasses, decimal, encodings.idna, hashlib, heapq, itertools, json, numpy"
    )
    source = f"import {modules}\ndef f(): return numpy.ones(2) @ numpy.ones(2)"
    assert walls.run_tests(source, ["assert f() == 2.0", "import numpy"]).reports == (OK, OK, OK, OK)


def test_the_environment_is_clean_and_verdicts_are_repeatable(walls, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    for shown in ("sorted(os.environ)", "hash('a'), list({'a', 'b', 'c', 'd', 'e'})"):
        source = f"import os\nraise ValueError({shown})"
        (first,), (second,) = (walls.run_tests(source, ["pass"]).reports for _ in range(2))
        assert first == second and first.detail.startswith("ValueError: ") and len(first.detail) < 200
        assert "HF_TOKEN" not in first.detail and "HOME" not in first.detail


def test_threads_are_allowed_within_their_limit(walls):
    source = (
        "import threading\nfound = []\n"
        "threads = [threading.Thread(target=found.append, args=(i,)) for i in range(9)]\n"
        "for thread in threads: thread.start()\nfor thread in threads: thread.join()"
    )
    assert walls.run_tests(source, ["assert sorted(found) == list(range(9))"]).reports == (OK, OK, OK)


def test_a_broken_interpreter_is_not_the_programs_fault(walls, monkeypatch):
    monkeypatch.setattr(sandbox, "interpreter", lambda: "/usr/bin/false")
    with pytest.raises(SandboxError, match="does not start"):
        walls.run_tests("", ["pass"])
    monkeypatch.setattr(sandbox, "interpreter", lambda: "/nonexistent")
    with pytest.raises(SandboxError, match=r"/nonexistent|No such file"):
        walls.run_tests("", ["pass"])


@pytest.mark.other_process
def test_no_descriptor_or_folder_is_left(walls):
    before = os.listdir("/proc/self/fd")
    walls.run_tests("", ["pass"])
    walls.run_tests("", ["while True: pass"], time_limit_s=0.1)
    assert os.listdir("/proc/self/fd") == before


def test_namespaces_hold_without_the_filter(monkeypatch):
    """Below the filter, which refuses to fork, bubblewrap limits processes and ends those left behind."""
    if problem := isolation_problem("bubblewrap"):
        absent(problem)
    machine = os.uname().machine
    monkeypatch.setattr(seccomp, "REFUSED", {"mount": (165, 40)})
    monkeypatch.setitem(seccomp.CLONE, machine, 10_000)
    walls = Sandbox(isolation="bubblewrap", limits=Limits(time_limit_s=5.0, num_threads=16))
    source = (
        "import os, time\ncount = 0\nwhile True:\n    try:\n        child = os.fork()\n    except OSError:\n"
        "        break\n    if child == 0:\n        os.setsid()\n        time.sleep(1000)\n    count += 1\n"
    )
    before = set(os.listdir("/proc"))
    outcome = walls.run_tests(source, ["assert count < 16", "assert count > 5"])
    assert outcome.reports == (OK, OK, OK, OK)
    deadline = time.monotonic() + 10  # what is killed ends a little later
    while (left := _programs(before)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left


def _programs(before):
    """Command lines of the sandbox's processes that were not there before."""
    lines = []
    for pid in set(os.listdir("/proc")) - before:
        with suppress(OSError):  # it has ended meanwhile
            lines.append(Path("/proc", pid, "cmdline").read_bytes())
    return [line for line in lines if b"marshal.load" in line]


# ---- the filter ----


def verdict(steps, machine, number, arguments=(0, 0)):
    """What the kernel would do: a classic BPF interpreter for the instructions that the filter uses."""
    arch = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "i386": 0x40000003}[machine]
    data = struct.pack("<IIQ6Q", number, arch, 0, *arguments, *[0] * (6 - len(arguments)))
    program = list(struct.iter_unpack("=HBBI", steps))
    position, word = 0, 0
    while True:
        code, yes, no, value = program[position]
        position += 1
        if code == 0x20:
            (word,) = struct.unpack_from("<I", data, value)
        elif code == 0x06:
            return value
        else:
            holds = {0x15: word == value, 0x35: word >= value, 0x45: word & value != 0}[code]
            position += yes if holds else no


REFUSE, ALLOW, UNKNOWN = 0x50000 | errno.EPERM, 0x7FFF0000, 0x50000 | errno.ENOSYS


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_refuses_its_list_and_nothing_else(machine):
    steps = seccomp.seccomp_filter(machine)
    column = ["x86_64", "aarch64"].index(machine)
    refused = {numbers[column] for numbers in seccomp.REFUSED.values()} - {None}
    partly = {
        table[machine]
        for table in (
            seccomp.CLONE,
            seccomp.PRLIMIT,
            seccomp.PRCTL,
            seccomp.GETSOCKOPT,
            seccomp.FCNTL,
            seccomp.IOCTL,
        )
    }
    for number in set(range(480)) - partly - {435}:
        assert verdict(steps, machine, number) == (REFUSE if number in refused else ALLOW), number
    assert verdict(steps, machine, 435) == UNKNOWN
    assert verdict(steps, machine, 0x40000000 + 41) == UNKNOWN
    assert verdict(steps, "i386", 20) == 0x80000000


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_looks_at_arguments(machine):
    steps = seccomp.seccomp_filter(machine)

    def of(table, *arguments):
        return verdict(steps, machine, table[machine], arguments)

    assert of(seccomp.CLONE, 0x3D0F00) == ALLOW  # a thread of the C library
    assert of(seccomp.CLONE, 17) == REFUSE  # fork
    assert of(seccomp.PRLIMIT, 0) == ALLOW
    assert of(seccomp.PRLIMIT, 4711) == REFUSE
    assert of(seccomp.PRCTL, 15) == ALLOW  # a thread's name
    assert of(seccomp.PRCTL, 1) == REFUSE
    assert of(seccomp.GETSOCKOPT, 3, 1, 3) == ALLOW  # its type
    assert of(seccomp.GETSOCKOPT, 3, 1, 77) == REFUSE
    assert of(seccomp.FCNTL, 8, 3) == ALLOW
    assert [of(seccomp.FCNTL, 3, command) for command in (8, 10, 15, 1024)] == [REFUSE] * 4
    assert [of(seccomp.IOCTL, 1, command) for command in (0x5401, 0x5421, 0x5451)] == [ALLOW] * 3
    assert [of(seccomp.IOCTL, 1, command) for command in (0x8901, 0x5412, 0x40086602)] == [REFUSE] * 3


def test_other_machines_have_no_filter():
    assert seccomp.seccomp_filter("riscv64") is None


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_numbers_are_those_of_the_kernel_headers(machine):
    if not HEADERS[machine].is_file():
        pytest.skip("no kernel headers here")
    text = HEADERS[machine].read_text()
    header = {
        name: int(number) for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)\b", text)
    }
    column = ["x86_64", "aarch64"].index(machine)
    names = {name: numbers[column] for name, numbers in seccomp.REFUSED.items()}
    for name, table in (
        ("clone", seccomp.CLONE),
        ("prlimit64", seccomp.PRLIMIT),
        ("prctl", seccomp.PRCTL),
        ("getsockopt", seccomp.GETSOCKOPT),
        ("fcntl", seccomp.FCNTL),
        ("ioctl", seccomp.IOCTL),
    ):
        names[name] = table[machine]
    compared = {name: number for name, number in names.items() if name in header}
    assert len(compared) > 60
    assert compared == {name: header[name] for name in compared}
    assert all(name not in header for name, number in names.items() if number is None)
