"""Connections that end: one whose client neither asks nor takes its answer is cut."""

import asyncio
from typing import ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle


class Connection(H11Protocol):
    """uvicorn's, which itself waits for as long as it takes for a request's head, and for its client to read.

    It looks once in ``limit_s``, and cuts a connection that it finds stuck behind the same request twice.
    """

    limit_s: ClassVar[float]
    _look: asyncio.TimerHandle
    _stuck_behind: RequestResponseCycle | str | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Begin to look."""
        super().connection_made(transport)
        self._look = self.loop.call_later(self.limit_s, self._cut_or_look_again)

    def connection_lost(self, exc: Exception | None) -> None:
        """End to look."""
        self._look.cancel()
        super().connection_lost(exc)

    @property
    def _is_stuck(self) -> bool:
        """Whether nothing is being answered, and it does not rest between two requests either."""
        if self.cycle is not None and not self.cycle.response_complete and not self.transport.is_closing():
            return False
        return self.timeout_keep_alive_task is None or self.transport.get_write_buffer_size() > 0

    def _cut_or_look_again(self) -> None:
        last = (self.cycle or "none") if self._is_stuck else None
        if last is not None and last is self._stuck_behind:
            self.transport.abort()
            return
        self._stuck_behind = last
        self._look = self.loop.call_later(self.limit_s, self._cut_or_look_again)


def connections_of(limit_s: float) -> type[Connection]:
    """Those that are cut when they are stuck for between ``limit_s`` and twice as long."""
    return type("LimitedConnection", (Connection,), {"limit_s": limit_s})
