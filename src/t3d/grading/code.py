"""Whether a program passes its tests, which are assertions about its functions.

A response's program is its last ```` ```python ```` block, as in the released code.
"""

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, get_args

from t3d.errors import InputError
from t3d.grading.math_worker import usable_cores
from t3d.sandbox.process import Outcome, Report
from t3d.sandbox.sandbox import Sandbox

Reason = Literal[
    "passed",
    "wrong",
    "error",
    "memory",
    "exit",
    "timeout",
    "output limit",
    "forged report",
    "not run",
]
"""Why a test counts as it does. ``wrong``: an assertion; ``error``: another exception;
``memory``: a MemoryError; ``exit``: the program ended before the test did; ``forged report``: it wrote to the
grader's socket; ``not run``: an earlier test failed, or there are no tests."""

_BLOCK = re.compile(r"```python(.*?)```", re.DOTALL)
_CPU_TIME_IS_UP = -24  # SIGXCPU
NUM_PREPARING_STAGES = 2
"""Of a run of function tests: the program and its setup come before the tests."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FunctionTests:
    """Statements that raise nothing if the program is right; the first that does ends the run.

    ``setup`` runs between program and tests.
    """

    tests: tuple[str, ...]
    setup: str = ""
    time_limit_s: float | None = None
    """Seconds for the program and for each test; None leaves it to the sandbox."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseResult:
    """How one test went; ``detail`` is the exception, or the exit status."""

    reason: Reason
    detail: str = ""

    @property
    def passed(self) -> bool:
        """Whether the test is passed."""
        return self.reason == "passed"


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeResult:
    """How all tests of a program went."""

    tests: tuple[CaseResult, ...]

    @property
    def passed(self) -> bool:
        """Whether there are tests and all are passed."""
        return bool(self.tests) and all(test.passed for test in self.tests)

    @property
    def first_failure(self) -> CaseResult:
        """The first failed test; ``passed`` if there is none, ``not run`` if there are no tests."""
        failures = (test for test in self.tests if not test.passed)
        return next(failures, CaseResult(reason="passed" if self.tests else "not run"))


def extract_code(text: str) -> str | None:
    """Content of the last closed ```` ```python ```` block, or None."""
    blocks = _BLOCK.findall(text)
    return blocks[-1].strip() if blocks else None


def grade_program(sandbox: Sandbox, program: str, tests: FunctionTests) -> CodeResult:
    """Run all tests of a program. No tests are no success."""
    if not tests.tests:
        return CodeResult(tests=())
    outcome = sandbox.run_tests(program, tests.tests, setup=tests.setup, time_limit_s=tests.time_limit_s)
    return CodeResult(tests=_function_results(outcome, len(tests.tests)))


def grade_programs(
    sandbox: Sandbox,
    programs: Sequence[tuple[str, FunctionTests]],
    *,
    concurrency: int | None = None,
) -> Iterator[CodeResult]:
    """Results of many programs, in order. ``concurrency``: programs at the same time; None is one a core."""
    if concurrency is not None and concurrency < 1:
        raise InputError("concurrency", concurrency, "not positive", "use 1 or more")
    with ThreadPoolExecutor(concurrency or usable_cores()) as pool:
        yield from pool.map(lambda item: grade_program(sandbox, *item), programs)


def _function_results(outcome: Outcome, num_tests: int) -> tuple[CaseResult, ...]:
    for report in outcome.reports[:NUM_PREPARING_STAGES]:
        if report.status != "ok":
            # An assertion of the program's own is no test.
            status = "error" if report.status == "wrong" else report.status
            return (_result_of(Report(status=status, detail=report.detail)),) * num_tests
    results = [_result_of(report) for report in outcome.reports[NUM_PREPARING_STAGES:]]
    if len(results) < num_tests and all(result.passed for result in results):
        results.append(_end_of(outcome))  # what was running at the end was this test, or the program
    results += [CaseResult(reason="not run")] * (num_tests - len(results))
    return tuple(results)


def _result_of(report: Report) -> CaseResult:
    if report.status == "ok":
        return CaseResult(reason="passed")
    reason = next(reason for reason in get_args(Reason) if reason == report.status)
    return CaseResult(reason=reason, detail=report.detail)


def _end_of(outcome: Outcome) -> CaseResult:
    """The result of the test during which the process ended."""
    assert outcome.end != "done" and outcome.end != "failed", "then every test that ran has a report"
    if outcome.end != "exit":
        return CaseResult(reason=outcome.end)
    if outcome.exit_status == _CPU_TIME_IS_UP:
        return CaseResult(reason="timeout", detail="CPU time")
    return CaseResult(reason="exit", detail=f"status {outcome.exit_status}")
