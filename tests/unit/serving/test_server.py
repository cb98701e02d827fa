"""A server's answers are those of ``LLM.generate``, in OpenAI's form."""

import asyncio
import json
import time

import pytest
from serving_helpers import (
    PROMPT,
    app_of,
    ask,
    client_of,
    events_of,
    generated,
    needs_server,
    running,
    settled,
)

from t3d.decoding.likelihood import token_logprobs
from t3d.decoding.llm import LLM
from t3d.decoding.params import DecodeParams
from t3d.problems.prompts import token_ids, token_text

pytestmark = needs_server

SAMPLED = {"temperature": 1.0, "seed": 3}
ASKED = {"prompt": PROMPT, "max_tokens": 14, **SAMPLED}
LONG = {"prompt": [5, 6], "max_tokens": 120, "block_size": 1, "temperature": 1.0, "seed": 4}
CHAT = [{"role": "user", "content": PROMPT}]


@pytest.fixture(scope="module")
def llm(checkpoint):
    return LLM(checkpoint, device="cpu", dtype="float64", max_batch_size=3)


@pytest.fixture(scope="module")
def client(llm):
    with client_of(app_of(llm, max_body_bytes=4096, max_choices=4)) as client:
        yield client


def completed(client, **fields):
    response = client.post("/v1/completions", json=ASKED | fields)
    assert response.status_code == 200, response.text
    return response.json()


# --- answers ------------------------------------------------------------------------------------------


def test_a_completion_is_that_of_the_model(client, llm):
    (expected,) = generated(llm, max_new_tokens=14, **SAMPLED)
    told = completed(client, model="tiny", return_step_map=True)
    (choice,) = told["choices"]
    assert (choice["text"], choice["finish_reason"]) == (expected.text, expected.finish_reason)
    assert choice["token_ids"] == list(expected.visible_ids)
    assert choice["step_map"] == list(expected.step_map[: expected.visible_length])
    assert told["usage"] == {
        "prompt_tokens": len(expected.prompt_ids),
        "completion_tokens": expected.visible_length,
        "total_tokens": len(expected.prompt_ids) + expected.visible_length,
        "num_forwards": expected.num_forwards,
    }
    assert (told["object"], told["model"], told["seed"]) == ("text_completion", "tiny", 3)


def test_a_chat_goes_through_the_template(client, llm):
    (expected,) = generated(llm, CHAT, max_new_tokens=14, **SAMPLED)
    parts = [{"role": "user", "content": [{"type": "text", "text": PROMPT}]}]
    for messages in (CHAT, parts):
        body = {"messages": messages, "max_completion_tokens": 14, "logprobs": True, **SAMPLED}
        told = client.post("/v1/chat/completions", json=body).json()
        (choice,) = told["choices"]
        assert choice["message"] == {"role": "assistant", "content": expected.text, "refusal": None}
        values = [one["logprob"] for one in choice["logprobs"]["content"]]
        assert values == pytest.approx(expected.logprobs[: expected.visible_length])


def test_the_settings_of_a_request_are_those_of_decoding(client, llm):
    fields = {"block_size": 8, "strategy": "low_confidence_dynamic", "confidence_threshold": 0.3}
    ours = {"block_size": 8, "remasking": fields["strategy"], "confidence_threshold": 0.3}
    (expected,) = generated(
        llm, max_new_tokens=14, steps_per_block=2, top_k=5, top_p=0.9, temperature=0.7, seed=1, **ours
    )
    further = {"tokens_per_step": 4, "top_k": 5, "top_p": 0.9, "temperature": 0.7, "seed": 1}
    assert completed(client, **fields, **further)["choices"][0]["text"] == expected.text


def test_token_ids_and_several_prompts_n_times_each(client, llm):
    """In the order of the prompts, drawn as by one call of the model with the same ``n``."""
    prompts = [token_ids(llm.tokenizer, PROMPT), [5, 6, 7]]
    expected = llm.generate(prompts, DecodeParams(max_new_tokens=6, n=2, **SAMPLED), progress=False)
    told = completed(client, prompt=prompts, n=2, max_tokens=6)
    assert [choice["index"] for choice in told["choices"]] == [0, 1, 2, 3]
    assert [choice["text"] for choice in told["choices"]] == [one.text for one in expected]
    assert told["usage"]["prompt_tokens"] == len(prompts[0]) + 3


