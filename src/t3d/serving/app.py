"""The routes of a server: OpenAI's, a health check and metrics."""

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio.to_thread
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from t3d.decoding.llm import LLM
from t3d.serving.exchange import Exchange, Service, check_key
from t3d.serving.metrics import Metrics
from t3d.serving.settings import Refusal, ServeConfig
from t3d.serving.worker import Worker


def make_app(llm: LLM, config: ServeConfig, front_page: str | None = None) -> Starlette:
    """The application of a model; its engine runs from start-up to shut-down.

    ``front_page`` is shown at ``/``, to everybody: it has to hold no secret.
    """
    worker = Worker(llm)
    service = Service(llm=llm, config=config, worker=worker, metrics=Metrics(llm, worker))
    created = int(time.time())

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None]:
        del app
        worker.start()
        try:
            yield
        finally:
            await anyio.to_thread.run_sync(worker.stop)

    async def models(request: Request) -> Response:
        check_key(request.scope, config)
        own = {"id": config.model_name, "object": "model", "created": created, "owned_by": "t3d"}
        own["max_model_len"] = llm.max_model_len
        return JSONResponse({"object": "list", "data": [own]})

    async def health(request: Request) -> Response:
        del request
        if worker.is_alive:
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
            Route("/health", health),
            Route("/metrics", metrics),
        ],
        exception_handlers={Refusal: _refused, HTTPException: _not_served, Exception: _failed},
        lifespan=lifespan,
    )


async def _refused(request: Request, error: Any) -> Response:
    del request
    return JSONResponse(error.body(), status_code=error.status)


async def _not_served(request: Request, error: Any) -> Response:
    text = f"{request.method} {request.url.path}: {error.detail}"
    return await _refused(request, Refusal(error.status_code, "not_found", text))


async def _failed(request: Request, error: Any) -> Response:
    return await _refused(request, Refusal(500, "internal_error", type(error).__name__))
