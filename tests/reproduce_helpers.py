"""Synthetic cells: every row as an evaluation would report it, the right answers by a given rule."""

from collections.abc import Callable

from t3d.reproduce.recipes import CellSpec, Demand, cell_command
from t3d.reproduce.resolve import resolve_cell
from t3d.reproduce.suites import MINI, Suite

N = 512
SPEED = {"T1": 1.0, "T2": 2.0, "T4": 4.0, "T8": 8.0}

Rule = Callable[[CellSpec, str, str], int]
"""How many of N are right, from cell, setting and task."""


def record(cell: CellSpec, rule: Rule, suite: Suite = MINI) -> dict:
    rows = [
        {
            "setting": setting,
            "task": task,
            "num_correct": rule(cell, setting, task) * cell.samples_per_prompt,
            "n": N * cell.samples_per_prompt,
            "num_prompts": N,
            "distinct_answers_per_prompt": float(cell.samples_per_prompt),
            "tokens_per_forward": SPEED.get(setting[3:5], 3.0),
            "tokens_per_second": 100.0,
            "latency": 0.01,
            "mean_denoising_steps": 10.0,
            "mean_length": 30.0,
        }
        for setting in cell.settings
        for task in suite.tasks
    ]
    resolved = resolve_cell(suite, suite.full, cell)
    return {
        "config_hash": resolved.hash,
        "config": resolved.full,
        "command": cell_command(suite, cell, quick=False),
        "results": rows,
        "versions": {"t3d": "1"},
    }


def records(demand: Demand, rule: Rule, suite: Suite = MINI) -> dict:
    cells = demand.cells(5e-4)
    return {(cell.student.seed, cell.settings[0]): record(cell, rule, suite) for cell in cells}
