"""Log-probabilities of a given text are those with which ``left_to_right`` draws it."""

import pytest

from t3d.decoding import likelihood
from t3d.decoding.llm import LLM
from t3d.decoding.params import DecodeParams


@pytest.fixture(scope="module")
def llm(checkpoint):
    return LLM(checkpoint, device="cpu", dtype="float64")


@pytest.mark.parametrize("context", ["block", "causal"])
@pytest.mark.parametrize("positions", [256, 8])
def test_a_text_is_as_likely_as_left_to_right_drew_it(llm, monkeypatch, context, positions):
    """In one forward, and in several of which each asks for two blocks; the prompt ends inside a block."""
    monkeypatch.setattr(likelihood, "POSITIONS", positions)
    params = DecodeParams(remasking="left_to_right", temperature=1.0, max_new_tokens=19, context=context)
    (drawn,) = llm.generate([[5, 6, 7, 8, 9]], params, progress=False)
    ids = drawn.prompt_ids + drawn.response_ids
    known = likelihood.token_logprobs(llm.loaded, ids, params, num_top=3)
    assert len(known) == len(ids) - 1
    assert [one.logprob for one in known[4:]] == pytest.approx(drawn.logprobs, abs=1e-5)
    for one in known:
        values = [value for _, value in one.top]
        assert len(values) == 3 and values == sorted(values, reverse=True)
        assert one.logprob <= values[0]


def test_the_first_token_has_none(llm):
    assert likelihood.token_logprobs(llm.loaded, [5], DecodeParams()) == []
