"""Parts of the GPU check: each runs in a process of its own under a time budget, and is kept once it ends.

A part is a function that is given a :class:`Machine` and returns its cases, each of which gives a row. A row
with ``ok`` False fails the part, with its ``why``; an error does too. The process is forked before any device
is touched: what a part breaks (a CUDA context, memory) is gone with it, and imports are done once.
"""

import importlib
import importlib.util
import json
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import torch

from t3d.work.files import read_json, write_text

Row = dict[str, Any]
Case = Callable[[], Row]
StartMethod = Literal["fork", "spawn"]
PASSED, FAILED, NOT_RUN = "passed", "failed", "not run"
RECORD_FILE, LOG_FILE = "gpu_check.json", "gpu_check.log"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where a part runs, and how much it does."""

    device: str
    """``cuda`` or ``cpu``."""
    is_tiny: bool = False

    @property
    def on_cuda(self) -> bool:
        """Whether there are graphs, streams and FlexAttention's backward."""
        return self.device == "cuda"


@dataclass(frozen=True, kw_only=True)
class Part:
    """One claim."""

    name: str
    claim: str
    function: str
    """``module.function`` beside this file."""
    seconds: float
    """Its budget."""
    needs: tuple[str, ...] = ()
    """Packages that no import names, as they are asked for later."""
    needs_cuda: bool = False
    num_devices: int = 1
    """GPUs, where PyTorch is built for any; it then takes no CPU in their place."""
    by_default: bool = True
    """Whether it runs without being named."""

    def load(self) -> Callable[[Machine], Sequence[Case]]:
        """Its function. Raises ModuleNotFoundError for a package that is not there."""
        module, _, name = self.function.partition(".")
        return getattr(importlib.import_module(module), name)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a part ended."""

    status: str
    reason: str = ""
    """Why it failed or was not run, or what was left out; one line."""
    seconds: float = 0.0
    rows: tuple[Row, ...] = ()

    @property
    def line(self) -> str:
        """Status, rows and reason."""
        text = f"{self.status} ({len(self.rows)} rows)" if self.rows else self.status
        return f"{text}: {self.reason}" if self.reason else text


def run_here(
    part: Part, machine: Machine, seconds: float, keep: Callable[[Row], None] | None = None
) -> Outcome:
    """Run a part in this process; ``keep`` is given every row as soon as it is there.

    No case is begun that does not fit into ``seconds`` if it takes as long as the longest before it.
    """
    rows: list[Row] = []
    started = time.monotonic()

    def take(row: Row) -> None:
        rows.append(row)
        if keep is not None:
            keep(row)

    try:
        status, reason = _run(part, machine, seconds, take)
    except Exception as error:  # whatever a part raises is what it found; the others still run
        traceback.print_exc()
        status, reason = FAILED, one_line(error)
    return Outcome(status=status, reason=reason, seconds=time.monotonic() - started, rows=tuple(rows))


def _run(part: Part, machine: Machine, seconds: float, keep: Callable[[Row], Any]) -> tuple[str, str]:
    started = time.monotonic()
    if part.needs_cuda and not machine.on_cuda:
        return NOT_RUN, "needs CUDA"
    if part.num_devices > 1 and torch.accelerator.current_accelerator() is not None:
        count = torch.accelerator.device_count()
        if count < part.num_devices:
            return NOT_RUN, f"needs {part.num_devices} GPUs, of which there are {count}"
    absent = [name for name in part.needs if importlib.util.find_spec(name) is None]
    if absent:
        return NOT_RUN, f"needs {', '.join(absent)}"
    try:
        function = part.load()
    except ModuleNotFoundError as error:
        if error.name is None or _is_ours(error.name):
            raise
        return NOT_RUN, f"needs {error.name.partition('.')[0]}"
    cases = function(machine)
    longest, failure = 0.0, None
    for number, case in enumerate(cases):
        if number and time.monotonic() - started + longest > seconds:
            left_out = f"{number} of {len(cases)} cases fitted into {seconds:g} s"
            return (PASSED, left_out) if failure is None else (FAILED, failure)
        before = time.monotonic()
        row = case()
        longest = max(longest, time.monotonic() - before)
        keep(row)
        if row.get("ok") is False and failure is None:
            failure = row.get("why", "a row is not ok")
    return (PASSED, "") if failure is None else (FAILED, failure)


def _is_ours(module: str) -> bool:
    """Whether its absence is a fault of this repository."""
    return module.partition(".")[0] == "t3d" or (Path(__file__).parent / f"{module}.py").exists()


def one_line(error: BaseException) -> str:
    """Type and first line of an error."""
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def run_apart(
    part: Part, machine: Machine, seconds: float, log: Path, method: StartMethod = "fork"
) -> Outcome:
    """:func:`run_here` in a process of its own, whose output is added to ``log``.

    At the end of the budget the process is killed: the part has failed, and its rows are kept.
    """
    context = get_context(method)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(part, machine, seconds, log, sender))
    started, rows, outcome = time.monotonic(), [], None
    process.start()
    sender.close()
    while outcome is None:
        left = started + seconds - time.monotonic()
        if not receiver.poll(max(0.0, left)):
            outcome = Outcome(status=FAILED, reason=f"killed after {seconds:g} s")
            break
        try:
            message = receiver.recv()
        except EOFError:
            process.join()
            outcome = Outcome(status=FAILED, reason=f"its process died ({process.exitcode})")
            break
        if isinstance(message, Outcome):
            outcome = message
        else:
            rows.append(message)
    process.kill()
    process.join()
    return replace(outcome, seconds=time.monotonic() - started, rows=tuple(rows))


def _child(part: Part, machine: Machine, seconds: float, log: Path, sender: Connection) -> None:
    signal.alarm(int(seconds) + 5)  # if nobody is left to kill it
    # Of small models: more threads wait for each other longer than they compute.
    torch.set_num_threads(1 if machine.is_tiny else min(4, torch.get_num_threads()))
    with log.open("a", encoding="utf-8", buffering=1) as stream:
        sys.stdout = sys.stderr = stream
        print(f"== {part.name}")
        sender.send(run_here(part, machine, seconds, sender.send))


def preload(parts: Sequence[Part]) -> None:
    """Import what these parts need, for all processes that are forked later."""
    for part in parts:
        with suppress(ImportError):  # the part itself reports it
            part.load()


class Record:
    """What was found, by part, in one JSON file that is written anew after each."""

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self.path, self.about = folder / RECORD_FILE, dict(about)
        found = read_json(self.path) or {}
        self.outcomes = {
            name: Outcome(**{**fields, "rows": tuple(fields["rows"])})
            for name, fields in found.get("parts", {}).items()
        }

    def is_finished(self, part: Part) -> bool:
        """Whether it was run, and did not fail."""
        return part.name in self.outcomes and self.outcomes[part.name].status == PASSED

    def add(self, part: Part, outcome: Outcome) -> None:
        """Keep how a part ended."""
        self.outcomes[part.name] = outcome
        write_text(self.path, json.dumps(self.as_json(), indent=1) + "\n")

    def as_json(self) -> dict[str, Any]:
        """What the file holds."""
        return {
            "about": self.about,
            "parts": {name: asdict(outcome) for name, outcome in self.outcomes.items()},
        }
