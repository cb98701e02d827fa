"""Attacks on the sandbox, under both kinds of isolation and as both kinds of user: contained, and failed."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from sandbox_attacks import CTYPES, SECRET, Surroundings, read_attacks
from setup_helpers import absent

SESSION = Path(__file__).with_name("sandbox_session.py")
NOBODY = 65534
LIMITS = {"time_limit_s": 1.0, "memory_bytes": 600 * 2**20}
PATIENCE = {"time_limit_s": 10.0}
CONCURRENCY = 4  # times the memory: stays below 3 GB
GOOD = {"source": "def f(x):\n    return x + 1", "tests": ["assert f(1) == 2"]}
ATTACKS = read_attacks()

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


@dataclass(frozen=True)
class Session:
    """What became of the programs, what they changed outside, and which processes they left."""

    results: dict
    damage: list[str]
    processes: list[str]


@cache
def interpreter_of(user):
    """Something with which this user can run a session, or None."""
    probe = "import sys; assert sys.version_info >= (3, 11); [open(name) for name in sys.argv[1:]]"
    sandbox = SESSION.parents[2] / "src" / "t3d" / "sandbox" / "sandbox.py"
    for candidate in (sys.executable, "/usr/bin/python3"):
        command = [candidate, "-c", probe, str(SESSION), str(sandbox)]
        try:
            if subprocess.run(command, **as_user(user), capture_output=True, check=False).returncode == 0:
                return candidate
        except OSError:
            continue
    return None


def as_user(user):
    return {} if user is None else {"user": user, "group": user, "extra_groups": []}


def start(isolation, user, marker):
    """A session that waits for its programs, and the dictionary to send."""
    interpreter = interpreter_of(user)
    if interpreter is None:
        absent(f"user {user} has no Python 3.11 here that can read the tests")
    process = subprocess.Popen(
        [interpreter, str(SESSION)],
        env={"T3D_SECRET": SECRET, "PATH": os.environ["PATH"]},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **as_user(user),
    )
    return process, {"isolation": isolation, "limits": LIMITS, "marker": marker, "concurrency": CONCURRENCY}


def run_session(isolation, user, programs):
    marker = f"t3d-test-{uuid.uuid4().hex}"
    with tempfile.TemporaryDirectory() as folder:
        surroundings = Surroundings.make(Path(folder))
        process, session = start(isolation, user, marker)
        session["programs"] = {
            name: {
                "source": surroundings.fill(source),
                "tests": [surroundings.fill(test) for test in tests],
                "limits": {} if may_take_too_long(name) else PATIENCE,
            }
            for name, (source, tests) in programs.items()
        }
        output, errors = process.communicate(json.dumps(session), timeout=250)
        deadline = time.monotonic() + 10  # the server of tests' processes ends when it hears of the end
        while (processes := processes_of(marker)) and time.monotonic() < deadline:
            time.sleep(0.05)
        damage = surroundings.damage()
        surroundings.server.close()
    assert process.returncode == 0, errors  # the attacks' parent is alive and well
    answer = json.loads(output)
    if "refused" in answer:
        absent(answer["refused"])
    return Session(answer["results"], damage, processes)


def may_take_too_long(name):
    """Of what fails for another reason a busy machine must not make a timeout."""
    return name in ATTACKS and (ATTACKS[name].reasons is None or "timeout" in ATTACKS[name].reasons)


def processes_of(marker):
    """Command lines that hold the marker, or are the daemon's of an attack."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue
        if marker.encode() in line or line == b"sleep\x001000\x00":
            found.append(line.replace(b"\0", b" ").decode(errors="replace")[-200:])
    return found


OTHER_SET_UPS = [("bubblewrap", "root"), ("bubblewrap", "user"), ("landlock", "root")]
"""Those of the slow tier, which ``.ci/run`` calls; the one that is left works on most machines."""
ALL_SET_UPS = [
    ("landlock", "user"),
    *(pytest.param(set_up, marks=pytest.mark.slow) for set_up in OTHER_SET_UPS),
]


@pytest.fixture(scope="module", params=ALL_SET_UPS, ids="-".join)
def set_up(request):
    """An isolation, and the id to change to or None to stay."""
    isolation, user = request.param
    if user == "user":
        return isolation, NOBODY if os.geteuid() == 0 else None
    if os.geteuid() != 0:
        absent("needs to be root")
    return isolation, None


FEW = 3
"""One attack in so many is in the fast tier, in its one set-up; the slow tier has the others."""
ALL_ATTACKS = [
    pytest.param(name, marks=[pytest.mark.slow] if index % FEW else []) for index, name in enumerate(ATTACKS)
]


@pytest.fixture(scope="module")
def session(request, set_up):
    """The attacks that were chosen in one session, with a good program at the beginning and the end."""
    chosen = {item.callspec.params["name"] for item in request.session.items if _is_attack(item)}
    programs = {name: (ATTACKS[name].source, ATTACKS[name].tests) for name in ATTACKS if name in chosen}
    good = (GOOD["source"], GOOD["tests"])
    return run_session(*set_up, {"first": good, **programs, "last": good})


