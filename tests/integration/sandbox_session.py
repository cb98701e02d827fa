"""Grades programs from standard input; run as a process of its own, as root or as an ordinary user.

Imports the sandbox without the rest of the package, so that any interpreter that the user may run will do.
Input: JSON with ``isolation``, ``limits``, ``marker`` (put into every tested process's command line),
``concurrency`` and ``programs``: by name source, tests and, where they are others, limits.
Output: JSON with the results.
"""

import importlib
import json
import sys
import time
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[2] / "src" / "t3d"


def main() -> None:
    """Serve one session."""
    package = types.ModuleType("t3d")
    package.__path__ = [str(SOURCES)]
    sys.modules["t3d"] = package
    errors, sandbox, code_tests = (
        importlib.import_module(f"t3d.{name}") for name in ("errors", "sandbox.sandbox", "grading.code")
    )
    session = json.load(sys.stdin)
    *flags, boot = sandbox.INTERPRETER_FLAGS
    sandbox.INTERPRETER_FLAGS = (*flags, f"# {session['marker']}\n{boot}")
    own_limits = {
        name: session["limits"] | program.get("limits", {}) for name, program in session["programs"].items()
    }
    try:
        sandboxes = {
            name: sandbox.Sandbox(isolation=session["isolation"], limits=sandbox.Limits(**limits))
            for name, limits in own_limits.items()
        }
    except errors.InputError as error:
        json.dump({"refused": error.problem}, sys.stdout)
        return

    good = code_tests.FunctionTests(tests=("assert f(1) == 2",))

    def grade(walls: sandbox.Sandbox, program: dict) -> dict:
        started = time.monotonic()
        tests = code_tests.FunctionTests(tests=tuple(program["tests"]))
        result = code_tests.grade_program(walls, program["source"], tests)
        after = code_tests.grade_program(walls, "def f(x):\n    return x + 1", good)
        cases = [{"reason": case.reason, "detail": case.detail} for case in result.tests]
        seconds = time.monotonic() - started
        return {"passed": result.passed, "cases": cases, "good after": after.passed, "seconds": seconds}

    with ThreadPoolExecutor(session["concurrency"]) as pool:
        graded = pool.map(grade, sandboxes.values(), session["programs"].values())
        results = dict(zip(session["programs"], graded, strict=True))
    json.dump({"results": results}, sys.stdout)


if __name__ == "__main__":
    main()
