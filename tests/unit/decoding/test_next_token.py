"""Autoregressive models as they are: decoded as transformers would, with drafts that change forwards only."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from t3d.decoding import sequences
from t3d.decoding.completion import DecodeRequest
from t3d.decoding.drafting import Drafting
from t3d.decoding.engine import Engine, EngineConfig
from t3d.decoding.jobs import Job
from t3d.decoding.params import DRAFT_TOKENS, DecodeParams
from t3d.decoding.self_speculation import most_masks, num_to_draft, scratch_of_params
from t3d.decoding.specification import decode_as_specified, decode_left_to_right
from t3d.errors import InputError

MASK, VOCAB = 37, 40
OF_NEXT = {"predicts": "next", "block_size": 1, "context": "causal"}
SAMPLINGS = [{"temperature": 0.0}, {"temperature": 1.0}, {"temperature": 0.7, "top_p": 0.8, "top_k": 9}]
COMMON = (13, 17, 34)


@st.composite
def cases(draw, max_size=4):
    """Prompts and plain fields, several at once."""
    token = st.integers(0, VOCAB - 1)
    found = []
    for _ in range(draw(st.integers(1, max_size))):
        fields = {
            "remasking": draw(st.sampled_from(["left_to_right", "self_speculative", "self_speculative"])),
            "max_new_tokens": draw(st.integers(1, 12)),
            "seed": draw(st.integers(0, 99)),
            "draft_groups": draw(st.sampled_from(["last", "all"])),
            "max_draft_tokens": draw(st.sampled_from([0, 1, 2, 5])),
        }
        fields |= draw(st.sampled_from(SAMPLINGS)) | OF_NEXT
        found.append((draw(st.lists(token, min_size=1, max_size=9)), fields))
    return found


def job_of(number, prompt, fields, **other):
    request = DecodeRequest(id=f"request/{number}", prompt_ids=tuple(prompt))
    return Job(request, DecodeParams(**(fields | other)))


def specified(model, job, stops=(), **how):
    decode = decode_left_to_right if how else decode_as_specified
    return decode(model, job.request, job.params, mask_token_id=MASK, stop_token_ids=stops, **how)


def engine_of(model, stops=(), **config):
    return Engine(model, mask_token_id=MASK, stop_token_ids=stops, config=EngineConfig(**config))


@torch.no_grad()
def greedily(model, prompt, count):
    """Plain greedy decoding by the model's own causal forward: what transformers does."""
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return tuple(ids[len(prompt) :])


def test_greedy_decoding_is_that_of_a_causal_model_and_may_say_the_placeholder(exact_model):
    """No token is excluded: what stands where a draft is made is one that the model may say."""
    said = set()
    for prompt in ([1], [5, 9, 2], [7, 7, 30, 12, 1, 0, 3]):
        job = job_of(0, prompt, OF_NEXT, remasking="left_to_right", temperature=0.0, max_new_tokens=12)
        theirs = greedily(exact_model, prompt, 12)
        assert specified(exact_model, job).response_ids == theirs
        assert engine_of(exact_model).decode([job])["request/0"].response_ids == theirs
        said |= set(theirs)
    placeholder = said.pop()
    engine = Engine(exact_model, mask_token_id=placeholder, stop_token_ids=())
    assert engine.decode([job])["request/0"].response_ids == theirs


@pytest.mark.many_inputs
@settings(max_examples=6)
@given(cases(), st.randoms(use_true_random=False))
def test_drafts_of_anybody_change_nothing_but_forwards(exact_model, found, random):
    """The true continuation, the same with one wrong token at each place, and random tokens."""
    prompt, fields = found[0]
    drafting = job_of(0, prompt, fields, remasking="self_speculative")
    truth = specified(exact_model, job_of(0, prompt, fields, remasking="left_to_right"))
    true = dict(enumerate([*prompt, *truth.response_ids]))
    size = fields["max_draft_tokens"] or DRAFT_TOKENS
    wrongs = [true | {place: (true[place] + 1) % VOCAB} for place in range(len(prompt), len(true))]
    for draft in (true, *wrongs, {place: random.randrange(VOCAB) for place in true}):
        ours = specified(exact_model, drafting, draft_of=draft.get)
        assert ours.response_ids == truth.response_ids
        assert ours.logprobs == pytest.approx(truth.logprobs, abs=1e-9)
        if draft is true:
            assert ours.num_forwards == -(-len(ours.response_ids) // (size + 1))
            assert ours.num_accepted == ours.num_drafted
        assert ours.num_forwards + ours.num_accepted == len(ours.response_ids)


@pytest.mark.many_inputs
@pytest.mark.parametrize("attention", [0.03, 0.2, 1.0])
@settings(max_examples=8)
@given(
    found=cases(),
    stops=st.sampled_from([(), COMMON]),
    batch_size=st.integers(1, 4),
    budget=st.integers(1, 9),
    fuse=st.booleans(),
    fixed=st.booleans(),
)
def test_the_engine_equals_the_specification(
    exact_model_with, attention, found, stops, batch_size, budget, fuse, fixed
):
    """Ragged prompts in pieces, slots that are handed on, own drafts that are right always, at times, never;
    a commit is never a forward of its own, since it is what is drawn from."""
    model = exact_model_with(attention)
    jobs = [job_of(number, *case) for number, case in enumerate(found)]
    config = {"max_batch_size": batch_size, "max_prefill_tokens": budget, "fixed_shapes": fixed}
    done = engine_of(model, stops, fuse_commits=fuse, **config).decode(jobs)
    for job in jobs:
        theirs, ours = specified(model, job, stops), done[job.request.id]
        assert ours == theirs
        assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-9)


