"""``t3d serve`` as a process, and many streams at once."""

import asyncio
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
from importlib.util import find_spec

import pytest
from serving_helpers import PROMPT, app_of, ask, needs_server, running

from t3d.cli.main import main
from t3d.decoding.llm import LLM
from t3d.decoding.params import DecodeParams
from t3d.decoding.turns import turns_of

pytestmark = needs_server


@pytest.fixture
def server(checkpoint, tmp_path):
    """A running process and its address."""
    flags = ["--model", str(checkpoint), "--port", "0", "--device", "cpu", "--model-name", "tiny"]
    process = subprocess.Popen(
        [sys.executable, "-m", "t3d", "serve", *flags, "--dtype", "float64"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "T3D_API_KEY": "secret"},
    )
    assert process.stderr is not None
    line = next(line for line in process.stderr if line.startswith("serving "))
    yield process, line.split()[-1]
    process.kill()
    process.communicate()


@pytest.mark.slow
@pytest.mark.skipif(find_spec("openai") is None, reason="pip install openai")
def test_the_openai_client_gets_the_answers_of_the_model(server, checkpoint):
    """Whole and streamed, a refusal and a wrong key; SIGTERM ends the process as it ends other commands."""
    openai = importlib.import_module("openai")
    process, address = server
    assert address.startswith("http://127.0.0.1:")
    llm = LLM(checkpoint, device="cpu", dtype="float64")
    with openai.OpenAI(base_url=address, api_key="secret") as client:
        ask_like_a_client(client, llm, openai)
    with (
        openai.OpenAI(base_url=address, api_key="wrong") as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.models.list()
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 143


def ask_like_a_client(client, llm, openai):
    chat, params = [{"role": "user", "content": PROMPT}], DecodeParams(temperature=1.0, max_new_tokens=20)
    (expected,) = llm.generate([chat], params, progress=False)
    asked = {"model": "tiny", "messages": chat, "temperature": 1.0, "seed": 0, "max_completion_tokens": 20}
    told = client.chat.completions.create(**asked, extra_body={"return_step_map": True})
    assert told.choices[0].message.content == expected.text
    assert told.choices[0].step_map == list(expected.step_map[: expected.visible_length])
    stream = client.chat.completions.create(**asked, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == expected.text
    further = {"return_drafts": True}
    choices = [
        chunk.choices[0] for chunk in client.chat.completions.create(**asked, stream=True, extra_body=further)
    ]
    assert "".join(choice.delta.content or "" for choice in choices) == expected.text
    assert any("░" in choice.draft["text"] for choice in choices if "draft" in choice.model_extra)
    (text,) = llm.generate([PROMPT], params, progress=False)
    plain = {"model": "tiny", "prompt": PROMPT, "temperature": 1.0, "seed": 0, "max_tokens": 20}
    assert client.completions.create(**plain).choices[0].text == text.text
    assert [model.id for model in client.models.list()] == [client.models.retrieve("tiny").id] == ["tiny"]
    with pytest.raises(openai.BadRequestError, match="Fix: "):
        client.chat.completions.create(**asked, extra_body={"tokens_per_step": 3})


@pytest.mark.slow
def test_fifty_streams_at_once_are_exact_whoever_leaves(checkpoint):
    """Of different settings and lengths through eight slots, some with drafts; every fifth client leaves."""
    llm = LLM(checkpoint, device="cpu", dtype="float64", max_batch_size=8)
    app = app_of(llm)
    bodies = [
        {
            "prompt": [5 + number, 6, 7],
            "max_tokens": 10 + number % 17,
            "temperature": (0.0, 1.0)[number % 2],
            "seed": number,
            "block_size": (2, 4, 8)[number % 3],
            "stream": True,
            "return_drafts": number % 4 == 1,
        }
        for number in range(50)
    ]

    async def scenario():
        async with running(app):
            leaves = [2 + number % 3 if number % 5 == 0 else None for number in range(50)]
            return await asyncio.gather(
                *(ask(app, body, leaves_after=after) for body, after in zip(bodies, leaves, strict=True))
            )

    for number, sent in enumerate(asyncio.run(scenario())):
        if number % 5 == 0:
            continue
        events = b"".join(message["body"] for message in sent[1:]).decode().split("\n\n")
        assert events[-2] == "data: [DONE]"
        text = "".join(json.loads(event[6:])["choices"][0]["text"] for event in events[:-2])
        body = bodies[number]
        params = DecodeParams(
            block_size=body["block_size"],
            steps_per_block=body["block_size"],
            temperature=body["temperature"],
            seed=number,
            max_new_tokens=body["max_tokens"],
        )
        (expected,) = llm.generate([body["prompt"]], params, progress=False)
        assert text == expected.text


def test_an_address_that_cannot_be_had_is_named(checkpoint, capsys):
    assert main(["serve", "--model", str(checkpoint), "--device", "cpu", "--host", "192.0.2.1"]) == 2
    text = capsys.readouterr().err
    assert "host='192.0.2.1'" in text and "Fix: give another --host or --port" in text


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--teacher", "mini", "--teacher-name", "a", "--model-name", "a"], "also the name of the model"),
        (["--teacher-name", "a"], "without --teacher"),
    ],
)
def test_names_of_models_that_cannot_be_told_apart_are_refused(checkpoint, capsys, flags, said):
    assert main(["serve", "--model", str(checkpoint), "--device", "cpu", *flags]) == 2
    text = capsys.readouterr().err
    assert "teacher_name='a'" in text and said in text


def test_a_teacher_is_served_beside_its_student(checkpoint, monkeypatch):
    """Under its own name, on the same device, and with forwards in turn with the student's."""
    served = {}
    monkeypatch.setattr("t3d.serving.server.run_server", lambda llms, config, page: served.update(llms))
    flags = ["--model-name", "student", "--teacher", "mini", "--device", "cpu", "--max-model-len", "64"]
    assert main(["serve", "--model", str(checkpoint), *flags]) == 0
    student, teacher = served["student"], served["mini"]
    assert list(served) == ["student", "mini"] and teacher.max_model_len == 64
    assert teacher.loaded.model is not student.loaded.model
    assert turns_of(teacher.loaded.model) is turns_of(student.loaded.model)


def test_who_connects_as_soon_as_the_address_is_told_is_not_refused(checkpoint, monkeypatch, capsys):
    """Though uvicorn listens later, when the application has started."""
    connected = []

    def run(self, sockets):
        port = int(capsys.readouterr().err.rpartition(":")[2].partition("/")[0])
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            connected.append(port)

    monkeypatch.setattr("uvicorn.Server.run", run)
    assert main(["serve", "--model", str(checkpoint), "--device", "cpu", "--port", "0"]) == 0
    assert len(connected) == 1


def test_the_time_of_a_request_is_also_that_of_a_connection_on_which_nothing_moves(checkpoint, monkeypatch):
    limits = []
    monkeypatch.setattr("uvicorn.Server.run", lambda self, sockets: limits.append(self.config.http.limit_s))
    flags = ["--device", "cpu", "--port", "0", "--time-limit-s", "7"]
    assert main(["serve", "--model", str(checkpoint), *flags]) == 0
    assert limits == [7.0]


def test_without_its_packages_the_extra_is_named(checkpoint, monkeypatch, capsys):
    for name in [name for name in sys.modules if name.startswith("t3d.serving.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve", "--model", str(checkpoint)]) == 2
    assert "Fix: run pip install t3d[serve]" in capsys.readouterr().err
