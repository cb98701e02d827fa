"""What the sandbox costs: graded programs per second beside bare interpreter starts, in one run.

    python benchmarks/grading.py

``bare``: ``python -I -S -c pass``, the least that starting this interpreter can cost. The others start,
isolate, run and judge a program of one function and one test each. Rounds alternate between the sides, and
``x bare``, the cost of a program in bare starts, compares rounds that follow each other: its median, and in
brackets its quartiles. The goal is a median of at most 3. On a busy machine look at the CPU time, this
process's included, which waiting for a core does not change; below bubblewrap the kernel counts only a part
of it. Prints a table in Markdown.
"""

import argparse
import os
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median, quantiles
from typing import get_args

from t3d.grading.code import FunctionTests, grade_program
from t3d.grading.math_worker import usable_cores
from t3d.sandbox.paths import interpreter
from t3d.sandbox.sandbox import Isolation, Sandbox, isolation_problem
from t3d.work.versions import versions

GOAL = 3.0
Cost = tuple[float, float]
"""Seconds of wall time and of CPU time."""
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
        with ThreadPoolExecutor(concurrency) as pool:
            results = list(pool.map(lambda _: grade_program(sandbox, PROGRAM, TESTS), range(count)))
        assert all(result.passed for result in results)

    return grade


def measure(sides: dict[str, Callable[[int, int], None]], args: argparse.Namespace) -> dict[str, list[Cost]]:
    """The cost of a program on every side in every round."""
    costs: dict[str, list[Cost]] = {name: [] for name in sides}
    for run in sides.values():
        run(5, 1)
    for _ in range(args.rounds):
        for name, run in sides.items():
            started, cpu_before = time.perf_counter(), sum(os.times()[:4])
            run(args.count, args.concurrency)
            wall, cpu = time.perf_counter() - started, sum(os.times()[:4]) - cpu_before
            costs[name].append((wall / args.count, cpu / args.count))
    return costs


def table(costs: dict[str, list[Cost]]) -> str:
    """Programs per second, and the cost in bare starts."""
    lines = [
        "| side | programs/s | wall ms | x bare | CPU ms | x bare | goal met |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, own in costs.items():
        wall, cpu = ([cost[kind] for cost in own] for kind in range(2))
        ratios = [
            quantiles([cost[kind] / bare[kind] for cost, bare in zip(own, costs["bare"], strict=True)], n=4)
            for kind in range(2)
        ]
        wall_ratio, cpu_ratio = (f"{middle:.2f} ({low:.2f} to {high:.2f})" for low, middle, high in ratios)
        goal_met = "yes" if ratios[0][1] <= GOAL else "no"
        cells = (name, f"{1 / median(wall):.1f}", f"{1000 * median(wall):.1f}", wall_ratio)
        lines.append(f"| {' | '.join(cells)} | {1000 * median(cpu):.1f} | {cpu_ratio} | {goal_met} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=20, help="programs per round")
    parser.add_argument("--rounds", type=int, default=25, help="2 or more")
    parser.add_argument("--concurrency", type=int, default=usable_cores(), help="programs at the same time")
    args = parser.parse_args()
    sides: dict[str, Callable[[int, int], None]] = {"bare": bare_starts}
    for isolation in get_args(Isolation):
        problem = None if isolation == "none" else isolation_problem(isolation)
        if problem is None:
            sides[isolation] = graded_programs(isolation)
        else:
            print(f"{isolation}: not measured, {problem}\n")
    print(table(measure(sides, args)))
    print(
        f"\n{args.rounds} rounds of {args.count} programs, {args.concurrency} at the same time; {versions()}"
    )


if __name__ == "__main__":
    main()