def test_without_a_seed_answers_differ_and_name_theirs(client):
    body = {"prompt": PROMPT, "max_tokens": 14, "temperature": 1.0}
    first, second = (client.post("/v1/completions", json=body).json() for _ in range(2))
    assert first["seed"] != second["seed"]
    assert first["choices"][0]["text"] != second["choices"][0]["text"]
    assert completed(client, seed=first["seed"])["choices"] == first["choices"]


def test_a_stop_text_ends_an_answer_before_it(client, llm):
    (expected,) = generated(llm, max_new_tokens=40, **SAMPLED)
    stop = expected.text[9:12]
    told = completed(client, stop=["never said", stop], max_tokens=40, return_step_map=True)
    (choice,) = told["choices"]
    assert choice["text"] == expected.text.partition(stop)[0]
    assert choice["finish_reason"] == "stop"
    kept = choice["token_ids"]
    assert kept == list(expected.visible_ids[: len(kept)]) and len(kept) == len(choice["step_map"])
    assert stop in token_text(llm.tokenizer, kept) and stop not in token_text(llm.tokenizer, kept[:-1])


@pytest.mark.parametrize("with_stop", [False, True])
def test_streamed_pieces_join_to_the_whole(client, llm, with_stop):
    (expected,) = generated(llm, max_new_tokens=30, **SAMPLED)
    fields = {"max_tokens": 30, "stop": expected.text[9:12] if with_stop else None, "n": 2}
    details = {"logprobs": 1, "return_step_map": True}
    whole = completed(client, **fields, **details)
    options = {"stream": True, "stream_options": {"include_usage": True}}
    *chunks, last = events_of(client.post("/v1/completions", json=ASKED | fields | details | options))
    assert (last["choices"], last["usage"]) == ([], whole["usage"])
    assert len(chunks) >= (2 if with_stop else 10)
    for choice in whole["choices"]:
        own = [one for chunk in chunks for one in chunk["choices"] if one["index"] == choice["index"]]
        assert "".join(one["text"] for one in own) == choice["text"]
        for name in ("token_ids", "step_map"):
            assert [value for one in own for value in one[name]] == choice[name]
        told = [value for one in own for value in one["logprobs"]["token_logprobs"]]
        assert told == choice["logprobs"]["token_logprobs"]
        assert [one["finish_reason"] for one in own] == [None] * (len(own) - 1) + [choice["finish_reason"]]


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"n": 2, "logprobs": True, "return_step_map": True},
        {"block_size": 8, "strategy": "low_confidence_dynamic", "confidence_threshold": 0.02},
        {"strategy": "self_speculative"},
        {"tokens_per_step": 4},
    ],
    ids=str,
)
def test_drafts_come_between_the_pieces_of_a_stream_and_change_none(client, path, how):
    is_chat = path.startswith("/v1/chat")
    details = how | ({} if is_chat or "logprobs" not in how else {"logprobs": 1})
    body = {"messages": CHAT} if is_chat else {"prompt": PROMPT}
    body |= {"stream": True, "stream_options": {"include_usage": True}, "max_tokens": 14} | SAMPLED | details
    plain = events_of(client.post(path, json=body))
    chunks = events_of(client.post(path, json=body | {"return_drafts": True}))
    for chunk in [*plain, *chunks]:
        del chunk["id"], chunk["created"]
    is_draft = ["draft" in one for chunk in chunks for one in chunk["choices"]]
    assert any(is_draft) == (how != {"tokens_per_step": 4})
    kept = [chunk for chunk in chunks if not any("draft" in one for one in chunk["choices"])]
    by_index = [
        [[c for c in told if c["choices"][0]["index"] == n] for n in range(how.get("n", 1))]
        for told in (plain[:-1], kept[:-1])
    ]
    assert by_index[0] == by_index[1] and plain[-1] == kept[-1]
    for chunk in (chunk for chunk in chunks if chunk not in kept):
        (one,) = chunk["choices"]
        assert (one["delta"] == {} if is_chat else one["text"] == "") and one["finish_reason"] is None
        assert ("step_map" in one["draft"]) == ("return_step_map" in how)
        assert ("tokens" in one["draft"]) == ("logprobs" in how)


