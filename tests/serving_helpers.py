"""A server's application in this process, spoken to as by a client."""

import asyncio
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.util import find_spec

import pytest

from t3d.decoding.params import DecodeParams
from t3d.serving.settings import ServeConfig

_MISSING = [
    name for name in ("starlette", "uvicorn", "prometheus_client", "httpx") if find_spec(name) is None
]
needs_server = pytest.mark.skipif(bool(_MISSING), reason=f"pip install t3d[serve] httpx (no {_MISSING})")

PROMPT = "how many apples are left now?"


def app_of(llm, front_page=None, others=(), **fields):
    """The application of a model that clients call tiny, and of others by name."""
    make_app = importlib.import_module("t3d.serving.app").make_app
    return make_app({"tiny": llm, **dict(others)}, ServeConfig(**fields), front_page)


def client_of(app):
    """A client of it, to be entered."""
    return importlib.import_module("starlette.testclient").TestClient(app, base_url="http://127.0.0.1")


def events_of(response):
    """The data of a stream's events, the closing one left out."""
    lines = [line for line in response.text.split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def generated(llm, prompt=PROMPT, **fields):
    """What ``LLM.generate`` gives."""
    return llm.generate([prompt], DecodeParams(**fields), progress=False)


@asynccontextmanager
async def running(app):
    """The application between start-up and shut-down."""
    async with app.router.lifespan_context(app):
        yield


async def ask(app, body, path="/v1/completions", leaves_after=None, headers=()):
    """The messages that the application sends; the client leaves after so many of them, or stays."""
    sent, gone = [], asyncio.Event()
    asked = iter([{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}])

    async def receive():
        for message in asked:
            return message
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)
        if leaves_after is not None and len(sent) >= leaves_after:
            gone.set()

    if leaves_after == 0:
        gone.set()
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": [(b"content-type", b"application/json"), *headers],
    }
    await app(scope, receive, send)
    return sent


async def got(app, path):
    """The text that the application answers."""
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request", "body": b""}

    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": []}
    await app(scope, receive, send)
    return sent[1]["body"].decode()


async def settled(app):
    """Wait until its metrics tell of no open requests and choices: the engine needs time to notice."""
    async with asyncio.timeout(20):
        while True:
            text = await got(app, "/metrics")
            if "t3d_open_requests 0.0" in text and "t3d_open_choices 0.0" in text:
                return text
            await asyncio.sleep(0.01)


@contextmanager
def served_mini() -> Iterator[str]:
    """The address of a process that serves the bundled teacher."""
    flags = ["--model", "mini", "--port", "0", "--device", "cpu", "--dtype", "float32"]
    process = subprocess.Popen(
        [sys.executable, "-m", "t3d", "serve", *flags], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    try:
        yield next(line for line in process.stderr if line.startswith("serving ")).split()[-1]
    finally:
        process.kill()
        process.communicate()
