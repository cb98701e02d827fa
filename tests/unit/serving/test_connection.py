"""A connection whose client neither asks nor reads is cut; others stay."""

import importlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from serving_helpers import needs_server

pytestmark = needs_server
LIMIT_S = 0.5
HEAD = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"
LARGE = b"x" * 2**25
"""More than both sides' buffers hold."""


async def answer(scope, receive, send):
    """A large body at ``/large``."""
    del receive
    body = LARGE if scope["path"] == "/large" else b"small"
    length = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": length})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    uvicorn = importlib.import_module("uvicorn")
    connections_of = importlib.import_module("t3d.serving.connection").connections_of
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        config = uvicorn.Config(answer, http=connections_of(LIMIT_S), log_level="critical", lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield listening.getsockname()[1]
        server.should_exit = True
        thread.join()


@contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    """A client's side."""
    with socket.socket() as client:
        client.settimeout(10)
        client.connect(("127.0.0.1", port))
        yield client


def rest(client: socket.socket) -> bytes:
    """All that comes until the other side ends it."""
    parts = []
    try:
        while part := client.recv(2**20):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


@pytest.mark.parametrize("sent", [b"", b"GET / HT"], ids=str)
def test_who_never_asks_is_cut(port, sent):
    with connected(port) as client:
        client.sendall(sent)
        assert rest(client) == b""


def test_who_does_not_take_an_answer_is_cut(port):
    with connected(port) as client:
        client.sendall(HEAD.replace(b"/ ", b"/large "))
        time.sleep(3 * LIMIT_S)
        assert len(rest(client)) < len(LARGE)


def test_who_reads_at_once_or_rests_between_requests_is_not(port):
    with connected(port) as client:
        for _ in range(2):
            client.sendall(HEAD)
            while not client.recv(1000).endswith(b"small"):
                pass
            time.sleep(3 * LIMIT_S)
        client.sendall(HEAD.replace(b"/ ", b"/large ").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert rest(client).endswith(LARGE)