def _is_attack(item):
    return item.function is test_an_attack_fails_its_tests


@pytest.mark.parametrize("name", ALL_ATTACKS)
def test_an_attack_fails_its_tests(session, name):
    attack, result = ATTACKS[name], session.results[name]
    assert not result["passed"]
    assert session.damage == session.processes == []
    assert len(result["cases"]) == len(attack.tests)
    reasons = [case["reason"] for case in result["cases"]]
    assert reasons[1:] == ["not run"] * (len(attack.tests) - 1) or len(set(reasons)) <= 1
    assert attack.reasons is None or set(reasons[:1]) <= attack.reasons, result


def test_attacks_change_nothing_outside(session):
    assert session.damage == []


def test_attacks_leave_no_process(session):
    assert session.processes == []


def test_the_harness_stays_responsive(session):
    assert session.results["first"]["passed"] and session.results["last"]["passed"]
    assert [name for name, result in session.results.items() if not result["good after"]] == []
    slowest = max(session.results, key=lambda name: session.results[name]["seconds"])
    assert session.results[slowest]["seconds"] < 20, slowest


FILLS = """
import time
count = 0
try:
    while True:
        open(str(count), 'w').close()
        count += 1
except OSError: pass
def f(x):
    time.sleep(.3)
    return count
"""


def test_a_program_that_uses_up_the_inodes_stops_no_other(tmp_path):
    """Landlock does not limit the number of files: others wait for their folders until this one has ended."""
    if os.geteuid() != 0:
        absent("needs to be root")
    fills = {"source": FILLS, "tests": ["assert f(1) < 60"]}
    session = {"isolation": "landlock", "limits": LIMITS, "marker": "x", "concurrency": 3}
    session["programs"] = {str(number): fills if number % 3 == 1 else GOOD for number in range(9)}
    script = 'mount -t tmpfs -o nr_inodes=60 tmpfs "$1" && chmod 1777 "$1" && TMPDIR="$1" "$2" "$3"'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", str(tmp_path), sys.executable, str(SESSION)]
    for _ in range(2):
        run = subprocess.run(command, input=json.dumps(session), capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        answer = json.loads(run.stdout)
        if "refused" in answer:
            absent(answer["refused"])
        assert [name for name, result in answer["results"].items() if not result["passed"]] == []


STARTS_THREADS = """
import ctypes, mmap, time
# A loop around pause(2), in as many threads as there may be, of which none takes memory.
code = bytes.fromhex('b838000000bf000f010031f631d24531d24531c00f0585c07509b8220000000f05ebf7c3')
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(code)
clone = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
def f(x):
    count = sum(clone() > 0 for _ in range(1000))
    time.sleep(.5)
    return count
"""


def test_a_program_that_uses_up_the_threads_stops_no_other():
    """Under Landlock an ordinary user's threads count together: half of those allowed are left to others."""
    if os.geteuid() != 0 or os.uname().machine != "x86_64":
        absent("needs to be root, on x86_64")
    starts = {"source": STARTS_THREADS, "tests": ["assert 9 < f(1) < 100"]}
    session = {"isolation": "landlock", "limits": LIMITS, "marker": "x", "concurrency": 3}
    session["programs"] = {str(number): starts if number == 1 else GOOD for number in range(4)}
    user = 60999  # who has no other processes
    command = ["prlimit", "--nproc=200", interpreter_of(user), str(SESSION)]
    run = subprocess.run(
        command, input=json.dumps(session), capture_output=True, text=True, check=False, **as_user(user)
    )
    assert run.returncode == 0, run.stderr
    results = json.loads(run.stdout)["results"]
    assert [name for name, result in results.items() if not (result["passed"] and result["good after"])] == []


SLEEPS = "import time\ntime.sleep(1000)"


@pytest.mark.parametrize(
    "source", ["while True: pass", SLEEPS, f"{CTYPES}\nlibc.prctl(L(1), L(0), L(0), L(0), L(0))\n{SLEEPS}"]
)
def test_a_killed_harness_leaves_no_process(set_up, source):
    isolation, user = set_up
    marker = f"t3d-test-{uuid.uuid4().hex}"
    process, session = start(isolation, user, marker)
    session["limits"] = {"time_limit_s": 100.0}
    session["programs"] = {str(number): {"source": source, "tests": ["assert True"]} for number in range(2)}
    with process:  # closes its pipes
        process.stdin.write(json.dumps(session))
        process.stdin.close()
        deadline = time.monotonic() + 30
        while len(processes_of(marker)) < 2 + 1 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        if process.poll() is not None:
            absent(process.stdout.read())
        time.sleep(0.3)  # both programs are running, and the server of tests' processes
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while processes_of(marker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_of(marker) == []
