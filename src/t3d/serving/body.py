"""The body of a request, read and parsed within bounds."""

import asyncio
import json
from typing import Any

from starlette.requests import Request

from t3d.serving.settings import Refusal

READ_LIMIT_S = 60.0
"""How long a body may take to come."""


async def read_body(request: Request, max_bytes: int) -> bytes:
    """A JSON request's body. Raises Refusal for one of another kind, too large or too slow."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # which a page of another site cannot send without being asked for leave
        text = f"content-type={kind!r}: not JSON. Fix: send Content-Type: application/json."
        raise Refusal(415, "unsupported_media_type", text)
    text = f"larger than {max_bytes} bytes. Fix: send less, or start the server with --max-body-bytes."
    too_large = Refusal(413, "body_too_large", text)
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > max_bytes:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(READ_LIMIT_S):
            async for part in request.stream():
                body += part
                if len(body) > max_bytes:
                    raise too_large
    except TimeoutError as error:
        text = f"body: not there within {READ_LIMIT_S:g} seconds. Fix: send it at once."
        raise Refusal(408, "timeout", text) from error
    return bytes(body)


def parsed(body: bytes) -> Any:
    """What the body says. Raises Refusal for what is no JSON."""
    try:
        return json.loads(body.decode(), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise not_json("nested too deeply" if isinstance(error, RecursionError) else str(error)) from error


def not_json(why: str) -> Refusal:
    """That the body cannot be read."""
    return Refusal(400, "invalid_json", f"body: not JSON ({why[:200]}). Fix: send a JSON object.")


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number")
