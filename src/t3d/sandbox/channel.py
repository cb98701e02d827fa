"""Messages over a stream: a mark, a length, so many bytes. Sent to both interpreters."""

import os
import struct

read, write = os.read, os.write
MARK = b"t3d:"
"""No secret: it tells what was written by accident, or by who knows no better, from a message."""
CHUNK_BYTES = 2**20


class ChannelError(ValueError):
    """What came is no message."""


def send(descriptor, data):
    """Write one message."""
    waiting = memoryview(MARK + struct.pack("<I", len(data)) + data)
    while waiting:
        waiting = waiting[write(descriptor, waiting) :]


def receive(descriptor, max_bytes):
    """Read one message; None at the end of the stream. Raises ChannelError."""
    head = read_exactly(descriptor, len(MARK) + 4)
    if head is None:
        return None
    if not head.startswith(MARK):
        raise ChannelError("what is no message")
    (length,) = struct.unpack("<I", head[len(MARK) :])
    if length > max_bytes:
        raise ChannelError(f"a message of {length} bytes")
    return read_exactly(descriptor, length)


def read_exactly(descriptor, count):
    """So many bytes, or None if the stream ends before."""
    data = read(descriptor, min(count, CHUNK_BYTES))
    if len(data) == count:
        return data
    parts = bytearray(data)
    while data and len(parts) < count:
        data = read(descriptor, min(count - len(parts), CHUNK_BYTES))
        parts += data
    return bytes(parts) if len(parts) == count else None
