"""Whoever shares a model decodes every call of the one that leads, to its end, and ends it alike."""

from dataclasses import dataclass, field

import pytest
import torch
from failing_helpers import fail_at
from model_fixtures import load_copy

from t3d.decoding.completion import DecodingError
from t3d.decoding.engine import Engine
from t3d.decoding.followed import Call, Outcome, lead
from t3d.decoding.jobs import Arrivals
from t3d.decoding.llm import LLM
from t3d.decoding.params import DecodeParams
from t3d.errors import InputError
from t3d.models.sdar import SDARForCausalLM

PROMPTS = ["how many apples are left now?", "so the answer is 7", "now?"]
PARAMS = DecodeParams(temperature=1.0, steps_per_block=2, max_new_tokens=11)


@dataclass
class OneFollower:
    """Decodes what it is told by a model of its own, when the one that leads has."""

    model: SDARForCausalLM
    told: list[Call] = field(default_factory=list)
    led: list[Outcome] = field(default_factory=list)
    own: list[Outcome] = field(default_factory=list)

    def tell(self, what: Call, /) -> None:
        self.told.append(what)

    def agree(self, outcome: Outcome, /) -> None:
        self.led.append(outcome)
        self.own.append(self.told[-1].outcome(self.model))


@pytest.fixture
def llm(checkpoint):
    return LLM(load_copy(checkpoint), max_batch_size=2)


@pytest.fixture
def follower(llm, checkpoint):
    """One of the model above."""
    follower = OneFollower(load_copy(checkpoint).model)
    lead(llm.loaded.model, follower)
    return follower


@pytest.fixture
def engines(monkeypatch):
    """What every engine that is made from here on has done, by the model that it decodes."""
    made, init = {}, Engine.__init__

    def kept(self, model, **how):
        init(self, model, **how)
        made[model] = self.stats

    monkeypatch.setattr(Engine, "__init__", kept)
    return made


def test_followers_do_not_change_what_is_decoded_and_decode_as_much(checkpoint, engines, llm, follower):
    alone = LLM(load_copy(checkpoint), max_batch_size=2).generate(PROMPTS, PARAMS, progress=False)
    assert llm.generate(PROMPTS, PARAMS, progress=False) == alone
    assert follower.own == follower.led
    assert [outcome.error for outcome in follower.led] == [""]
    own, others = engines[llm.loaded.model], engines[follower.model]
    assert own.forwards == others.forwards > 0
    assert own.query_tokens == others.query_tokens


def test_whoever_leads_decodes_to_the_end_what_others_decode_whatever_is_raised(engines, llm, follower):
    def interrupt(_completion):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        llm.decode(llm.requests(PROMPTS), PARAMS, on_finish=interrupt)
    assert follower.own == follower.led
    assert engines[llm.loaded.model].forwards == engines[follower.model].forwards


def test_an_error_of_a_forward_is_one_outcome_for_all(monkeypatch, llm, follower):
    fail_at(monkeypatch, "1")
    with pytest.raises(DecodingError):
        llm.generate(PROMPTS, PARAMS, progress=False)
    assert follower.own == follower.led
    assert follower.led[0].error.startswith("RuntimeError at [")


def test_what_is_raised_first_is_told_also_where_a_forward_fails_behind_it(monkeypatch, llm, follower):
    def fail(completion):
        fail_at(monkeypatch, "1" if completion.id == "2" else "2")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        llm.decode(llm.requests(PROMPTS), PARAMS, on_finish=fail)
    assert follower.led[0].error.startswith("RuntimeError at [")


def test_processes_that_decode_something_else_do_not_agree(llm, follower):
    with torch.no_grad():
        follower.model.get_input_embeddings().weight.mul_(-1)
    llm.generate(PROMPTS, PARAMS, progress=False)
    (own,), (led,) = follower.own, follower.led
    assert own.error == led.error == "" and own != led


def test_graphs_are_refused_where_others_follow(llm, follower):
    eager = LLM(llm.loaded, enforce_eager=False)
    with pytest.raises(InputError, match="enforce_eager=False: processes that share a model"):
        eager.generate(PROMPTS, PARAMS, progress=False)
    assert follower.told == []


def test_a_prompt_that_is_refused_ends_no_call(llm, follower):
    done = llm.generate([*PROMPTS, []], PARAMS, progress=False, on_error="return")
    assert [completion.finish_reason == "error" for completion in done] == [False, False, False, True]
    assert follower.own == follower.led


def test_what_nobody_follows_is_refused_and_waits_for_none(llm, follower):
    for stream in (lambda: llm.stream(PROMPTS, PARAMS), lambda: llm.serve(Arrivals())):
        with pytest.raises(InputError, match=r"other processes share it.*Fix: use LLM.decode"):
            stream()
    assert follower.told == []
