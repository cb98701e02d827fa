"""The page of t3d serve at ``/`` in headless Chromium, spoken to by a real server."""

import importlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from browser_helpers import PHONE, assert_readable, expect, keep
from serving_helpers import generated, needs_server

from t3d.decoding.llm import LLM
from t3d.decoding.runner import ModelRunner
from t3d.report.playground.page import playground_page

pytestmark = [pytest.mark.slow, needs_server]
NAME = "</script><b>tiny"


@pytest.fixture(scope="module")
def llm() -> LLM:
    return LLM("mini", device="cpu", max_batch_size=2)


@contextmanager
def served(llms: dict[str, LLM]) -> Iterator[str]:
    """The address of a server with a key."""
    uvicorn = importlib.import_module("uvicorn")
    make_app = importlib.import_module("t3d.serving.app").make_app
    config = importlib.import_module("t3d.serving.settings").ServeConfig(api_key="secret")
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        app = make_app(llms, config, playground_page(list(llms)))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started:
            time.sleep(0.05)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def address(llm) -> Iterator[str]:
    with served({NAME: llm}) as told:
        yield told


QUESTION = "Gus has 9 nuts, first drops 4. How many now?"


def ask(tab, **fields: str) -> None:
    for name, value in {"prompt": QUESTION, "key": "secret", "speed": "60", **fields}.items():
        tab.fill(".budget" if name == "tokens_per_step" else f"#{name}", value)
    tab.click("#ask")


def test_an_answer_is_streamed_and_its_tokens_are_unmasked_by_their_steps(open_served, address, llm):
    tab = open_served(address)
    assert tab.title() == f"{NAME} · t3d serve" and tab.inner_text("h1") == NAME
    ask(tab, block_size="4", tokens_per_step="2", temperature="0")
    expect(tab.locator(".status")).to_contain_text("forwards")
    expect(tab.locator(".token.masked")).to_have_count(0)
    (whole,) = generated(
        llm,
        prompt=[{"role": "user", "content": QUESTION}],
        max_new_tokens=128,
        block_size=4,
        steps_per_block=2,
        temperature=0.0,
    )
    assert tab.text_content(".answer") == whole.text
    shown = [
        int(one) for one in tab.eval_on_selector_all(".token", "all => all.map((one) => one.dataset.step)")
    ]
    assert shown == list(whole.step_map[: len(shown)]) and len(shown) >= 20
    assert tab.inner_text(".status") == (
        f"step {max(shown)} · {len(shown)} tokens · {whole.num_forwards} forwards"
    )
    assert tab.is_enabled("#ask") and tab.is_disabled("#stop")
    keep(tab, "playground")


def test_the_steps_of_a_block_are_shown_while_it_is_decoded(open_served, address, monkeypatch):
    """The engine stands still after three forwards of a block of eleven steps."""
    run, forwards = ModelRunner.run, threading.Semaphore(3)
    monkeypatch.setattr(ModelRunner, "run", lambda *args: forwards.acquire() and run(*args))
    tab = open_served(address)
    try:
        ask(tab, block_size="32", max_tokens="11", temperature="0")
        expect(tab.locator(".token.masked")).to_have_count(8)
        assert sorted(tab.locator(".token:not(.masked)").all_inner_texts()) == [" Then", ".", "First"]
        assert tab.inner_text(".status") == "step 3 · 3 tokens"
        assert tab.text_content(".answer") == ""
        keep(tab, "playground-live")
    finally:
        forwards.release(1000)
    expect(tab.locator(".status")).to_contain_text("11 tokens · 11 forwards")
    expect(tab.locator(".token.masked")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_the_contrast_of_aa_on_a_phone(open_served, address, scheme):
    tab = open_served(address, size=PHONE, scheme=scheme)
    ask(tab, max_tokens="16")
    expect(tab.locator(".status")).to_contain_text("forwards")
    expect(tab.locator(".token.masked")).to_have_count(0)
    assert_readable(tab)
    keep(tab, f"playground-phone-{scheme}")


def test_a_refusal_is_said_and_the_next_question_is_answered(browser, address):
    """The browser's console names the status 401, which is no fault of the page."""
    tab = browser.new_page()
    tab.goto(address)
    ask(tab, key="wrong")
    expect(tab.locator(".status")).to_contain_text("API key")
    assert "wrong" in tab.get_attribute(".status", "class")
    assert_readable(tab)
    ask(tab, max_tokens="8")
    expect(tab.locator(".status")).to_contain_text("forwards")
    tab.close()


def test_stop_ends_an_answer(open_served, address, monkeypatch):
    """One that takes seconds: what is finished cannot be stopped."""
    run = ModelRunner.run
    monkeypatch.setattr(ModelRunner, "run", lambda *args: time.sleep(0.5) or run(*args))
    tab = open_served(address)
    ask(tab, max_tokens="200")
    tab.click("#stop")
    expect(tab.locator("#ask")).to_be_enabled()
    expect(tab.locator("#stop")).to_be_disabled()


def test_two_models_answer_side_by_side_with_their_forwards_counted(open_served, llm):
    """Each with its own tokens per step."""
    asked = {"prompt": [{"role": "user", "content": QUESTION}], "max_new_tokens": 128, "temperature": 0.0}
    with served({NAME: llm, "teacher": LLM("mini", device="cpu", max_batch_size=2)}) as address:
        tab = open_served(address)
        for index, budget in enumerate(("4", "1")):
            tab.locator(".budget").nth(index).fill(budget)
        ask(tab, block_size="4", temperature="0")
        expect(tab.locator(".token.masked")).to_have_count(0)
        for index, (name, steps) in enumerate(((NAME, 1), ("teacher", 4))):
            pane = tab.locator(".pane").nth(index)
            (whole,) = generated(llm, **asked, block_size=4, steps_per_block=steps)
            assert pane.locator("h2").inner_text() == name
            expect(pane.locator(".status")).to_contain_text(f"{whole.num_forwards} forwards")
            assert pane.locator(".answer").text_content() == whole.text
            assert pane.locator(".token").count() == whole.visible_length  # no draft from behind its end
        left, right = (tab.locator(".pane").nth(index).bounding_box() for index in (0, 1))
        assert left["y"] == right["y"] and left["x"] + left["width"] <= right["x"]
        assert_readable(tab)
        keep(tab, "playground-two")
