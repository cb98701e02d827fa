"""One request from its first byte to the last of its answer."""

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import AsyncGenerator, Coroutine
from dataclasses import replace
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send

from t3d.decoding.completion import DecodeRequest
from t3d.decoding.jobs import Job
from t3d.decoding.likelihood import token_logprobs
from t3d.decoding.llm import LLM
from t3d.errors import InputError
from t3d.problems.prompts import token_text
from t3d.serving.answers import Answer, Echo
from t3d.serving.choice import Choice
from t3d.serving.fields import Asked, Endpoint, named_model, read_asked, renamed
from t3d.serving.service import Served, Service, check_key
from t3d.serving.settings import Refusal

_LAST_WORDS_S = 1.0
"""How long a client is given to take the error that ends its stream."""


class _Sender:
    """``send`` that remembers whether an answer has begun, and with which status."""

    def __init__(self, send: Send) -> None:
        self._send, self.status = send, 0

    async def __call__(self, message: Message) -> None:
        """Send it on."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)

    async def event(self, data: Any, *, is_last: bool = False) -> None:
        """One server-sent event, begun where need be."""
        if not self.status:
            headers = [
                (b"content-type", b"text/event-stream; charset=utf-8"),
                (b"cache-control", b"no-cache"),
            ]
            await self({"type": "http.response.start", "status": 200, "headers": headers})
        text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, allow_nan=False)
        body = f"data: {text}\n\n".encode()
        await self({"type": "http.response.body", "body": body, "more_body": not is_last})


class Exchange:
    """The application of one of the endpoints that decode."""

    def __init__(self, service: Service, endpoint: Endpoint) -> None:
        self.service, self.endpoint = service, endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or say why not; a client that goes away ends it and frees its slots."""
        sender, metrics, began = _Sender(send), self.service.metrics, time.perf_counter()
        try:
            check_key(scope, self.service.config)
            with self.service.admitted():
                async with asyncio.timeout(self.service.config.time_limit_s):
                    await self._answer(scope, receive, sender)
            metrics.request_seconds.observe(time.perf_counter() - began)
        except Refusal as refusal:
            await _refuse(refusal, scope, receive, sender)
        except InputError as error:
            await _refuse(Refusal.of_input(renamed(error)), scope, receive, sender)
        except TimeoutError:
            text = f"not finished within {self.service.config.time_limit_s:g} seconds"
            await _refuse(Refusal(504, "timeout", text), scope, receive, sender)
        except ClientDisconnect:
            sender.status = sender.status or 499
        finally:
            metrics.requests.labels(self.endpoint, str(sender.status)).inc()

    async def _answer(self, scope: Scope, receive: Receive, sender: _Sender) -> None:
        body = await _read(Request(scope, receive), self.service.config.max_body_bytes)
        await _while_connected(self._write(body, scope, receive, sender), receive)

    async def _write(self, body: bytes, scope: Scope, receive: Receive, sender: _Sender) -> None:
        """What takes long with large prompts or answers is done in a thread: others are served meanwhile."""
        served, answer = await asyncio.to_thread(self._begin, body)
        asked = answer.asked
        self.service.metrics.prompt_tokens.inc(answer.num_prompt_tokens)
        if not asked.streams:
            async for _ in self._grown(served, answer):
                pass
            response = await asyncio.to_thread(lambda: JSONResponse(answer.whole()))
            await response(scope, receive, sender)
            return
        for chunk in answer.first_chunks():
            await sender.event(chunk)
        async with contextlib.aclosing(self._grown(served, answer)) as grown:
            async for index in grown:
                news = answer.choices[index].news()
                if news is not None:
                    await sender.event(answer.chunk(index, news))
        if asked.streams_usage:
            await sender.event(answer.usage_chunk())
        await sender.event("[DONE]", is_last=True)

    def _begin(self, body: bytes) -> tuple[Served, Answer]:
        """A body's model and what is to be answered. Raises InputError or Refusal for what cannot be."""
        fields = _json(body)
        served = self.service.model_of(named_model(fields))
        own, most = served.llm.loaded.own_settings, self.service.config.max_choices
        return served, self._begun(served, read_asked(fields, self.endpoint, own, most))

    def _begun(self, served: Served, asked: Asked) -> Answer:
        """Prompts as jobs, and what is repeated of them. Raises InputError for what cannot be decoded."""
        llm = served.llm
        name = f"{'cmpl' if self.endpoint == 'completions' else 'chatcmpl'}-{uuid.uuid4().hex}"
        try:
            requests = llm.requests(asked.prompts)
        except InputError as error:
            if self.endpoint == "chat/completions" and error.field == "prompts":
                raise InputError("messages", error.value, error.problem, error.fix) from error
            raise
        choices, echoes = [], []
        for request in requests:
            for sample in request.samples(asked.n):
                choices.append(Choice(self._job(llm, f"{name}/{len(choices)}", sample, asked)))
        if asked.echo:
            for request, prompt in zip(requests, asked.prompts, strict=True):
                echoes += [_echo(served, request, prompt, asked)] * asked.n
        return Answer(
            id=name,
            created=int(time.time()),
            model=served.name,
            endpoint=self.endpoint,
            asked=asked,
            name=served.token_name,
            choices=choices,
            num_prompt_tokens=sum(len(request.prompt_ids) for request in requests),
            echoes=echoes,
        )

    def _job(self, llm: LLM, name: str, request: DecodeRequest, asked: Asked) -> Job:
        """Of a choice: its noise is that of ``LLM.generate`` for the same prompts and ``n``."""
        limit = asked.max_tokens
        if limit is None:
            size = asked.params.block_size
            room = llm.max_model_len // size * size - len(request.prompt_ids)
            limit = max(1, min(self.service.config.max_new_tokens, room))
        params = replace(asked.params, max_new_tokens=max(1, limit))
        detail = "steps" if asked.returns_drafts else "blocks"
        return llm.job(replace(request, id=name, noise_id=request.id), params, detail)

    async def _grown(self, served: Served, answer: Answer) -> AsyncGenerator[int]:
        """Indices of choices as they grow, until all have ended. Raises Refusal if one cannot be decoded."""
        worker, began, is_first = served.worker, time.perf_counter(), True
        if answer.asked.max_tokens == 0:
            for index, choice in enumerate(answer.choices):
                choice.finish_reason = "length"
                yield index
            return
        growing = {choice.job.request.id: index for index, choice in enumerate(answer.choices)}
        queue: asyncio.Queue = asyncio.Queue()
        worker.submit([choice.job for choice in answer.choices], queue)
        try:
            while growing:
                update = await queue.get()
                index = growing.get(update.id)
                if index is None:  # told before its cancelling took effect
                    continue
                if is_first and update.is_committed:
                    self.service.metrics.first_block_seconds.observe(time.perf_counter() - began)
                    is_first = False
                choice = answer.choices[index]
                choice.add(update)
                if choice.error:
                    raise Refusal(500, "decoding_failed", choice.error)
                if choice.has_ended:
                    del growing[update.id]
                yield index
        finally:
            worker.cancel(growing)