@pytest.mark.parametrize("seed", [3, 5, 8])
def test_a_draft_only_unmasks_towards_the_block_that_follows(client, llm, seed):
    """Its decided tokens are those of the answer; so are its characters, where no token is masked before."""
    how = {"max_tokens": 27, "block_size": 8, "seed": seed, "return_step_map": True}
    (whole,) = completed(client, **how)["choices"]
    options = {"stream": True, "return_drafts": True}
    chunks = events_of(client.post("/v1/completions", json=ASKED | how | options))
    told, num_told, num_drafts, previous = "", 0, 0, None
    for (one,) in (chunk["choices"] for chunk in chunks):
        if "draft" not in one:
            told, num_told, previous = told + one["text"], num_told + len(one["token_ids"]), None
            continue
        draft, num_drafts = one["draft"], num_drafts + 1
        assert draft["start"] == num_told
        own = [*whole["token_ids"][num_told:], *[None] * 8][: len(draft["token_ids"])]
        steps = [*whole["step_map"][num_told:], *[None] * 8][: len(draft["token_ids"])]
        for token, step, right, right_step in zip(
            draft["token_ids"], draft["step_map"], own, steps, strict=True
        ):
            assert (token, step) in ((None, None), (right, right_step))
        assert draft["text"].count("░") == draft["token_ids"].count(None)
        assert whole["text"].startswith((told + draft["text"].partition("░")[0]).rstrip("\ufffd"))
        if previous is not None:
            assert draft["token_ids"].count(None) <= previous.count(None)
        previous = draft["token_ids"]
    assert told == whole["text"] and num_drafts >= 7


def test_a_streamed_chat_begins_with_the_role(client, llm):
    (expected,) = generated(llm, CHAT, max_new_tokens=14, **SAMPLED)
    body = {"messages": CHAT, "max_tokens": 14, "stream": True, **SAMPLED}
    first, *chunks = events_of(client.post("/v1/chat/completions", json=body))
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(one["choices"][0]["delta"].get("content", "") for one in chunks) == expected.text


def test_echo_with_logprobs_is_what_lm_eval_reads(client, llm):
    """The request of lm-eval's ``local-completions`` for a log-likelihood, and how it reads the answer."""
    ids = token_ids(llm.tokenizer, PROMPT)
    body = {"prompt": [ids], "temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": True}
    (choice,) = client.post("/v1/completions", json=body).json()["choices"]
    known = token_logprobs(llm.loaded, ids, llm.default_params, 1)
    told = choice["logprobs"]
    assert {len(values) for values in told.values()} == {len(ids) + 1}
    assert told["token_logprobs"][0] is None and told["top_logprobs"][0] is None
    assert told["token_logprobs"][1:-1] == [one.logprob for one in known]
    assert [max(top.values()) for top in told["top_logprobs"][1:-1]] == [one.top[0][1] for one in known]
    assert choice["text"].startswith(PROMPT)
    nothing_new = client.post("/v1/completions", json=body | {"max_tokens": 0}).json()["choices"][0]
    assert nothing_new["text"] == PROMPT
    assert nothing_new["logprobs"]["token_logprobs"] == told["token_logprobs"][:-1]


def test_models_health_and_metrics(client):
    (model,) = client.get("/v1/models").json()["data"]
    assert (model["id"], model["max_model_len"]) == ("tiny", 128)
    assert client.get("/v1/models/tiny").json() == model
    assert client.get("/v1/models/other").json()["error"]["code"] == "model_not_found"
    assert client.get("/health").json() == {"status": "ok"}
    completed(client)
    text = client.get("/metrics").text
    assert 't3d_requests_total{endpoint="completions",status="200"}' in text
    assert "t3d_open_requests 0.0" in text and "t3d_open_choices 0.0" in text
    assert "t3d_first_block_seconds_count" in text and 't3d_forwards_total{model="tiny"}' in text


