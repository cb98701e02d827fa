"""What the requests of a server share: its models, its limits and its counts."""

import hmac
import ipaddress
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, cached_property
from urllib.parse import urlsplit

from starlette.types import Scope

from t3d.decoding.llm import LLM
from t3d.problems.prompts import token_text
from t3d.serving.metrics import Metrics
from t3d.serving.settings import Refusal, ServeConfig
from t3d.serving.worker import Worker


@dataclass(frozen=True, kw_only=True)
class Served:
    """A model, and the thread that decodes for it."""

    name: str
    llm: LLM
    worker: Worker

    @cached_property
    def token_name(self) -> Callable[[int], str]:
        """What a token is called; each is asked of the tokenizer once."""
        return cache(lambda token: token_text(self.llm.tokenizer, [token], skip_special_tokens=False))


@dataclass(kw_only=True)
class Service:
    """What all requests share."""

    models: Mapping[str, Served]
    """By the names that requests give; the first answers those that name none."""
    config: ServeConfig
    metrics: Metrics
    num_requests: int = 0
    reading: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "t3d-reading"))
    """Reads prompts that are to be repeated with their log-probabilities, one after the other."""

    def model_of(self, name: str | None) -> Served:
        """The model of that name. Raises Refusal where there is none."""
        if name is None:
            return next(iter(self.models.values()))
        if name not in self.models:
            text = f"this server has {' and '.join(map(repr, self.models))}, not {name!r}"
            raise Refusal(404, "model_not_found", text, "model")
        return self.models[name]

    @contextmanager
    def admitted(self) -> Generator[None]:
        """Count a request in. Raises Refusal where there are too many already."""
        if self.num_requests >= self.config.max_requests:
            text = f"{self.config.max_requests} requests are being answered; try again later"
            raise Refusal(429, "too_many_requests", text)
        self.num_requests += 1
        self.metrics.open_requests.set(self.num_requests)
        try:
            yield
        finally:
            self.num_requests -= 1
            self.metrics.open_requests.set(self.num_requests)


def check_key(scope: Scope, config: ServeConfig) -> None:
    """Raise Refusal unless the request has the key that is asked for."""
    if config.api_key is None:
        return
    kind, _, given = dict(scope["headers"]).get(b"authorization", b"").partition(b" ")
    if kind.lower() != b"bearer" or not hmac.compare_digest(given.strip(), config.api_key.encode()):
        text = "no API key, or another one; send it as Authorization: Bearer KEY"
        raise Refusal(401, "invalid_api_key", text)


def check_host(scope: Scope, config: ServeConfig) -> None:
    """Raise Refusal for a page of another site whose name leads to this machine; none knows a key."""
    given = dict(scope["headers"]).get(b"host")
    if config.api_key is not None or given is None or not _is_loopback(config.host):
        return
    with suppress(ValueError):  # an address that is none
        name = urlsplit(f"//{given.decode('latin-1')}").hostname
        if name is not None and (name == config.host or _is_loopback(name)):
            return
    text = (
        "this name is not that of the machine itself. Fix: ask localhost, or start the server with --api-key."
    )
    raise Refusal(403, "host_not_allowed", f"host={given.decode('latin-1')[:80]!r}: {text}")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
