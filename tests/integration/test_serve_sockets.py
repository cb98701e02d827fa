"""A server in a process of its own, over real connections that end at random moments."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import psutil
import pytest
from serving_helpers import needs_server

pytestmark = [pytest.mark.slow, needs_server]

ANSWER = {"prompt": [10, 20, 30, 40, 50], "max_tokens": 56, "temperature": 1.0, "seed": 7}
STREAM = ANSWER | {"seed": 3, "n": 2, "stream": True, "return_drafts": True, "logprobs": 1}
NUM_CLIENTS = 150


@pytest.fixture
def server():
    """The process and its port."""
    flags = ["--model", "mini", "--port", "0", "--device", "cpu", "--max-batch-size", "4", "--grace-s", "0.3"]
    command = [sys.executable, "-m", "t3d", "serve", *flags]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = next(line for line in process.stderr if line.startswith("serving "))
        yield psutil.Process(process.pid), int(re.findall(r":(\d+)/", line)[0])
        process.kill()


def request(body):
    content = json.dumps(body).encode()
    head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


def got(port, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", data, {"content-type": "application/json"}
    )
    with urllib.request.urlopen(asked, timeout=60) as answer:
        return answer.read().decode()


def text_of(port):
    return json.loads(got(port, "/v1/completions", ANSWER))["choices"][0]["text"]


def leave_somewhere(port, rng):
    """Send a part of a request or all of it, once or several times, read some of the answer, and go."""
    data, how = request(STREAM), rng.choice(["in the request", "unheard", "half closed", "piped", "reading"])
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        if how == "in the request":
            connection.sendall(data[: rng.randrange(1, len(data))])
        else:
            connection.sendall(data * (3 if how == "piped" else 1))
        if how == "half closed":
            connection.shutdown(socket.SHUT_WR)
        if how in ("piped", "reading"):
            for _ in range(rng.randrange(1, 10)):
                connection.recv(rng.choice([1, 100, 4096]))
        time.sleep(rng.uniform(0, 0.1))
        if rng.random() < 0.5:  # reset, in the place of a proper end
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def is_settled(port):
    told = got(port, "/metrics")
    return "t3d_open_requests 0.0" in told and "t3d_open_choices 0.0" in told


def test_clients_that_leave_at_random_moments_leave_nothing_and_change_no_answer(server):
    process, port = server
    expected, held = text_of(port), []
    for number in range(3):
        rngs = [random.Random(1000 * number + client) for client in range(NUM_CLIENTS)]
        clients = [threading.Thread(target=leave_somewhere, args=(port, rng)) for rng in rngs]
        for client in clients:
            client.start()
        while any(client.is_alive() for client in clients):
            assert text_of(port) == expected
        until = time.monotonic() + 60
        while not is_settled(port):
            assert time.monotonic() < until
            time.sleep(0.05)
        time.sleep(0.5)  # for connections to be closed
        held.append((process.num_fds(), process.num_threads(), process.memory_info().rss))
    assert text_of(port) == expected
    (fds, threads, _), (_, _, before), (more_fds, more_threads, after) = held
    assert more_fds <= fds + 2, held
    assert more_threads <= threads + 8, held  # those of the loop's pool come one by one
    assert after < before + 20 * 2**20, held


def test_a_server_that_is_told_to_stop_ends_its_streams_in_openais_form(server):
    process, port = server
    assert text_of(port)
    connections = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(20)]
    begun = b""
    for connection in connections:
        connection.sendall(request(STREAM | {"n": 100}))
        begun = begun or connection.recv(100)
    os.kill(process.pid, signal.SIGTERM)
    began = time.monotonic()
    answers = []
    for connection in connections:
        with connection, connection.makefile("rb") as stream:
            answers.append(stream.read().decode())
    process.wait(30)
    assert time.monotonic() - began < 20
    assert begun.startswith(b"HTTP/1.1 200")
    stopped = [answer for answer in answers if "data: [DONE]" not in answer]
    assert stopped
    for answer in stopped:
        assert '"code":"stopping"' in answer, answer[-1500:]
