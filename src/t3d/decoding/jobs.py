"""What an engine is given to decode, the room that it takes, and jobs that come while it decodes others."""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from t3d.decoding.completion import DecodeRequest
from t3d.decoding.drafting import num_columns_needed
from t3d.decoding.params import DecodeParams

Detail = Literal["completions", "blocks", "steps"]
"""Which updates of a job are wanted: that with its completion, of every block, or of every denoising step."""


@runtime_checkable
class Ends(Protocol):
    """What ends a response besides its stop tokens and its length."""

    def num_kept(self, token_ids: Sequence[int], /) -> int | None:
        """How many of the tokens so far the response ends with; None if it goes on."""
        ...


@dataclass(frozen=True, slots=True)
class Job:
    """A request and how to decode it."""

    request: DecodeRequest
    params: DecodeParams
    ends: Ends | None = None
    """Asked whenever a block is finished."""
    detail: Detail = "blocks"


class Room(NamedTuple):
    """What is reserved before anything is decoded."""

    num_rows: int
    num_columns: int
    max_block_size: int

    @classmethod
    def of_jobs(cls, jobs: Sequence[Job], max_rows: int) -> "Room":
        """For these jobs and no others."""
        return cls(
            num_rows=min(max_rows, len(jobs)),
            num_columns=max((num_columns_needed(job.request, job.params) for job in jobs), default=0),
            max_block_size=max((job.params.block_size for job in jobs), default=0),
        )


class Arrivals:
    """Where jobs wait for an engine to take them in between two forwards.

    An id may come again when its request has ended; a cancel that came too late for that one is forgotten.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._jobs: list[Job] = []
        self._cancelled: set[str] = set()
        self._is_closed = False

    def add(self, jobs: Iterable[Job]) -> bool:
        """Let the jobs in; False, and none of them is, when closed."""
        jobs = list(jobs)
        with self._changed:
            if not self._is_closed:
                self._jobs += jobs
                self._cancelled.difference_update(job.request.id for job in jobs)
                self._changed.notify()
            return not self._is_closed

    def cancel(self, ids: Iterable[str]) -> None:
        """Have these requests ended, wherever they are; ids of no request change nothing."""
        with self._changed:
            self._cancelled.update(ids)
            self._changed.notify()

    def close(self) -> None:
        """Let no more in. What is in is decoded to its end."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    @property
    def is_over(self) -> bool:
        """Whether it is closed and empty."""
        with self._changed:
            return self._is_closed and not self._jobs

    def take(self, *, wait: bool) -> tuple[list[Job], set[str]]:
        """The jobs that have come and the ids that were cancelled since the last call.

        With ``wait`` it returns when there is one of these, or it is closed.
        """
        with self._changed:
            while wait and not (self._jobs or self._cancelled or self._is_closed):
                self._changed.wait()
            jobs, cancelled = self._jobs, self._cancelled
            self._jobs, self._cancelled = [], set()
            return jobs, cancelled
