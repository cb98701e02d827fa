"""Which workers are left out: those that differ from what the driver tells, or from the first like it."""

import pytest

from t3d.scale import alike
from t3d.scale.alike import Alike
from t3d.scale.worker import Hello
from t3d.work.plan import full_plan

OWN = full_plan({})["versions"]
MODEL = {"weights": "a" * 64, "tokenizer": "b" * 64}


@pytest.fixture(autouse=True)
def host(monkeypatch):
    monkeypatch.setattr(alike.socket, "gethostname", lambda: "driver")


def hello(host="one", versions=(), model=(), **other):
    plan = {"versions": OWN | dict(versions), "model": MODEL | {"dtype": "float32"} | dict(model), **other}
    return Hello(host, plan, [1], [])


def told_of(model):
    found = Alike(lambda: {"model": model})
    found.ask()
    return found


@pytest.mark.parametrize(
    ("odd", "text"),
    [
        ({"model": {"weights": "c" * 64}}, "differ between driver and two: model.weights was aaaaaaaaaaaa"),
        ({"model": {"tokenizer": "c" * 64}}, "differ between driver and two: model.tokenizer was bbbb"),
        ({"versions": {"t3d": "0"}}, "differ between driver and two: versions.t3d was "),
        ({"versions": {"transformers": "0"}}, "differ between driver and two: versions.transformers was "),
    ],
)
def test_the_driver_says_which_worker_is_odd_though_it_is_ready_first(odd, text):
    workers = told_of(MODEL)
    assert text in workers.refusal(hello("two", **odd))
    assert workers.first is None
    assert not workers.refusal(first := hello())
    assert workers.first is first and text in workers.refusal(hello("two", **odd))


def test_what_the_driver_cannot_tell_is_as_the_first_worker_has_it():
    """Its torch may be a build for CPUs, and it has no prompts that fit and no device."""
    workers = told_of(MODEL)
    assert not workers.refusal(hello(versions={"torch": "1+cu"}, prompts=3))
    text = "differ between one and two: prompts was 3, now 4; versions.torch was 1+cu, now 1+cpu"
    assert workers.refusal(hello("two", {"torch": "1+cpu"}, prompts=4)) == text
    assert not workers.refusal(hello("two", {"torch": "1+cu"}, prompts=3))


def test_a_plan_that_lacks_what_the_driver_tells_is_another_one():
    assert "model.drafter was d, now not given" in told_of(MODEL | {"drafter": "d"}).refusal(hello("two"))


def test_without_a_word_of_the_driver_the_first_worker_says_all():
    workers = Alike(None)
    workers.ask()
    assert not workers.refusal(hello(versions={"t3d": "0"}))
    assert "versions.t3d was 0" in workers.refusal(hello("two"))
