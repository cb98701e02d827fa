"""What the sandbox costs: graded programs per second beside bare interpreter starts, in one run.

    python benchmarks/grading.py --json | tail -n 1 > docs/results/grading.json

``bare``: ``python -I -S -c pass``, the least that starting this interpreter can cost. The others start,
isolate, run and judge a program of one function and one test each. Rounds alternate between the sides.
``times_bare`` is the cost of a program in bare starts; the goal is at most 3.
"""

import argparse
import json
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any, get_args

from t3d.evaluation.code_tests import FunctionTests, grade_programs
from t3d.evaluation.math_worker import usable_cores
from t3d.evaluation.sandbox import Isolation, Sandbox, isolation_problem
from t3d.evaluation.sandbox_paths import interpreter
from t3d.versions import versions

GOAL = 3.0
PROGRAM = "def add(a, b):\n    return a + b"
TESTS = FunctionTests(tests=("assert add(1, 2) == 3",))


def bare_starts(count: int, concurrency: int) -> None:
    """Start the interpreter this often."""
    command = [interpreter(), "-I", "-S", "-c", "pass"]

    def start(_: int) -> None:
        subprocess.run(command, stdin=subprocess.DEVNULL, env={}, check=True)

    with ThreadPoolExecutor(concurrency) as pool:
        list(pool.map(start, range(count)))


def graded_programs(isolation: Isolation) -> Callable[[int, int], None]:
    """A function that grades the program as often as it is asked to."""
    sandbox = Sandbox(isolation=isolation, unsafe_no_sandbox=True)

    def grade(count: int, concurrency: int) -> None:
        results = list(grade_programs(sandbox, [(PROGRAM, TESTS)] * count, concurrency=concurrency))
        assert all(result.passed for result in results)

    return grade


def measure(sides: dict[str, Callable[[int, int], None]], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Median programs per second of every side, and its cost in bare starts."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for run in sides.values():
        run(5, 1)
    for _ in range(args.rounds):
        for name, run in sides.items():
            started = time.perf_counter()
            run(args.count, args.concurrency)
            seconds[name].append((time.perf_counter() - started) / args.count)
    ratios = {
        name: median(own / bare for own, bare in zip(times, seconds["bare"], strict=True))
        for name, times in seconds.items()
    }
    return [
        {
            "side": name,
            "programs_per_second": 1 / median(times),
            "milliseconds": 1000 * median(times),
            "times_bare": ratios[name],
            "goal_met": ratios[name] <= GOAL,
        }
        for name, times in seconds.items()
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=100, help="programs per round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--concurrency", type=int, default=usable_cores(), help="programs at the same time")
    parser.add_argument("--json", action="store_true", help="print one line of JSON at the end")
    args = parser.parse_args()
    sides: dict[str, Callable[[int, int], None]] = {"bare": bare_starts}
    for isolation in get_args(Isolation):
        problem = None if isolation == "none" else isolation_problem(isolation)
        if problem is None:
            sides[isolation] = graded_programs(isolation)
        else:
            print(f"{isolation}: not measured, {problem}")
    rows = measure(sides, args)
    print(f"{'side':12} {'programs/s':>11} {'ms':>7} {'x bare':>7}")
    for row in rows:
        print(
            f"{row['side']:12} {row['programs_per_second']:11.1f} {row['milliseconds']:7.1f} "
            f"{row['times_bare']:7.2f}"
        )
    if args.json:
        settings = {"count": args.count, "rounds": args.rounds, "concurrency": args.concurrency}
        print(json.dumps({"rows": rows, **settings, "goal": GOAL, "versions": versions()}))


if __name__ == "__main__":
    main()
