"""The progress bar of all long work."""

import sys
from types import TracebackType

from rich import progress as rich_progress
from rich.console import Console


class Progress:
    """A bar with rate and remaining time on standard error; plain lines where there is no terminal."""

    def __init__(self, label: str, total: int) -> None:
        self._bar = rich_progress.Progress(
            rich_progress.TextColumn("{task.description}"),
            rich_progress.BarColumn(),
            rich_progress.MofNCompleteColumn(),
            rich_progress.TimeElapsedColumn(),
            rich_progress.TextColumn("ETA"),
            rich_progress.TimeRemainingColumn(),
            console=Console(file=sys.stderr),
        )
        self._task = self._bar.add_task(label, total=total)

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def advance(self, count: int = 1) -> None:
        """Count finished items."""
        self._bar.advance(self._task, count)
