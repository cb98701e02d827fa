"""Lines to and from a worker process that may be late, die or babble."""

import os
import select
import time


def write_all(descriptor: int, message: bytes) -> None:
    """Send a message. The worker has said that it reads, so a full pipe is emptied at once."""
    while message:
        message = message[os.write(descriptor, message) :]


def read_line(descriptor: int, *, seconds: float, max_bytes: int) -> bytes:
    """What a worker writes, up to a final line break or more than ``max_bytes``.

    Raises TimeoutError after ``seconds``, EOFError if the worker ends.
    """
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    deadline = time.monotonic() + seconds
    received = bytearray()
    while not received.endswith(b"\n") and len(received) <= max_bytes:
        remaining = deadline - time.monotonic()
        if remaining <= 0 or not poll.poll(remaining * 1000):
            raise TimeoutError
        chunk = os.read(descriptor, 2**16)
        if not chunk:
            raise EOFError
        received += chunk
    return bytes(received)
