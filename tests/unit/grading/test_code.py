"""Programs and their tests: what counts as passed, and why not."""

import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from setup_helpers import absent

from t3d.errors import InputError
from t3d.grading.code import (
    CodeResult,
    FunctionTests,
    _end_of,
    grade_program,
)
from t3d.sandbox.process import Outcome, Report
from t3d.sandbox.sandbox import Limits, Sandbox


@pytest.fixture(scope="module")
def walls():
    if sys.platform != "linux":
        pytest.skip("needs Linux")
    try:
        return Sandbox(limits=Limits(time_limit_s=5.0))
    except InputError as error:
        absent(error.problem)


@pytest.mark.parametrize(
    ("program", "test", "reason", "detail"),
    [
        ("def f(): return 1", "assert f() == 1", "passed", ""),
        ("def f(): return 2", "assert f() == 1", "wrong", "AssertionError"),
        ("def f(): return 2", "assert f() == 1, 'two'", "wrong", "AssertionError: two"),
        ("def f(): return 2", "", "passed", ""),
        ("def g(): return 1", "assert f() == 1", "error", "NameError: name 'f' is not defined"),
        ("def f(: return 1", "assert f() == 1", "error", "SyntaxError"),
        ("assert 1 == 2", "assert True", "error", "AssertionError"),
        ("raise KeyboardInterrupt", "assert True", "error", "KeyboardInterrupt"),
        ("class E(BaseException): pass\ndef f(): raise E('\u00e9\\n\\x1b2')", "f()", "error", "E: \\xe9  2"),
        ("def f(): raise type('E 0, passed 9', (ValueError,), {})('2')", "f()", "error", "ValueError: 2"),
        (
            "class E(Exception):\n    def __str__(self): raise SystemExit\ndef f(): raise E",
            "f()",
            "error",
            "E",
        ),
        ("def f(): raise SystemExit", "assert f() == 1", "exit", "SystemExit"),
        ("exit()", "assert True", "exit", "SystemExit"),
        ("import os; os._exit(0)", "assert True", "exit", "status 0"),
        ("import os; os._exit(7)", "assert True", "exit", "status 7"),
        ("def f(): return bytearray(2**31)", "assert f()", "memory", "MemoryError"),
        ("def f(n): return f(n + 1)", "f(0)", "error", "RecursionError"),
        ("import os\nwhile True: os.write(1, b'x' * 2**20)", "assert True", "output limit", ""),
        (
            "import os\nfor fd in range(3, 99):\n    try: os.write(fd, b'4\\n')\n    except OSError: pass",
            "assert True",
            "suspicious",
            "",
        ),
    ],
)
def test_a_failure_has_its_reason(walls, program, test, reason, detail):
    (case,) = grade_program(walls, program, FunctionTests(tests=(test,))).tests
    assert case.reason == reason
    assert case.detail.startswith(detail)
    assert case.passed == (reason == "passed")


def test_main_blocks_and_input_do_not_disturb_function_tests(walls):
    program = "def f(): return 1\nif __name__ == '__main__':\n    while True: input()"
    assert grade_program(walls, program, FunctionTests(tests=("assert f() == 1",))).passed
    (case,) = grade_program(walls, "x = input()", FunctionTests(tests=("assert True",))).tests
    assert case.detail.startswith("EOFError")


def test_no_tests_are_no_success(walls):
    result = grade_program(walls, "x = 1", FunctionTests(tests=()))
    assert not result.passed and result.first_failure.reason == "not run"


def test_the_first_test_that_fails_is_the_last_that_runs(walls):
    tests = FunctionTests(tests=("assert f(1) == 1", "assert f(2) == 1", "assert f(3) == 3"))
    result = grade_program(walls, "def f(x): return x", tests)
    assert [case.reason for case in result.tests] == ["passed", "wrong", "not run"]
    assert not result.passed and result.first_failure.reason == "wrong"


def test_tests_after_the_end_are_not_run(walls):
    tests = FunctionTests(tests=("assert True", "f()", "assert True"), time_limit_s=0.3)
    for program, reason in (
        ("def f():\n    while True: pass", "timeout"),
        ("from os import abort as f", "exit"),
    ):
        result = grade_program(walls, program, tests)
        assert [case.reason for case in result.tests] == ["passed", reason, "not run"]


def test_used_up_cpu_time_is_a_timeout():
    outcome = Outcome(reports=(), end="exit", exit_status=-24)
    assert _end_of(outcome) == Report(reason="timeout", detail="CPU time")


def test_threads_share_a_sandbox(walls):
    """Programs run at the same time, and each gets its own result."""

    def grade(number):
        tests = FunctionTests(tests=(f"assert x % 3 == {number % 2}",))
        return grade_program(walls, f"import time; time.sleep(0.5)\nx = {number}", tests).passed

    started = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(grade, range(8)))
    assert results == [number % 3 == number % 2 for number in range(8)]
    assert time.monotonic() - started < 3.0


def test_a_result_is_passed_only_with_all_tests():
    passed, wrong = Report(reason="passed"), Report(reason="wrong")
    assert CodeResult(tests=(passed, passed)).passed
    assert not CodeResult(tests=(passed, wrong)).passed
    assert CodeResult(tests=(passed,)).first_failure == passed
