"""One request from its first byte to the last of its answer."""

import asyncio
import contextlib
import threading
import time
import uuid
from collections.abc import AsyncGenerator, Coroutine, Sequence
from dataclasses import replace
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from t3d.decoding.completion import DecodeRequest
from t3d.decoding.jobs import Job
from t3d.decoding.likelihood import token_logprobs
from t3d.decoding.llm import LLM
from t3d.errors import InputError
from t3d.problems.prompts import token_text
from t3d.serving.answers import Answer, Echo, to_json
from t3d.serving.body import not_json, parsed, read_body
from t3d.serving.choice import Choice
from t3d.serving.fields import Asked, Endpoint, check_echoed, named_model, read_asked, renamed
from t3d.serving.service import Served, Service, check_key
from t3d.serving.settings import Refusal

_LAST_WORDS_S = 1.0
"""How long a client is given to take an error."""


class _Sender:
    """``send`` that remembers whether an answer has begun, and with which status."""

    def __init__(self, send: Send) -> None:
        self._send, self.status = send, 0

    async def __call__(self, message: Message) -> None:
        """Send it on."""
        await self._send(message)
        if message["type"] == "http.response.start":
            self.status = message["status"]

    async def event(self, data: Any, *, is_last: bool = False) -> None:
        """One server-sent event, begun where need be."""
        if not self.status:
            headers = [
                (b"content-type", b"text/event-stream; charset=utf-8"),
                (b"cache-control", b"no-cache"),
            ]
            await self({"type": "http.response.start", "status": 200, "headers": headers})
        text = data if isinstance(data, str) else to_json(data)
        body = f"data: {text}\n\n".encode()
        await self({"type": "http.response.body", "body": body, "more_body": not is_last})


class Exchange:
    """The application of one of the endpoints that decode."""

    def __init__(self, service: Service, endpoint: Endpoint) -> None:
        self.service, self.endpoint = service, endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or say why not; a client that goes away ends it and frees its slots."""
        sender, metrics, began, status = _Sender(send), self.service.metrics, time.perf_counter(), 500
        try:
            check_key(scope, self.service.config)
            with self.service.admitted():
                async with asyncio.timeout(self.service.config.time_limit_s):
                    await self._answer(scope, receive, sender)
            metrics.request_seconds.observe(time.perf_counter() - began)
            status = sender.status
        except ClientDisconnect:
            status = 499
        except (Refusal, InputError, TimeoutError, asyncio.CancelledError) as error:
            refusal = self._refusal_of(error)
            status = refusal.status
            await _refuse(refusal, scope, receive, sender)
        finally:
            metrics.requests.labels(self.endpoint, str(status)).inc()

    def _refusal_of(self, error: BaseException) -> Refusal:
        if isinstance(error, Refusal):
            return error
        if isinstance(error, InputError):
            return Refusal.of_input(renamed(error))
        if isinstance(error, TimeoutError):
            text = f"not finished within {self.service.config.time_limit_s:g} seconds"
            return Refusal(504, "timeout", text)
        return Refusal(503, "stopping", "the server is stopping")  # nothing else cancels a request

    async def _answer(self, scope: Scope, receive: Receive, sender: _Sender) -> None:
        body = await read_body(Request(scope, receive), self.service.config.max_body_bytes)
        await _while_connected(self._write(body, scope, receive, sender), receive)

    async def _write(self, body: bytes, scope: Scope, receive: Receive, sender: _Sender) -> None:
        """What takes long with large prompts or answers is done in a thread: others are served meanwhile."""
        served, answer = await asyncio.to_thread(self._begin, body)
        asked = answer.asked
        self.service.metrics.prompt_tokens.inc(answer.num_prompt_tokens)
        if asked.echo:
            answer = replace(answer, echoes=await self._echoes(served, answer))
        if not asked.streams:
            async for _ in self._grown(served, answer):
                pass
            content = await asyncio.to_thread(answer.whole)
            await Response(content, media_type="application/json")(scope, receive, sender)
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
        fields = parsed(body)
        served = self.service.model_of(named_model(fields))
        own, most = served.llm.loaded.own_settings, self.service.config.max_choices
        try:
            asked = read_asked(fields, self.endpoint, own, most)
        except RecursionError as error:  # checking a value goes deeper than parsing it
            raise not_json("nested too deeply") from error
        return served, self._begun(served, asked)

    def _begun(self, served: Served, asked: Asked) -> Answer:
        """Prompts as jobs. Raises InputError for what cannot be decoded."""
        llm = served.llm
        name = f"{'cmpl' if self.endpoint == 'completions' else 'chatcmpl'}-{uuid.uuid4().hex}"
        try:
            requests = llm.requests(asked.prompts)
        except InputError as error:
            if self.endpoint == "chat/completions" and error.field == "prompts":
                raise InputError("messages", error.value, error.problem, error.fix) from error
            raise
        num_prompt_tokens = sum(len(request.prompt_ids) for request in requests)
        check_echoed(asked, num_prompt_tokens)
        choices = list[Choice]()
        for request in requests:
            for sample in request.samples(asked.n):
                choices.append(Choice(self._job(llm, f"{name}/{len(choices)}", sample, asked)))
        return Answer(
            id=name,
            created=int(time.time()),
            model=served.name,
            endpoint=self.endpoint,
            asked=asked,
            name=served.token_name,
            choices=choices,
            num_prompt_tokens=num_prompt_tokens,
        )

    async def _echoes(self, served: Served, answer: Answer) -> list[Echo]:
        """What is repeated of the prompts, which are read no further once nobody waits."""
        is_given_up, loop = threading.Event(), asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self.service.reading, _echoes_of, served, answer, is_given_up)
        finally:
            is_given_up.set()

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


def _echoes_of(served: Served, answer: Answer, is_given_up: threading.Event) -> list[Echo]:
    asked, found = answer.asked, list[Echo]()
    for choice, prompt in zip(answer.choices[:: asked.n], asked.prompts, strict=True):
        echo = _echo(served, choice.job.request.prompt_ids, prompt, asked, is_given_up)
        found += [echo] * asked.n
    return found


def _echo(
    served: Served, ids: Sequence[int], prompt: Any, asked: Asked, is_given_up: threading.Event
) -> Echo:
    llm, wanted = served.llm, asked.num_logprobs
    text = prompt if isinstance(prompt, str) else token_text(llm.tokenizer, ids, skip_special_tokens=False)
    known = (
        []
        if wanted is None
        else token_logprobs(llm.loaded, ids, asked.params, wanted, is_given_up=is_given_up)
    )
    return Echo.of_prompt(text, ids, known, asked, served.token_name)


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
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LAST_WORDS_S):
            if sender.status:
                await sender.event(refusal.body(), is_last=True)
                return
            headers = {"www-authenticate": "Bearer"} if refusal.status == 401 else None
            response = JSONResponse(refusal.body(), status_code=refusal.status, headers=headers)
            await response(scope, receive, sender)
