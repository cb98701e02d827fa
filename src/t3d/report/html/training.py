"""The curves of a training, from the log that stands beside its student."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from t3d.errors import InputError
from t3d.report.html.content import Chart
from t3d.report.points import Bar, Line
from t3d.training.run import LOG_ENDING
from t3d.work.files import read_json

Log = Sequence[Mapping[str, Any]]
_MOST_POINTS = 150
"""Of a curve; of a longer one equally many are left out between any two."""
_MOST_STUDENTS = 8
_STEPS = "optimizer step"


def logs_in(folder: Path) -> dict[str, Log]:
    """By the name of its student every log of a run, the last round's at the end.

    Raises InputError for one that is damaged.
    """
    files = [*folder.glob(f"[!.]*{LOG_ENDING}"), *folder.glob(f"students/[!.]*{LOG_ENDING}")]
    names = {path.name.removesuffix(LOG_ENDING): path for path in sorted(files)}
    return {name: _read(names[name]) for name in sorted(names, key=lambda name: (name == "student", name))}


def _read(path: Path) -> Log:
    fix = "delete it: the report then has no curves of this student"
    damaged = InputError("run", str(path), "damaged: not a file with a JSON object in each line", fix)
    try:
        found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError, RecursionError) as error:
        raise damaged from error
    if not all(isinstance(entry, dict) for entry in found):
        raise damaged
    if not all(_is_number(entry["step"]) for entry in found if "step" in entry):
        raise InputError("run", str(path), "damaged: a step is no number", fix)
    return found


def _is_number(value: object) -> bool:
    is_real = isinstance(value, float) or type(value) is int
    return is_real and abs(value) < 1e300  # which neither nan nor an int that no float can hold is


def training_charts(log: Log) -> list[Chart]:
    """Losses, also by share of masks, scores, gradient norm and learning rate, as far as there are some."""
    parts = {name: name.removeprefix("loss/") for name in _names(log, lambda name: name.startswith("loss/"))}
    if "loss/total" not in parts and _names(log, lambda name: name == "loss"):
        parts["loss"] = "total"
    by_ratio = _named(log, "nll/mask_ratio_", "share of masks ")
    groups = [
        ("Loss", "loss", parts),
        ("Negative log-likelihood by share of masks", "nats per token", by_ratio),
        ("Scores on held-out problems", "score", _named(log, "eval_", "", ignored=("runtime", "per_second"))),
        ("Gradient norm", "norm", {"grad_norm": "gradient norm"}),
        ("Learning rate", "rate", {"learning_rate": "learning rate"}),
    ]
    charts = []
    for title, ylabel, names in groups:
        lines = [_line(log, name, said, is_subject=said in _STRONG) for name, said in names.items()]
        lines = [line for line in lines if line.points]
        if lines:
            charts.append(Chart(title=title, lines=lines, xlabel=_STEPS, ylabel=ylabel, is_small=True))
    return charts


_STRONG = ("total", "few step accuracy", "accepted per draft", "gradient norm", "learning rate")


def loss_chart(logs: Mapping[str, Log], folder: Path) -> list[Chart]:
    """The losses of many students together, of a few of them."""
    shown = dict(list(logs.items())[:_MOST_STUDENTS])
    lines = [_line(log, "loss", _student(name, folder)) for name, log in shown.items()]
    lines = [line for line in lines if line.points]
    title = "Loss" if len(logs) == len(shown) else f"Loss of {len(shown)} of {len(logs)} students"
    return [Chart(title=title, lines=lines, xlabel=_STEPS, ylabel="loss")] if lines else []


def _student(name: str, folder: Path) -> str:
    """Its method beside the hash that names it."""
    match read_json(folder / "students" / f"{name}.made.json"):
        case {"plan": {"method": str() as method}}:
            return f"{method} {name}"
    return name


def training_facts(log: Log) -> Iterator[tuple[str, str]]:
    """Steps, time and the last loss."""
    steps = [entry["step"] for entry in log if "step" in entry]
    if steps:
        yield "optimizer steps", str(max(steps))
    seconds = [entry["train_runtime"] for entry in log if _is_number(entry.get("train_runtime"))]
    if seconds:
        # The trainer's clock starts again when a killed run goes on.
        yield "seconds since the last start or resume", f"{sum(seconds):.0f}"
    losses = [entry["loss"] for entry in log if isinstance(entry.get("loss"), int | float)]
    if losses:
        yield "last loss", f"{losses[-1]:.4g}"


def _names(log: Log, is_wanted: Callable[[str], bool]) -> list[str]:
    return [name for name in dict.fromkeys(name for entry in log for name in entry) if is_wanted(name)]


def _named(log: Log, beginning: str, said: str, ignored: tuple[str, ...] = ()) -> dict[str, str]:
    def is_wanted(name: str) -> bool:
        return name.startswith(beginning) and not name.endswith(ignored or "\0")

    return {name: said + name.removeprefix(beginning).replace("_", " ") for name in _names(log, is_wanted)}


def _line(log: Log, name: str, said: str, *, is_subject: bool = False) -> Line:
    values = [
        (entry["step"], float(entry[name]))
        for entry in log
        if "step" in entry and _is_number(entry.get(name))
    ]
    thinned = values[:: math.ceil(len(values) / _MOST_POINTS) or 1]
    points = {
        f"step {step}": (float(step), Bar(value=value, low=value, high=value)) for step, value in thinned
    }
    return Line(name=said, points=points, is_subject=is_subject)