def _echo(served: Served, request: DecodeRequest, prompt: Any, asked: Asked) -> Echo:
    llm, ids = served.llm, request.prompt_ids
    text = prompt if isinstance(prompt, str) else token_text(llm.tokenizer, ids, skip_special_tokens=False)
    wanted = asked.num_logprobs
    known = [] if wanted is None else token_logprobs(llm.loaded, ids, asked.params, wanted)
    return Echo.of_prompt(text, ids, known, asked, served.token_name)


async def _read(request: Request, max_bytes: int) -> bytes:
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
    async for part in request.stream():
        body += part
        if len(body) > max_bytes:
            raise too_large
    return bytes(body)


def _json(body: bytes) -> Any:
    try:
        return json.loads(body.decode(), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        said = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
        raise Refusal(400, "invalid_json", f"body: not JSON ({said}). Fix: send a JSON object.") from error


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number")


async def _while_connected(work: Coroutine[Any, Any, None], receive: Receive) -> None:
    """Do the work as long as the client is there. Raises ClientDisconnect, and what the work raises."""
    task, gone = asyncio.create_task(work), asyncio.create_task(_until_gone(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        task.result()
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _refuse(refusal: Refusal, scope: Scope, receive: Receive, sender: _Sender) -> None:
    """Say it, as JSON or, where a stream has begun, as its last event."""
    if not sender.status:
        headers = {"www-authenticate": "Bearer"} if refusal.status == 401 else None
        await JSONResponse(refusal.body(), status_code=refusal.status, headers=headers)(
            scope, receive, sender
        )
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LAST_WORDS_S):
            await sender.event(refusal.body(), is_last=True)
