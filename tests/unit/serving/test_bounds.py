"""What a client asks for is bounded and harms nobody else: its values, its size, its leaving."""

import asyncio
import importlib
import json
import time

import pytest
from serving_helpers import PROMPT, app_of, ask, client_of, generated, needs_server, running, settled

from t3d.decoding import likelihood
from t3d.decoding.completion import BlockUpdate
from t3d.decoding.llm import LLM

pytestmark = needs_server

JSON = {"content-type": "application/json"}
LONG = {"prompt": [5, 6], "max_tokens": 120, "block_size": 1, "temperature": 1.0, "seed": 4}
ECHO = {"prompt": [5] * 100, "max_tokens": 0, "echo": True, "logprobs": 20}
DRAWN = {"prompt": PROMPT, "max_tokens": 14, "temperature": 1.0, "seed": 3}


@pytest.fixture(scope="module")
def llm(checkpoint):
    return LLM(checkpoint, device="cpu", dtype="float64", max_batch_size=3)


@pytest.fixture(scope="module")
def client(llm):
    with client_of(app_of(llm)) as client:
        yield client


def refused(client, content, path="/v1/completions"):
    response = client.post(path, content=content, headers=JSON)
    error = response.json()["error"]
    assert (response.status_code, error["type"]) == (400, "invalid_request_error"), response.text
    return error["message"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"prompt": [[5]] * 129}, "prompt=129: a request has at most 128 answers"),
        ({"top_k": 2**63}, "top_k=9223372036854775808: not a whole number"),
        ({"stop": "x" * 1001}, "longer than 1000 characters"),
        ({"best_of": True}, "best_of=True: t3d serve does not have it"),
        ({"frequency_penalty": False}, "frequency_penalty=False: t3d serve does not have it"),
        ({"stream": True, "stream_options": {"include_usage": "no"}}, "stream_options="),
        (ECHO | {"n": 128, "prompt": [5] * 500}, "the answer would repeat 1344000 tokens and log-prob"),
    ],
    ids=str,
)
def test_values_past_what_a_server_can_do_are_refused(client, fields, said):
    assert said in refused(client, json.dumps(DRAWN | fields).encode())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"prompt": "a", "max_tokens": ' + b"9" * 4300 + b"}", "max_tokens='999"),
        (b'{"prompt": "a", "temperature": ' + b"9" * 4300 + b"}", "temperature='999"),
        (b'{"prompt": "a", "\\ud800": 1}', "\\ud800=1: not a field of this endpoint"),
        (b'{"prompt": "a", "' + b"b" * 4000 + b'": 1}', "b" * 80 + "=1: not a field"),
    ],
    ids=["whole", "number", "surrogate", "long"],
)
def test_bodies_that_no_client_sends_are_refused_by_name(client, content, said):
    assert said in refused(client, content)


def test_a_special_tokens_name_beside_all_private_characters_is_refused_at_once(client, llm):
    said = "".join(map(chr, range(0xE000, 0xF8FF))) + str(llm.tokenizer.eos_token)
    chat = {"messages": [{"role": "user", "content": said}], "max_tokens": 4}
    assert "private area" in refused(client, json.dumps(chat).encode(), "/v1/chat/completions")


def test_the_smallest_top_p_keeps_one_token_and_the_largest_top_k_all(client, llm):
    for asked, same in (({"top_p": 1e-300}, {"top_k": 1}), ({"top_k": 2**63 - 1}, {})):
        response = client.post("/v1/completions", json=DRAWN | asked)
        (expected,) = generated(llm, max_new_tokens=14, temperature=1.0, seed=3, **same)
        assert response.json()["choices"][0]["text"] == expected.text


def test_a_mask_in_a_repeated_prompt_has_a_log_probability_that_json_can_say(client, llm):
    body = {"prompt": [5, llm.loaded.mask_token_id, 6], "max_tokens": 0, "echo": True, "logprobs": 2}
    (choice,) = client.post("/v1/completions", json=body).json()["choices"]
    assert choice["logprobs"]["token_logprobs"][1] == -9999
    assert choice["logprobs"]["token_logprobs"][2] > -9999


@pytest.mark.parametrize(
    ("listens", "named", "status"),
    [
        ("127.0.0.1", "127.0.0.1:8000", 200),
        ("127.0.0.1", "localhost", 200),
        ("127.0.0.1", "[::1]:8000", 200),
        ("127.0.0.1", "elsewhere.example:8000", 403),
        ("127.0.0.1", "127.0.0.1.elsewhere.example", 403),
        ("::1", "elsewhere.example", 403),
        ("localhost", "elsewhere.example", 403),
        ("127.0.0.1", "[", 403),
        ("0.0.0.0", "elsewhere.example", 200),
    ],
)
def test_a_page_that_calls_this_machine_by_another_name_is_refused(llm, listens, named, status):
    """Unless the server listens to others, or asks for a key, which the page does not know."""
    with client_of(app_of(llm, host=listens)) as client:
        response = client.get("/v1/models", headers={"host": named})
        assert response.status_code == status
        assert status == 200 or response.json()["error"]["code"] == "host_not_allowed"
    with client_of(app_of(llm, host=listens, api_key="k")) as client:
        how = {"host": named, "authorization": "bearer  k"}
        assert client.get("/v1/models", headers=how).status_code == 200


