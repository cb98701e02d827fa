"""Workers that compare answers: late and dead ones are replaced, and nothing hangs or crashes."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import closing

import pytest

from t3d.errors import InputError
from t3d.grading.math import MathGrader
from t3d.grading.math_worker import MathWorker

ENDLESS = "9^{9^{9^{9^{9}}}}"
NUM_MALFORMED = 200


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def worker():
    worker = MathWorker("math_verify", time_limit_s=1.0)
    yield worker
    worker.close()


@pytest.mark.other_process
def test_a_late_worker_is_killed_and_its_replacement_grades_the_next_answer(worker):
    assert worker.compare("3", "3") == "equal"
    first = worker.pid
    assert worker.compare(ENDLESS, "3") == "time limit"
    assert not is_alive(first)
    assert worker.compare("4", "3") == "different"
    assert worker.pid != first


@pytest.mark.other_process
def test_a_worker_that_is_killed_is_replaced(worker):
    worker.compare("3", "3")
    first = worker.pid
    os.kill(first, signal.SIGKILL)
    verdicts = [worker.compare("3", "3"), worker.compare("3", "3")]
    assert verdicts[0] in ("equal", "worker died") and verdicts[1] == "equal"
    assert worker.pid != first and not is_alive(first)


@pytest.mark.other_process
def test_a_worker_that_dies_while_it_compares_is_counted_and_replaced():
    worker = MathWorker("math_verify", time_limit_s=30.0)
    try:
        worker.compare("3", "3")
        threading.Timer(0.5, os.kill, [worker.pid, signal.SIGKILL]).start()
        assert worker.compare(ENDLESS, "3") == "worker died"
        assert worker.compare("3", "3") == "equal"
    finally:
        worker.close()


@pytest.mark.other_process
def test_an_interrupted_comparison_leaves_no_reply_behind(worker, monkeypatch):
    worker.compare("3", "3")

    def interrupted(process, seconds):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(worker, "_read_line", interrupted)
        with pytest.raises(KeyboardInterrupt):
            worker.compare("3", "3")
    assert worker.compare("4", "3") == "different"


@pytest.mark.other_process
def test_closed_workers_are_gone_and_start_again_when_needed():
    with closing(MathGrader(num_workers=2)) as grader:
        assert [worker.pid for worker in grader.workers] == [None, None]  # nothing starts before its time
        assert grader.grade("\\boxed{1}", "1").correct
        pids = [worker.pid for worker in grader.workers if worker.pid is not None]
        assert len(pids) == 1
    assert not any(map(is_alive, pids))
    assert grader.grade("\\boxed{1}", "1").correct
    grader.close()
    grader.close()


def test_a_worker_that_is_forgotten_ends(worker):
    forgotten = MathWorker("math_verify", time_limit_s=1.0)
    forgotten.compare("1", "1")
    pid = forgotten.pid
    del forgotten
    assert not is_alive(pid)


def test_threads_share_a_bounded_number_of_workers():
    with closing(MathGrader(num_workers=2)) as grader:
        results = {}

        def compare(number):
            results[number] = grader.grade(f"\\boxed{{{number % 3}}}", "0").reason

        threads = [threading.Thread(target=compare, args=[number]) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == {number: "different" if number % 3 else "equal" for number in range(12)}
        assert sum(worker.pid is not None for worker in grader.workers) <= 2


def test_workers_need_no_main_module_and_end_with_their_parent(tmp_path):
    """Under ``python -c``, where multiprocessing could not import the parent's main module."""
    script = (
        "from t3d.grading.math import MathGrader\n"
        "grader = MathGrader(num_workers=1)\n"
        "print(grader.grade(r'\\boxed{2}', '2').reason, grader.workers[0].pid)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    verdict, pid = result.stdout.split()
    assert verdict == "equal" and result.stderr == ""
    assert not is_alive(int(pid))


def test_a_killed_parent_leaves_no_worker_behind():
    script = (
        "import os, signal\n"
        "from t3d.grading.math import MathGrader\n"
        "grader = MathGrader(num_workers=1)\n"
        "grader.grade(r'\\boxed{2}', '2')\n"
        "print(grader.workers[0].pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    pid, deadline = int(result.stdout), time.monotonic() + 20
    while is_alive(pid) and not is_zombie(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(pid) or is_zombie(pid)


def is_zombie(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize("settings", [{"time_limit_s": 0.0}, {"num_workers": 0}])
def test_senseless_settings_are_refused(settings):
    with pytest.raises(InputError, match=r"not positive|not a number above 0"):
        MathGrader(**settings)


def malformed_answers():
    """200 answers that a model might write on a bad day, or that break parsers; the same on every run."""
    rng = random.Random(20260212)
    text = r"""
        \frac \sqrt { } ^ _ \left( \right) [ ] 9 ^{9^{9 \text{ x \boxed{ = , \\ $ % \ & \begin{pmatrix}
        \end{pmatrix} \sum_{n=1}^{\infty} \int \infty ! !!!! 10^{10^{10}} ∞ ½ é ١٢
    """
    pieces = [*text.split(), "\u202e", "\ud800", "\x00", "\n"]
    chosen = [
        *(ENDLESS, "9^9^9^9", "9**9**9**9", "2^{2^{2^{2^{2^{2}}}}}", "1000000!!!", "(10^{9})!", "0^{-1}"),
        *(
            r"\frac{1}{0}",
            "1=2=3=4<5>6",
            "\ud800\udfff",
            "\x00\x01",
            "١٢٣",
            "∞ - ∞",
            "e^{e^{e^{e^{79}}}}",
            "",
        ),
        *(r"\binom{10^9}{5*10^8}", r"\sum_{n=1}^{10^{12}} \frac{1}{n}", r"\prod_{n=1}^{10^9} n"),
        *(r"\int_0^1 x^{x^{x^x}} dx", r"\begin{pmatrix}1&2\\3", r"\frac{1}{" * 200, "1" + "0" * 1900),
        *(r"\boxed{" * 50 + "1" + "}" * 50, "{" * 1000 + "}" * 1000, "(" * 900 + "1" + ")" * 900),
        *(r"\sqrt{" * 100 + "2" + "}" * 100, "x^{" * 60 + "2" + "}" * 60),
        *("1" * 10**6, "x+" * 500_000, r"\boxed{" * 140_000, "}" * 10**6, "{" * 10**6, "é" * 10**6),
    ]
    while len(chosen) < NUM_MALFORMED:
        chosen.append("".join(rng.choices(pieces, k=rng.randint(1, 25))))
    return chosen


@pytest.mark.many_inputs
@pytest.mark.parametrize("every", [50, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("grader_name", ["math_verify", pytest.param("legacy", marks=pytest.mark.slow)])
def test_no_answer_crashes_or_hangs_the_grader(grader_name, every):
    """Each in its box, so that braces that do not match reach the extraction, and bare, past it.

    Of every one that is late, a worker ends and another starts: one in 50 takes seconds, all a minute.
    """
    with closing(MathGrader(grader_name, time_limit_s=0.5, num_workers=1)) as grader:
        grader.grade("\\boxed{1}", "1")  # started
        answers = malformed_answers()[::every]
        assert len(answers) == NUM_MALFORMED // every
        num_bare_timeouts, reasons = 0, Counter()
        for answer in answers:
            started = time.monotonic()
            verdict = grader.grade(f"So the answer is \\boxed{{{answer}}}.", "18")
            assert not verdict.correct
            reasons[verdict.reason] += 1
            if verdict.reason == "no answer":
                num_bare_timeouts += grader._compare(answer, "18") == "time limit"
            assert time.monotonic() - started < 30.0, answer[:80]  # a new worker imports for seconds
        assert reasons["time limit"] > 0
        print(grader_name, reasons, num_bare_timeouts)
        assert grader.grade("\\boxed{18}", "18").correct
