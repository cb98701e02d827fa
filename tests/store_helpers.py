"""Object stores for tests: one in this process's memory, and S3's protocol as moto's server speaks it."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import fsspec
import pytest

SLOW_S3 = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # sockets of the server and of Ray
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # boto's and moto's own
    pytest.mark.skipif(not (find_spec("moto") and find_spec("s3fs")), reason="pip install moto[server] s3fs"),
]


def s3_test(test: Callable[..., None]) -> Callable[..., None]:
    """A test of ``bucket``."""
    for mark in SLOW_S3:
        test = mark(test)
    return test


def empty_memory() -> Any:
    """The store in memory, which one process has one of."""
    store = fsspec.filesystem("memory")
    store.store.clear()
    store.pseudo_dirs[:] = [""]  # folders without files, which S3 has not
    return store


@contextmanager
def served_bucket() -> Generator[Any]:
    """The bucket ``runs`` of a server, which the commands that tests start know by the environment."""
    from moto.server import ThreadedMotoServer  # noqa: PLC0415

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        store = fsspec.filesystem("s3", use_listings_cache=False)
        store.mkdir("runs")
        yield store
    server.stop()


def chunks_there(store: Any, folder: str, count: int) -> list[str]:
    """Names of the chunks in a folder of the bucket, once there are so many."""
    until = time.monotonic() + 400
    while len(found := [name for name in store.find(f"runs/{folder}") if "chunk-" in name]) < count:
        assert time.monotonic() < until
        time.sleep(0.05)
    return found