def test_two_models_answer_by_their_names_each_as_alone(checkpoint, llm):
    """Also at the same time; who names none gets the first, and forwards are counted for each."""
    other = LLM(checkpoint, device="cpu", dtype="float64", max_batch_size=2, max_model_len=64)
    app = app_of(llm, others={"teacher": other})
    asked = [ASKED | {"model": ("tiny", "teacher")[number % 2], "seed": number} for number in range(8)]

    async def scenario():
        async with running(app):
            return await asyncio.gather(*(ask(app, body) for body in asked))

    for body, sent in zip(asked, asyncio.run(scenario()), strict=True):
        answer = json.loads(sent[1]["body"])
        model = {"tiny": llm, "teacher": other}[body["model"]]
        (expected,) = generated(model, max_new_tokens=14, temperature=1.0, seed=body["seed"])
        assert (answer["model"], answer["choices"][0]["text"]) == (body["model"], expected.text)
        assert answer["usage"]["num_forwards"] == expected.num_forwards
    with client_of(app_of(llm, others={"teacher": other})) as client:
        told = client.get("/v1/models").json()["data"]
        assert [(m["id"], m["max_model_len"]) for m in told] == [("tiny", 128), ("teacher", 64)]
        assert completed(client)["model"] == "tiny"
        before = other.stats.forwards
        forwards = completed(client, model="teacher")["usage"]["num_forwards"]
        assert f't3d_forwards_total{{model="teacher"}} {before + forwards}.0' in client.get("/metrics").text
        refused = client.post("/v1/completions", json=ASKED | {"model": "other"}).json()["error"]
        assert refused["message"] == "this server has 'tiny' and 'teacher', not 'other'"


# --- refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"prompt": ""}, "prompt", "empty"),
        ({"prompt": [[1, 99999]]}, "prompt", "not a token id"),
        ({"prompt": [1.5]}, "prompt", "not a text or a list"),
        ({"prompt": "\ud800"}, "prompt", "not a text or a list"),
        ({"max_tokens": 500}, "max_tokens", "lower max_tokens"),
        ({"max_tokens": 0}, "max_tokens", "below 1"),
        ({"max_completion_tokens": 3}, "max_tokens", "is another"),
        ({"temperature": -1}, "temperature", "not a number of 0 or more"),
        ({"strategy": "best"}, "strategy", "use|give one of"),
        ({"tokens_per_step": 3}, "tokens_per_step", "does not divide"),
        ({"confidence_threshold": 0.5}, "confidence_threshold", "add strategy='low_confidence_dynamic'"),
        ({"strategy": "left_to_right", "entropy_bound": 0.5}, "entropy_bound", "add strategy='entropy_bou"),
        ({"n": 5}, "n", "not from 1 to 4"),
        ({"stop": [""]}, "stop", "an empty one"),
        ({"logprobs": 21}, "logprobs", "not from 0 to 20"),
        ({"frequency_penalty": 0.5}, "frequency_penalty", "does not have it"),
        ({"heat": 1}, "heat", "not a field of this endpoint"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "stream=true"),
        ({"return_drafts": True}, "return_drafts", "add stream=true"),
        ({"return_drafts": "yes", "stream": True}, "return_drafts", "not true or false|not bool"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_refused_with_field_value_and_fix(client, fields, param, said):
    response = client.post("/v1/completions", content=json.dumps(ASKED | fields).encode(), headers=JSON)
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert any(part in error["message"] for part in said.split("|")) and "Fix: " in error["message"]


JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"{", JSON, 400),
        (b"[" * 4000, JSON, 400),
        (b'{"prompt": "a", "temperature": NaN}', JSON, 400),
        (b"\xff\xfe", JSON, 400),
        (b"[]", JSON, 400),
        (b"1" * 4000, JSON, 400),
        (b'"' + b"x" * 5000 + b'"', JSON, 413),
        (b"{}", {"content-type": "text/plain"}, 415),
    ],
    ids=lambda value: str(value)[:20],
)
def test_bodies_that_are_none(client, content, headers, status):
    response = client.post("/v1/completions", content=content, headers=headers)
    assert response.status_code == status
    assert response.json()["error"]["message"]


def test_other_paths_methods_and_models_are_not_found(client):
    for response in (client.get("/v1/other"), client.get("/v1/completions")):
        assert response.status_code in (404, 405) and response.json()["error"]["message"]
    response = client.post("/v1/completions", json=ASKED | {"model": "other"})
    assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")


def test_fields_that_change_nothing_are_taken(client):
    neutral = {"frequency_penalty": 0, "logit_bias": {}, "tools": None, "user": "me", "suffix": None}
    assert completed(client, **neutral)["choices"] == completed(client)["choices"]


