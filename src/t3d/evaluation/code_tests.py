"""Whether a program passes its tests: assertions about functions, or input and expected output.

A response's program is its last ```` ```python ```` block, as in the released code.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, get_args

from t3d.errors import InputError
from t3d.evaluation.math_worker import usable_cores
from t3d.evaluation.sandbox import Sandbox
from t3d.evaluation.sandbox_process import Outcome, Report

Reason = Literal[
    "passed",
    "wrong",
    "error",
    "memory",
    "exit",
    "timeout",
    "no output",
    "output limit",
    "forged report",
    "not run",
]
"""Why a test counts as it does. ``wrong``: an assertion or the output; ``error``: another exception;
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
class StdioTests:
    """Texts to give to the program, and what it has to print for each, white space aside."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    time_limit_s: float | None = None
    """Seconds for each input; None leaves it to the sandbox."""

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.outputs):
            counts = f"{len(self.inputs)} inputs and {len(self.outputs)} outputs"
            raise InputError("outputs", len(self.outputs), counts, "give one output for every input")


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


def released_tests(row: Mapping[str, Any]) -> FunctionTests | StdioTests:
    """Tests of a row in the layout of T3D's and dLLM-RL's data, such as their PrimeIntellect file.

    Raises InputError for a row of another layout.
    """
    match row:
        case {"test_method": "function", "test_list": list(tests)}:
            return FunctionTests(tests=tuple(tests), time_limit_s=row.get("test_time_limit"))
        case {"test_method": "stdio", "test_input": list(inputs), "test_output": list(outputs)}:
            limit = row.get("test_time_limit")
            return StdioTests(inputs=tuple(inputs), outputs=tuple(outputs), time_limit_s=limit)
    fix = "give test_list for function, test_input and test_output for stdio"
    raise InputError(
        "test_method", row.get("test_method"), "not function or stdio, or its lists are missing", fix
    )


def extract_code(text: str) -> str | None:
    """Content of the last closed ```` ```python ```` block, or None."""
    blocks = _BLOCK.findall(text)
    return blocks[-1].strip() if blocks else None


def grade_program(sandbox: Sandbox, program: str, tests: FunctionTests | StdioTests) -> CodeResult:
    """Run all tests of a program. No tests are no success."""
    if isinstance(tests, StdioTests):
        return CodeResult(tests=tuple(_stdio_results(sandbox, program, tests)))
    if not tests.tests:
        return CodeResult(tests=())
    outcome = sandbox.run_tests(program, tests.tests, setup=tests.setup, time_limit_s=tests.time_limit_s)
    return CodeResult(tests=_function_results(outcome, len(tests.tests)))


def grade_programs(
    sandbox: Sandbox,
    programs: Sequence[tuple[str, FunctionTests | StdioTests]],
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


def _stdio_results(sandbox: Sandbox, program: str, tests: StdioTests) -> Iterator[CaseResult]:
    """One result per input; nothing more is run once the program had to be killed."""
    killed = False
    for stdin, expected in zip(tests.inputs, tests.outputs, strict=True):
        if killed:
            yield CaseResult(reason="not run")
            continue
        outcome = sandbox.run_script(program, stdin, time_limit_s=tests.time_limit_s)
        killed = outcome.end not in ("exit", "failed")
        yield _stdio_result(outcome, expected)


def _stdio_result(outcome: Outcome, expected: str) -> CaseResult:
    if outcome.reports:
        return _result_of(outcome.reports[0])
    if outcome.end != "exit" or outcome.exit_status != 0:
        return _end_of(outcome)
    printed = outcome.output.decode(errors="replace").split()
    if printed == expected.split():
        return CaseResult(reason="passed")
    return CaseResult(reason="wrong" if printed else "no output")


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
