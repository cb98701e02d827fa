"""Whether a program passes its tests, which are assertions about its functions."""

from dataclasses import dataclass, replace

from t3d.sandbox.process import Outcome, Report
from t3d.sandbox.sandbox import Sandbox

_CPU_TIME_IS_UP = -24  # SIGXCPU
NUM_PREPARING_STAGES = 2
"""Of a run of function tests: the program and its setup come before the tests."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FunctionTests:
    """Statements that raise nothing if the program is right; the first that does ends the run.

    ``setup`` runs between program and tests, in the tests' process as they do: what they need beside the
    program, and must not come from the program's author. ``program_names``: names of Python's by which the
    tests mean the program's function.
    """

    tests: tuple[str, ...]
    setup: str = ""
    program_names: tuple[str, ...] = ()
    time_limit_s: float | None = None
    """Seconds for the program and for each test; None leaves it to the sandbox."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeResult:
    """How all tests of a program went."""

    tests: tuple[Report, ...]

    @property
    def passed(self) -> bool:
        """Whether there are tests and all are passed."""
        return bool(self.tests) and all(test.passed for test in self.tests)

    @property
    def first_failure(self) -> Report:
        """The first failed test; ``passed`` if there is none, ``not run`` if there are no tests."""
        failures = (test for test in self.tests if not test.passed)
        return next(failures, Report(reason="passed" if self.tests else "not run"))


def grade_program(sandbox: Sandbox, program: str, tests: FunctionTests) -> CodeResult:
    """Run all tests of a program. No tests are no success."""
    if not tests.tests:
        return CodeResult(tests=())
    outcome = sandbox.run_tests(
        program,
        tests.tests,
        setup=tests.setup,
        program_names=tests.program_names,
        time_limit_s=tests.time_limit_s,
    )
    return CodeResult(tests=_function_results(outcome, len(tests.tests)))


def _function_results(outcome: Outcome, num_tests: int) -> tuple[Report, ...]:
    for report in outcome.reports[:NUM_PREPARING_STAGES]:
        if not report.passed:
            # An assertion of the program's own is no test.
            reason = "error" if report.reason == "wrong" else report.reason
            return (replace(report, reason=reason),) * num_tests
    results = list(outcome.reports[NUM_PREPARING_STAGES:])
    if len(results) < num_tests and all(result.passed for result in results):
        results.append(_end_of(outcome))  # what was running at the end was this test, or the program
    results += [Report(reason="not run")] * (num_tests - len(results))
    return tuple(results)


def _end_of(outcome: Outcome) -> Report:
    """The result of the test during which the process ended."""
    assert outcome.end != "done" and outcome.end != "failed", "then every test that ran has a report"
    if outcome.end != "exit":
        return Report(reason=outcome.end)
    if outcome.exit_status == _CPU_TIME_IS_UP:
        return Report(reason="timeout", detail="CPU time")
    return Report(reason="exit", detail=f"status {outcome.exit_status}")
