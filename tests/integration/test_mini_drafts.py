"""On real weights and problems, too, drafts change forwards only, wherever rounding decides nothing."""

import dataclasses

import pytest
from model_fixtures import exact

from t3d.decoding.llm import LLM
from t3d.decoding.params import DecodeParams
from t3d.decoding.posed_requests import decode_requests
from t3d.models.loading import load_model
from t3d.tasks.mini.suite import TASKS

PROBLEMS = 8
"""Of each task."""


@pytest.fixture(scope="module")
def mini():
    """The bundled teacher in float64, norms included."""
    loaded = load_model("mini", device="cpu", dtype="float64")
    exact(loaded.model)
    return loaded


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.0, 0.1])
def test_drafts_give_the_text_of_the_mini_suite_without_them(mini, temperature):
    llm = LLM(mini)
    problems = [problem for task in TASKS.values() for problem in task.problems("test", PROBLEMS, 0)]
    requests = decode_requests(mini.tokenizer, problems)
    plain = DecodeParams(block_size=8, remasking="left_to_right", temperature=temperature, max_new_tokens=56)
    expected = llm.decode(requests, plain)
    for groups in ("last", "all", "auto"):
        drafting = dataclasses.replace(plain, remasking="self_speculative", draft_groups=groups)
        done = llm.decode(requests, drafting)
        assert [one.response_ids for one in done] == [one.response_ids for one in expected]
        assert [one.text for one in done] == [one.text for one in expected]
        for ours, theirs in zip(done, expected, strict=True):
            assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-9)
        num_forwards, num_tokens = (
            sum(one.num_forwards for one in done),
            sum(len(one.response_ids) for one in done),
        )
        assert num_tokens > 2 * num_forwards, "drafts of this teacher are often right"
