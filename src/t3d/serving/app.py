"""The routes of a server: OpenAI's, a health check and metrics."""

import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio.to_thread
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from t3d.decoding.llm import LLM
from t3d.serving.exchange import Exchange
from t3d.serving.metrics import Metrics
from t3d.serving.service import Served, Service, check_host, check_key
from t3d.serving.settings import Refusal, ServeConfig
from t3d.serving.worker import Worker


def make_app(llms: Mapping[str, LLM], config: ServeConfig, front_page: str | None = None) -> Starlette:
    """The application of models by name; their engines run from start-up to shut-down, each in a thread.

    The first model answers requests that name none. ``front_page`` is shown at ``/``, to everybody: it has to
    hold no secret.
    """
    models_by_name = {name: Served(name=name, llm=llm, worker=Worker(llm)) for name, llm in llms.items()}
    workers = [served.worker for served in models_by_name.values()]
    counts = Metrics({name: llm.stats for name, llm in llms.items()}, workers)
    service = Service(models=models_by_name, config=config, metrics=counts)
    created = int(time.time())

    def told(served: Served) -> dict[str, Any]:
        same = {"object": "model", "created": created, "owned_by": "t3d"}
        return {"id": served.name, **same, "max_model_len": served.llm.max_model_len}

    async def models(request: Request) -> Response:
        check_key(request.scope, config)
        return JSONResponse({"object": "list", "data": [told(each) for each in models_by_name.values()]})

    async def model(request: Request) -> Response:
        check_key(request.scope, config)
        return JSONResponse(told(service.model_of(request.path_params["name"])))

    async def health(request: Request) -> Response:
        del request
        if all(worker.is_alive for worker in workers):
            return JSONResponse({"status": "ok"})
        return JSONResponse({"status": "the engine has stopped"}, status_code=503)

    async def metrics(request: Request) -> Response:
        del request
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def front(request: Request) -> Response:
        del request
        return HTMLResponse(front_page, headers={"x-frame-options": "DENY", "cache-control": "no-cache"})

    return Starlette(
        routes=[
            *([] if front_page is None else [Route("/", front)]),
            Route("/v1/completions", Exchange(service, "completions"), methods=["POST"]),
            Route("/v1/chat/completions", Exchange(service, "chat/completions"), methods=["POST"]),
            Route("/v1/models", models),
            Route("/v1/models/{name:path}", model),
            Route("/health", health),
            Route("/metrics", metrics),
        ],
        exception_handlers={Refusal: _refused, HTTPException: _not_served, Exception: _failed},
        middleware=[Middleware(OwnHost, config=config)],
        lifespan=lambda _: _running(service),
    )


@asynccontextmanager
async def _running(service: Service) -> AsyncGenerator[None]:
    """Inside, its engines decode."""
    workers = [served.worker for served in service.models.values()]
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        for worker in workers:
            await anyio.to_thread.run_sync(worker.stop)
        await anyio.to_thread.run_sync(partial(service.reading.shutdown, cancel_futures=True))


class OwnHost:
    """Lets through what :func:`~t3d.serving.service.check_host` does."""

    def __init__(self, app: ASGIApp, config: ServeConfig) -> None:
        self._app, self._config = app, config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse to."""
        try:
            if scope["type"] == "http":
                check_host(scope, self._config)
        except Refusal as refusal:
            await JSONResponse(refusal.body(), status_code=refusal.status)(scope, receive, send)
            return
        await self._app(scope, receive, send)


async def _refused(request: Request, error: Any) -> Response:
    del request
    return JSONResponse(error.body(), status_code=error.status)


async def _not_served(request: Request, error: Any) -> Response:
    code = "method_not_allowed" if error.status_code == 405 else "not_found"
    refusal = Refusal(error.status_code, code, f"{request.method} {request.url.path}: {error.detail}")
    return JSONResponse(refusal.body(), status_code=refusal.status, headers=error.headers)


async def _failed(request: Request, error: Any) -> Response:
    return await _refused(request, Refusal(500, "internal_error", type(error).__name__))