def test_prompts_are_read_no_further_when_the_client_has_left_and_hold_up_nobody(llm, monkeypatch):
    app, seconds = app_of(llm), 0.05
    monkeypatch.setattr(likelihood, "POSITIONS", 4)
    forwards, real = [], likelihood._logits

    def slow(*given):
        forwards.append(1)
        time.sleep(seconds)
        return real(*given)

    async def scenario():
        async with running(app):
            left = [asyncio.create_task(ask(app, ECHO, leaves_after=0)) for _ in range(40)]
            await asyncio.gather(*left)
            await settled(app)
            answered = await asyncio.wait_for(ask(app, DRAWN), 10)
            await asyncio.sleep(10 * seconds)
            return answered

    monkeypatch.setattr(likelihood, "_logits", slow)
    answered = asyncio.run(scenario())
    assert answered[0]["status"] == 200
    assert len(forwards) <= 2, "of a thousand"


def test_a_body_that_does_not_come_is_waited_for_in_vain_only_so_long(llm, monkeypatch):
    monkeypatch.setattr(importlib.import_module("t3d.serving.body"), "READ_LIMIT_S", 0.05)
    app, sent = app_of(llm), []
    parts = iter([{"type": "http.request", "body": b"{", "more_body": True}])

    async def receive():
        for part in parts:
            return part
        return await asyncio.sleep(60)

    async def send(message):
        sent.append(message)

    async def scenario():
        headers = [(b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/v1/completions", "query_string": b""}
        async with running(app):
            await app(scope | {"headers": headers}, receive, send)
            await settled(app)

    asyncio.run(scenario())
    assert sent[0]["status"] == 408
    assert "not there within 0.05 seconds" in json.loads(sent[1]["body"])["error"]["message"]


@pytest.mark.parametrize(("how", "status"), [("leaves", 499), ("is late", 504), ("is cancelled", 503)])
@pytest.mark.parametrize("streams", [False, True])
def test_metrics_tell_how_a_request_ended_and_its_client_too(llm, how, status, streams):
    """In the middle of a stream as before an answer; cancelled: by a server that stops."""
    app = app_of(llm, time_limit_s=0.15 if how == "is late" else 600)
    hook = llm.loaded.model.register_forward_hook(lambda *_: time.sleep(0.02))
    leaves_after = {False: 0, True: 3}[streams] if how == "leaves" else None

    async def scenario():
        async with running(app):
            asked = asyncio.create_task(ask(app, LONG | {"stream": streams}, leaves_after=leaves_after))
            if how == "is cancelled":
                await asyncio.sleep(0.2)
                asked.cancel()
            return await asked, await settled(app)

    try:
        sent, text = asyncio.run(scenario())
    finally:
        hook.remove()
    assert f't3d_requests_total{{endpoint="completions",status="{status}"}} 1.0' in text
    if how != "leaves":
        error = json.loads(sent[-1]["body"].decode().removeprefix("data: "))["error"]
        assert (sent[0]["status"], error["type"]) == (200 if streams else status, "server_error")
        assert not sent[-1].get("more_body")


def test_drafts_that_nobody_takes_are_left_out_and_blocks_are_not():
    worker = importlib.import_module("t3d.serving.worker")
    how = {"id": "a", "response_start": 0, "token_ids": (), "num_visible": 0}
    draft, block = (BlockUpdate(**how, is_committed=is_committed) for is_committed in (False, True))
    queue = asyncio.Queue()
    for _ in range(2000):
        worker._put(queue, draft)
    for _ in range(100):
        worker._put(queue, block)
    assert queue.qsize() == worker.MAX_WAITING + 100


def test_an_error_of_ours_in_the_engine_is_one_of_its_requests_and_not_its_end(llm, monkeypatch, capsys):
    app, texts = app_of(llm), importlib.import_module("t3d.decoding.texts")

    def broken(*_):
        raise RuntimeError("Already mutably borrowed")

    async def scenario():
        async with running(app):
            with monkeypatch.context() as patched:
                patched.setattr(texts, "with_text", broken)
                failed = await asyncio.gather(*(ask(app, DRAWN) for _ in range(5)))
            return failed, await ask(app, DRAWN), await settled(app)

    failed, answered, _ = asyncio.run(scenario())
    for sent in failed:
        assert sent[0]["status"] == 500
        assert json.loads(sent[1]["body"])["error"]["message"] == "the engine failed: RuntimeError"
    assert answered[0]["status"] == 200
    assert "Already mutably borrowed" in capsys.readouterr().err
