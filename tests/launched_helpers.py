"""Trainings of several processes by the real command, and whether they are those of one."""

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from t3d.training.reference import REFERENCE_FILE
from t3d.trajectory import Trajectory, write_trajectories

STEPS = [
    *("--num-optimizer-steps", "5"),
    *("--warmup-steps", "2"),
    *("--learning-rate", "1e-3"),
    *("--refresh-every", "2"),
]
TWO = ["--num-processes", "2"]
EVERY_STEP = ["--override", "logging_steps=1"]


def training_command(checkpoint: Path, trajectories: Sequence[Trajectory], folder: Path) -> list[str]:
    """Five steps on the CPU; the output is to be added."""
    file = folder / "r.parquet"
    write_trajectories(file, trajectories)
    command = ["train", "--model", str(checkpoint), "--trajectories", str(file), "--device", "cpu", *STEPS]
    return [*command, "--batch-size", "4", "--save-every", "5", "--output"]


def started(command: Sequence[str]) -> str:
    """The output of a command in a process of its own, which says once where the student is."""
    line = [sys.executable, "-m", "t3d", *command]
    done = subprocess.run(line, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("student in ") == 1
    return done.stdout + done.stderr


def entries(run: Path) -> list[dict[str, Any]]:
    """What every optimizer step logged."""
    state = json.loads((run / "checkpoints" / "checkpoint-5" / "trainer_state.json").read_text())
    return [row for row in state["log_history"] if "loss" in row]


def assert_trained_alike(run: Path, expected: Path, checkpoint: Path) -> None:
    """Losses of every step, learning rates, the student and its reference, refreshed twice; 1e-4 relative."""
    names = ("loss", "loss/ddo_real", "loss/ddo_fake", "loss/path", "learning_rate")
    rows, rows_of_two = (
        torch.tensor([[row[name] for name in names] for row in entries(folder)]) for folder in (expected, run)
    )
    assert len(rows) == 5 and len(set(rows[:, -1].tolist())) > 2, "a curve"
    torch.testing.assert_close(rows_of_two, rows, rtol=1e-4, atol=0)
    student = _student(expected)
    assert _norm(student, load_file(checkpoint / "model.safetensors")) > 1e-3, "it has learnt"
    _assert_close(_student(run), student)
    reference, reference_of_two = (
        load_file(folder / "checkpoints" / "checkpoint-5" / REFERENCE_FILE) for folder in (expected, run)
    )
    for name in reference.keys() & student.keys():
        assert not torch.equal(reference[name], student[name]), "it is of an earlier step"
    _assert_close(reference_of_two, reference)


def assert_evaluated_while_trained(command: Sequence[str], folder: Path, shared: Sequence[str]) -> None:
    """A best reference is scored before the first step; bfloat16 leaves the log-probabilities float32."""
    problems = folder / "p.jsonl"
    problems.write_text('{"question": "1+1?", "answer": "2"}\n')
    flags = ["--eval-every", "2", "--eval-tasks", str(problems), "--eval-max-new-tokens", "8"]
    flags += ["--eval-grader", "exact", "--reference-choice", "best", "--dtype", "bfloat16"]
    started([*command, str(folder / "run"), *shared, *flags, *EVERY_STEP])
    first, *_ = entries(folder / "run")
    assert abs(first["loss/ddo_real"] - math.log(2)) < 1e-6


def _student(run: Path) -> dict[str, Tensor]:
    return load_file(run / "student" / "model.safetensors")


def _assert_close(own: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert _norm(own, other) < 1e-4 * _norm(other, {name: torch.zeros_like(own[name]) for name in other})


def _norm(of: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Of the difference of all weights."""
    assert of.keys() == other.keys()
    return sum((of[name] - other[name]).double().square().sum() for name in of).sqrt().item()