def test_the_key_is_asked_for_where_there_is_one(llm):
    with client_of(app_of(llm, api_key="secret")) as client:
        for headers in ({}, {"authorization": "Bearer other"}, {"authorization": "secret"}):
            for response in (
                client.post("/v1/completions", json=ASKED, headers=headers),
                client.get("/v1/models", headers=headers),
                client.get("/v1/models/tiny", headers=headers),
            ):
                assert response.status_code == 401
                assert response.json()["error"]["code"] == "invalid_api_key"
        right = {"authorization": "Bearer secret"}
        assert client.post("/v1/completions", json=ASKED, headers=right).status_code == 200
        assert client.get("/health").status_code == 200


# --- leaving, waiting, failing ------------------------------------------------------------------------


@pytest.mark.parametrize("leaves_after", [0, 3])
def test_a_client_that_leaves_frees_its_slot(llm, leaves_after):
    """Before anything came, or in the middle of a stream; the engine stops long before the answer's end."""
    app = app_of(llm)

    async def scenario():
        async with running(app):
            body = LONG | {"stream": leaves_after > 0, "n": 6}
            sent = await ask(app, body, leaves_after=leaves_after)
            assert len(sent) < 60
            await settled(app)
            return await ask(app, ASKED)

    sent = asyncio.run(scenario())
    (expected,) = generated(llm, max_new_tokens=14, **SAMPLED)
    assert json.loads(sent[1]["body"])["choices"][0]["text"] == expected.text


def test_an_answer_that_repeats_much_holds_up_nobody(llm):
    """A quarter of a million names of tokens with their log-probabilities are written beside the loop."""
    app = app_of(llm)
    body = {"prompt": [5] * 100, "n": 128, "max_tokens": 0, "echo": True, "logprobs": 20}

    async def scenario():
        async with running(app):
            asked, longest, last = asyncio.create_task(ask(app, body)), 0.0, time.perf_counter()
            while not asked.done():
                await asyncio.sleep(0.001)
                now = time.perf_counter()
                longest, last = max(longest, now - last), now
            return asked.result(), longest

    sent, longest = asyncio.run(scenario())
    assert len(json.loads(sent[1]["body"])["choices"]) == 128
    assert longest < 1


def test_too_many_requests_are_told_to_come_back(llm):
    app = app_of(llm, max_requests=1)

    async def scenario():
        async with running(app):
            first = asyncio.create_task(ask(app, LONG))
            await asyncio.sleep(0)
            second = await ask(app, ASKED)
            return await first, second

    first, second = asyncio.run(scenario())
    assert (first[0]["status"], second[0]["status"]) == (200, 429)


@pytest.mark.parametrize("streams", [False, True])
def test_a_request_past_its_time_ends_with_an_error(llm, streams, monkeypatch):
    hook = llm.loaded.model.register_forward_hook(lambda *_: time.sleep(0.02))
    app = app_of(llm, time_limit_s=0.15)

    async def scenario():
        async with running(app):
            sent = await ask(app, LONG | {"stream": streams})
            await settled(app)
            return sent

    try:
        sent = asyncio.run(scenario())
    finally:
        hook.remove()
    error = json.loads(sent[-1]["body"].decode().removeprefix("data: "))["error"]
    assert (sent[0]["status"], error["code"]) == (200 if streams else 504, "timeout")


def test_a_failed_forward_is_an_error_of_its_requests_alone(llm):
    app = app_of(llm)

    async def scenario():
        async with running(app):
            hook = llm.loaded.model.register_forward_pre_hook(lambda *_: 1 / 0)
            failed = await ask(app, ASKED)
            hook.remove()
            return failed, await ask(app, ASKED)

    failed, answered = asyncio.run(scenario())
    assert (failed[0]["status"], answered[0]["status"]) == (500, 200)
    assert "ZeroDivisionError" in json.loads(failed[1]["body"])["error"]["message"]


def test_a_stopping_server_ends_what_is_open(llm):
    app = app_of(llm)

    async def scenario():
        async with running(app):
            open_one = asyncio.create_task(ask(app, LONG))
            await asyncio.sleep(0.05)
        return await open_one

    sent = asyncio.run(scenario())
    assert sent[0]["status"] == 500


def test_a_front_page_is_shown_without_the_key_and_only_where_there_is_one(llm):
    for page, status in (("<!doctype html>", 200), (None, 404)):
        with client_of(app_of(llm, page, api_key="secret")) as client:
            assert client.get("/").status_code == status
            assert client.get("/v1/models").status_code == 401