@settings(max_examples=6)
@given(cases(max_size=3))
def test_a_mixture_of_experts_equals_the_specification(exact_moe_model, found):
    jobs = [job_of(number, *case) for number, case in enumerate(found)]
    done = engine_of(exact_moe_model, COMMON, max_batch_size=2).decode(jobs)
    assert all(done[job.request.id] == specified(exact_moe_model, job, COMMON) for job in jobs)


@settings(max_examples=10)
@given(found=cases(), batch_size=st.integers(1, 4), cost=st.sampled_from([1, 30, 10**6]))
def test_drafts_where_they_pay_change_no_token(exact_model_with, found, batch_size, cost):
    model = exact_model_with(0.2)
    auto = [job_of(number, *case, draft_groups="auto") for number, case in enumerate(found)]
    done = engine_of(model, COMMON, max_batch_size=batch_size, forward_cost=cost).decode(auto)
    for job in auto:
        plain = Job(job.request, dataclasses.replace(job.params, remasking="left_to_right"))
        assert done[job.request.id].response_ids == specified(model, plain, COMMON).response_ids


@pytest.mark.parametrize("draft_groups", ["last", "all"])
def test_forced_drafts_in_the_engine_side_by_side(exact_model, monkeypatch, draft_groups):
    """Right ones, wrong ones, and right up to each place, in one batch: tokens of one at a time."""
    fields = OF_NEXT | {"temperature": 0.0, "max_new_tokens": 11, "draft_groups": draft_groups}
    prompt = [3, 1, 4]
    true = dict(enumerate([*prompt, *greedily(exact_model, prompt, 11)]))
    drafts = {"right": true, "wrong": {place: (token + 1) % VOCAB for place, token in true.items()}}
    drafts |= {f"at {place}": true | {place: (true[place] + 1) % VOCAB} for place in range(3, 14)}

    class Forced(Drafting):
        forced: dict

        @classmethod
        def of_request(cls, request, params):
            own = super().of_request(request, params)
            Forced.forced[id(own)] = drafts[request.id]
            own.force()
            return own

        def commit(self, *drawn):
            result = super().commit(*drawn)
            self.force()
            return result

        def force(self):
            size = num_to_draft(self.num_tokens, self.end, self.params)
            own = Forced.forced[id(self)]
            self.propose([own[self.num_tokens + place] for place in range(size)], [1.0] * size)

    Forced.forced = {}
    monkeypatch.setattr(sequences, "Drafting", Forced)
    params = DecodeParams(remasking="self_speculative", **fields)
    jobs = [Job(DecodeRequest(id=name, prompt_ids=tuple(prompt)), params) for name in drafts]
    done = engine_of(exact_model, max_batch_size=4).decode(jobs)
    for name in drafts:
        assert dict(enumerate([*prompt, *done[name].response_ids])) == true
    assert (done["right"].num_forwards, done["right"].num_accepted) == (3, 8)
    assert (done["wrong"].num_forwards, done["wrong"].num_accepted) == (11, 0)


def test_more_drafts_than_a_response_may_have_tokens_read_no_further_masks(exact_model):
    fields = OF_NEXT | {"remasking": "self_speculative", "max_new_tokens": 5, "draft_groups": "all"}
    job = job_of(0, [3, 1, 4], fields, max_draft_tokens=10**6)
    assert most_masks(job.params) == 6 * 5
    assert engine_of(exact_model).decode([job])["request/0"] == specified(exact_model, job)
    many = dataclasses.replace(job.params, max_draft_tokens=5)
    assert (
        specified(exact_model, Job(job.request, many)).response_ids
        == specified(exact_model, job).response_ids
    )


def test_a_group_drafts_behind_the_draw_from_its_first_mask_on():
    """Masks at n + j, ..., of which each gives the token behind it; none checks."""
    params = DecodeParams(remasking="self_speculative", max_draft_tokens=3, **OF_NEXT)
    scratch = scratch_of_params(0, 2, (0, 2), params)
    assert scratch.source_Q.tolist() == [0, 1, -1, -1, -1, -1, -1, -1]
    assert scratch.offset_Q.tolist() == [0, 1, 0, 1, 2, 2, 3, 4]
    assert scratch.place_M.tolist() == [-1, 0, 1, 2, 3, 4, 5, 6, 7]
    assert scratch.drawn_offset_M.tolist() == [0, 1, 2, 1, 2, 3, 3, 4, 5]
    assert scratch.drafts == {0: slice(3, 6), 2: slice(6, 9)}
    sees = scratch.sees_QQ
    assert sees[:2, :2].tolist() == [[True, False], [True, True]]  # the draft, causally
    assert sees[2:5].tolist() == [[False, False, True, True, True, False, False, False]] * 3
    assert sees[5:].tolist() == [[True, True, False, False, False, True, True, True]] * 3
    assert most_masks(params) == 3 and scratch.first_drafting == 2
    assert most_masks(dataclasses.replace(params, draft_groups="all")) == 4 * 3


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("block_size", {"block_size": 4}),
        ("remasking", {"remasking": "random", "steps_per_block": 1}),
        ("context", {"context": "block"}),
    ],
)
def test_other_ways_to_decode_such_a_model_are_refused(field, fields):
    with pytest.raises(InputError) as refused:
        DecodeParams(**({"remasking": "left_to_right"} | OF_NEXT | fields))
    assert refused.value.field == field
