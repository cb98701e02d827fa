"""How far long work is: the bar of what runs, and the lines of numbered stages."""

import io
import math
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType

from rich import progress as rich_progress
from rich.console import Console

from t3d.errors import InputError
from t3d.work.kept import Product

SECONDS_BETWEEN_LINES = 30.0
"""Least, of work whose bar no terminal shows."""

_stage: ContextVar[str | None] = ContextVar("stage", default=None)
_is_silent: ContextVar[bool] = ContextVar("is_silent", default=False)


def running_stage() -> str | None:
    """``[3/6] distil round 1`` inside of :meth:`Stages.running`, which says itself what is done; or None."""
    return _stage.get()


class Progress:
    """A bar with rate and remaining time on standard error; without a terminal a line now and then.

    In a stage (:class:`Stages`) it has the stage's name and goes with it: a line says what it took; in one
    that is silent it is not shown. An InputError stands alone: the bar goes before it.
    """

    def __init__(self, label: str, total: int) -> None:
        console = Console(file=sys.stderr)
        label = running_stage() or label
        self._is_shown = not _is_silent.get()
        self._bar = _Bar(console, label, total) if console.is_terminal else _Lines(label, total)

    def __enter__(self) -> "Progress":
        if self._is_shown:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._is_shown:
            self._bar.stop(is_left=running_stage() is None and not isinstance(error, InputError))

    def advance(self, count: int = 1) -> None:
        """Count finished items."""
        if self._is_shown:
            self._bar.advance(count)

    def skip(self, count: int) -> None:
        """Count items that were finished before, which tell no pace."""
        if self._is_shown:
            self._bar.skip(count)


class _Bar:
    """On a terminal."""

    def __init__(self, console: Console, label: str, total: int) -> None:
        self._bar = rich_progress.Progress(
            rich_progress.TextColumn("{task.description}", markup=False),
            rich_progress.BarColumn(),
            rich_progress.MofNCompleteColumn(),
            rich_progress.TimeElapsedColumn(),
            rich_progress.TextColumn("ETA"),
            rich_progress.TimeRemainingColumn(),
            console=console,
        )
        self._task = self._bar.add_task(label, total=total)

    def start(self) -> None:
        """Show it."""
        self._bar.start()

    def stop(self, *, is_left: bool) -> None:
        """Leave it as it is, or erase it."""
        self._bar.live.transient = not is_left
        self._bar.stop()

    def advance(self, count: int) -> None:
        """Move it on."""
        self._bar.advance(self._task, count)

    skip = advance


class _Lines:
    """Without a terminal: at most one in :data:`SECONDS_BETWEEN_LINES`, and one at the end."""

    def __init__(self, label: str, total: int) -> None:
        self._label, self._total = label, total
        self._count = self._num_new = 0
        self._started = self._written = time.perf_counter()

    def start(self) -> None:
        """Nothing yet."""

    def stop(self, *, is_left: bool) -> None:
        """Say how far it came."""
        if is_left:
            self._write()

    def advance(self, count: int) -> None:
        """Say how far it is, if that is due."""
        self._num_new += count
        self.skip(count)

    def skip(self, count: int) -> None:
        """The same, of what took no time."""
        self._count += count
        if time.perf_counter() - self._written >= SECONDS_BETWEEN_LINES and self._count < self._total:
            self._write()

    def _write(self) -> None:
        self._written = time.perf_counter()
        seconds = self._written - self._started
        text = f"{self._label}: {self._count}/{self._total}, {duration(seconds)}"
        if self._num_new and self._count < self._total:
            text += f"; about {duration(seconds / self._num_new * (self._total - self._count))} left"
        print(text, file=sys.stderr, flush=True)


def numbered(number: int, count: int, text: str) -> str:
    """``[3/6] distil round 1``."""
    return f"[{number}/{count}] {text}"


def duration(seconds: float) -> str:
    """``1 h 20 min`` or ``3 min`` or ``40 s``; ``unknown`` for nan."""
    if math.isnan(seconds):
        return "unknown"
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of long work, and what it typically takes."""

    name: str
    kind: str
    """What it does: stages of a kind are as much faster or slower than typical as each other."""
    typical_seconds: float


def seconds_left(stages: Sequence[Stage], took: Mapping[str, float]) -> float:
    """Estimate for the stages that are not in ``took``, the seconds of finished ones by name.

    A stage takes its typical seconds times the pace of the finished ones of its kind or, while there is none,
    of all finished ones. A stage that is finished without a measurement (nan) tells no pace.
    """
    measured = [stage for stage in stages if not math.isnan(took.get(stage.name, math.nan))]

    def pace(kind: str) -> float:
        known = [stage for stage in measured if stage.kind == kind] or measured
        typical = sum(stage.typical_seconds for stage in known)
        return sum(took[stage.name] for stage in known) / typical if typical else 1.0

    return sum(stage.typical_seconds * pace(stage.kind) for stage in stages if stage.name not in took)


class Stages:
    """Says of stages that run one after the other, in a line each, how long it took and what is left.

    On a terminal the name of the stage that runs, and its bar, stand where the line will be.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        *,
        typical_of: str,
        stream: io.TextIOBase | None = None,
        is_silent: bool = False,
    ) -> None:
        """``typical_of``: the machine of the typical seconds; ``stream`` is standard output by default."""
        self._stages = tuple(stages)
        self._took: dict[str, float] = {}
        self._stream = stream or sys.stdout
        self._is_silent = is_silent
        total = duration(seconds_left(stages, {}))
        names = ", ".join(stage.name for stage in stages)
        self._write(f"{len(stages)} stages, typically {total} on {typical_of}: {names}\n")

    @contextmanager
    def running(self, name: str, product: Product) -> Generator[None]:
        """Inside, the stage makes its product, unless that was made before."""
        number = [stage.name for stage in self._stages].index(name) + 1
        label = numbered(number, len(self._stages), name)
        is_made, is_begun = product.is_made, product.is_begun
        if self._stream.isatty():
            self._write(f"{label} ...\r")
        token, silence = _stage.set(label), _is_silent.set(self._is_silent)
        started = time.perf_counter()
        try:
            yield
        except BaseException:
            self._write("\n" if self._stream.isatty() else "")
            raise
        finally:
            _stage.reset(token)
            _is_silent.reset(silence)
        seconds = product.seconds if is_made else time.perf_counter() - started
        self._took[name] = math.nan if is_begun else seconds
        how = ", made before" if is_made else " since it was cut" if is_begun else ""
        left = f"; about {duration(seconds_left(self._stages, self._took))} left"
        is_last = len(self._took) == len(self._stages)
        clear = "\r\x1b[K" if self._stream.isatty() else ""
        self._write(f"{clear}{label}: {duration(seconds)}{how}{'' if is_last else left}\n")

    def _write(self, text: str) -> None:
        if not self._is_silent:
            self._stream.write(text)
            self._stream.flush()
