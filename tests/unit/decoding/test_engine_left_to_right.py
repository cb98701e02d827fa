"""The engine decodes left to right as the specification does: same tokens, same forwards, in any company."""

import dataclasses

import pytest
import torch
from drafting_helpers import (
    COMMON,
    MASK,
    VOCAB,
    Forced,
    fields_of_any_strategy,
    fields_of_next,
    jobs_of,
    mixed_cases,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from slot_helpers import extend

from t3d.attention.slots import SlotCache
from t3d.decoding import drafting, scheduling, sequences
from t3d.decoding.completion import DecodeRequest, completions_of
from t3d.decoding.engine import Engine, EngineConfig
from t3d.decoding.jobs import Job
from t3d.decoding.origins import origins
from t3d.decoding.params import DecodeParams
from t3d.decoding.self_speculation import num_to_draft
from t3d.decoding.specification import decode_as_specified, decode_left_to_right

OF_SELF = fields_of_any_strategy(strategies=["self_speculative"], fewest=5, most=11)
FORCED = [OF_SELF, OF_SELF, fields_of_next(fewest=5, most=11)]


def specified(model, job, stops=()):
    return decode_as_specified(model, job.request, job.params, mask_token_id=MASK, stop_token_ids=stops)


def engine_of(model, stops=(), **config):
    return Engine(model, mask_token_id=MASK, stop_token_ids=stops, config=EngineConfig(**config))


def check_equal(model, jobs, stops, **config):
    """Token for token, step for step, forward for forward; log-probabilities up to rounding."""
    done = engine_of(model, stops, **config).decode(jobs)
    for job, ours in zip(jobs, completions_of([job.request for job in jobs], done), strict=True):
        theirs = specified(model, job, stops)
        assert dataclasses.replace(ours, num_commit_forwards=0) == theirs
        assert ours.num_commit_forwards == 0 or config.get("fuse_commits") is False
        assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-9)


# --- equality with the specification ------------------------------------------------------------------


@pytest.mark.many_inputs
@pytest.mark.parametrize("attention", [0.03, 0.2, 1.0])
@settings(max_examples=8)
@given(
    mixed_cases(),
    st.sampled_from([(), COMMON]),
    st.integers(1, 4),
    st.integers(1, 9),
    st.booleans(),
    st.booleans(),
)
def test_the_engine_equals_the_specification(
    exact_model_with, attention, cases, stops, batch_size, budget, fuse, fixed
):
    """Any mix of strategies, ragged prompts, slots that are handed on, prompts in pieces; drafts of which
    nearly all, some or next to none are right."""
    sizes = {"max_batch_size": batch_size, "max_prefill_tokens": budget}
    model = exact_model_with(attention)
    check_equal(model, jobs_of(cases), stops, fuse_commits=fuse, fixed_shapes=fixed, **sizes)


@settings(max_examples=5)
@given(mixed_cases(max_size=4), st.integers(1, 3))
def test_a_mixture_of_experts_equals_the_specification(exact_moe_model, cases, batch_size):
    check_equal(exact_moe_model, jobs_of(cases), COMMON, max_batch_size=batch_size)


def drafts_of_anybody(prompt, response, params, random):
    """The true continuation, the same with one wrong token at each place (the last of a block among them),
    wrong ones, none, some of each length, and tokens of any kind; behind a stop token, the mask."""
    known = [*prompt, *response]
    true = dict.fromkeys(range(len(prompt) + params.max_new_tokens), MASK) | dict(enumerate(known))
    drafts = {
        "right": true,
        "wrong": {place: (token + 1) % VOCAB for place, token in true.items()},
        "none": {},
        "some": {place: token for place, token in true.items() if random.randrange(3)},
        "any": {place: random.randrange(VOCAB) for place in true},
    }
    wrongs = {place: true | {place: (true[place] + 1) % VOCAB} for place in range(len(prompt), len(known))}
    return drafts | {f"wrong at {place}": draft for place, draft in wrongs.items()}


@settings(max_examples=8)
@given(
    case=mixed_cases(max_size=1, kinds=FORCED),
    stops=st.sampled_from([(), COMMON]),
    batch_size=st.integers(1, 5),
    fuse=st.booleans(),
    random=st.randoms(use_true_random=False),
)
def test_forced_drafts_change_nothing_but_forwards(exact_model, case, stops, batch_size, fuse, random):
    """Of requests side by side that share a noise key: tokens, log-probabilities and the end are those
    without drafts, in which forwards is what the specification makes of the same drafts."""
    ((prompt, fields),) = case
    request = DecodeRequest(id="", prompt_ids=tuple(prompt), noise_id="one")
    params = DecodeParams(**fields | {"remasking": "self_speculative"})
    plain = dataclasses.replace(params, remasking="left_to_right")
    truth = specified(exact_model, Job(request, plain), stops)
    drafts = drafts_of_anybody(prompt, truth.response_ids, params, random)
    jobs = [Job(dataclasses.replace(request, id=name), params) for name in drafts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Forced, "drafts_of", drafts)
        patch.setattr(sequences, "Drafting", Forced)
        engine = engine_of(exact_model, stops, max_batch_size=batch_size, fuse_commits=fuse)
        done = engine.decode(jobs)
    for name, draft in drafts.items():
        ours = done[name]
        assert (ours.response_ids, ours.finish_reason) == (truth.response_ids, truth.finish_reason)
        assert ours.logprobs == pytest.approx(truth.logprobs, abs=1e-9)
        if name not in ("none", "some"):
            how = {"mask_token_id": MASK, "stop_token_ids": stops, "draft_of": draft.get}
            theirs = decode_left_to_right(exact_model, dataclasses.replace(request, id=name), params, **how)
            assert ours.step_map == theirs.step_map and ours.num_denoising_steps == theirs.num_forwards
            assert (ours.num_drafted, ours.num_accepted) == (theirs.num_drafted, theirs.num_accepted)
    right, end = done["right"], len(prompt) + params.max_new_tokens
    if truth.finish_reason == "length":
        assert right.num_accepted == right.num_drafted
        assert right.num_drafted > 0 or num_to_draft(len(prompt), end, params) == 0
    for name in ("wrong", "none"):
        assert done[name].num_accepted == 0
        assert done[name].step_map == tuple(range(1, len(truth.response_ids) + 1))
    assert done["none"].num_drafted == 0


@pytest.mark.parametrize("attention", [0.2, 1.0])
@settings(max_examples=8)
@given(cases=mixed_cases(max_size=4))
def test_drafts_where_they_pay_equal_the_specification_of_a_request_alone(exact_model_with, attention, cases):
    """``draft_groups="auto"`` goes by the rows of a forward: here one, as in the specification."""
    jobs = [job for job in jobs_of(cases) if job.params.remasking == "self_speculative"]
    jobs = [Job(job.request, dataclasses.replace(job.params, draft_groups="auto")) for job in jobs]
    check_equal(exact_model_with(attention), jobs, COMMON, max_batch_size=1)


@settings(max_examples=15)
@given(
    cases=mixed_cases(),
    batch_size=st.integers(1, 4),
    cost=st.sampled_from([1, 30, 10**6]),
    chances=st.randoms(use_true_random=False),
)
def test_drafts_where_they_pay_change_no_token(exact_model_with, cases, batch_size, cost, chances):
    """In any company, whatever a forward costs and however sure the model was, right or not."""
    model, choose = exact_model_with(0.2), drafting.chosen_drafts

    def choose_by_chance(n, end, params, draft, known, *rest):
        return choose(n, end, params, draft, [chances.random() for _ in known], *rest)

    jobs = jobs_of(cases)
    auto = [Job(job.request, dataclasses.replace(job.params, draft_groups="auto")) for job in jobs]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drafting, "chosen_drafts", choose_by_chance)
        done = engine_of(model, COMMON, max_batch_size=batch_size, forward_cost=cost).decode(auto)
    plain = engine_of(model, COMMON).decode(jobs)
    for job in jobs:
        ours, theirs = done[job.request.id], plain[job.request.id]
        assert ours.response_ids == theirs.response_ids
        assert ours.num_forwards <= len(ours.response_ids) or not job.params.is_left_to_right


@pytest.mark.parametrize("remasking", ["left_to_right", "self_speculative"])
def test_keys_and_values_of_closed_blocks_equal_a_full_recompute(exact_model_with, remasking):
    """No key of an open token, a draft or a mask outlives its forward, in a slot that was taken over too."""
    model, caches = exact_model_with(0.2), []
    hook = model.register_forward_pre_hook(
        lambda _, __, kwargs: caches.append(kwargs["extend_plan"].cache), with_kwargs=True
    )
    jobs = [
        Job(
            DecodeRequest(id=str(length), prompt_ids=tuple(range(1, length + 1))),
            DecodeParams(remasking=remasking, temperature=1.0, max_new_tokens=3 * length),
        )
        for length in (1, 5, 7)
    ]
    *_, completion = engine_of(model, max_batch_size=2).decode(jobs).values()
    hook.remove()
    ids, fresh = [*completion.prompt_ids, *completion.response_ids], SlotCache(1, 32)
    last = completion.step_map.index(completion.num_forwards)
    closed = (7 + last) // 4 * 4
    extend(model, fresh, [(0, 0, ids[:closed])])
    assert completion.id == "7" and closed >= 20, "the longest ends alone, in slot 0"
    for layer in range(2):
        for ours, theirs in zip(
            *(cache.layer(layer, torch.empty(0)) for cache in (caches[-1], fresh)), strict=True
        ):
            torch.testing.assert_close(ours[0, :closed], theirs[0, :closed], atol=1e-9, rtol=0)


# --- what it tells ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("attention", [0.0, 1.0])
def test_streams_tell_blocks_as_they_close_and_forwards_as_they_run(exact_model_with, attention, size):
    """A forward that fills a block and begins the next tells the full one; the end tells what is left."""
    params = DecodeParams(remasking="self_speculative", block_size=size, temperature=1.0, max_new_tokens=10)
    jobs = [Job(DecodeRequest(id=str(n), prompt_ids=(1,) * n), params) for n in (1, 3, 4)]
    engine = engine_of(exact_model_with(attention), COMMON, max_batch_size=2)
    for detail in ("blocks", "steps"):
        updates = list(engine.stream([dataclasses.replace(job, detail=detail) for job in jobs]))
        for job in jobs:
            own = [update for update in updates if update.id == job.request.id]
            closed, completion = [update for update in own if update.is_committed], own[-1].completion
            assert sum((update.token_ids for update in closed), ()) == completion.response_ids
            length = len(job.request.prompt_ids)
            for update in closed[:-1]:
                assert (length + update.response_start + len(update.token_ids)) % size == 0
            if detail == "steps":
                assert len(own) == completion.num_forwards
            for update in own:
                known = [token for token in update.token_ids if token is not None]
                assert update.token_ids == (*known, *[None] * (len(update.token_ids) - len(known)))
                start = update.response_start
                assert tuple(known) == completion.response_ids[start : start + len(known)]


def test_a_run_that_accepts_every_draft_by_hand(exact_model_with):
    """Prompt of 3, blocks of 4, 9 tokens: position 3, then 4, then 5 6 7 | 8, then 9 10 11.

    Tokens read: 3 open and a check; 4 closed, a check and a group of 4; 1 open, 3 drafted, 4 copied, 4 checks
    and a group of 4; 1 open, 2 drafted, 3 checks, for the copy is the closed block. All of a scratch of Q
    tokens see what is closed.
    """
    params = DecodeParams(remasking="self_speculative", temperature=0.0, max_new_tokens=9)
    engine = engine_of(exact_model_with(0.0))
    done = engine.decode([Job(DecodeRequest(id="a", prompt_ids=(1, 2, 3)), params)])["a"]
    assert done.step_map == (1, 2, 3, 3, 3, 3, 4, 4, 4)
    assert (done.num_forwards, done.num_drafted, done.num_accepted) == (4, 5, 5)
    stats = engine.stats
    assert (stats.forwards, stats.row_steps, stats.row_commits, stats.blocks) == (4, 4, 0, 3)
    assert (stats.drafted_tokens, stats.accepted_tokens) == (5, 5)
    assert (stats.drafted_at, stats.accepted_at) == ([2, 2, 1], [2, 2, 1])
    assert stats.acceptance_by_offset == [1.0, 1.0, 1.0]
    assert stats.query_tokens == 4 + (4 + 5) + 16 + 6
    assert stats.logit_rows == 1 + (1 + 3) + (4 + 3) + 3
    assert stats.attended_pairs == (
        (1 + 2 + 3 + 4)
        + (16 + 5 * 4 + 1 + 16)
        + (16 * 4 + 10 + 16 + (2 + 3 + 4 + 5) + 4 * 8)
        + (6 * 8 + 6 + (2 + 3 + 4))
    )
    summary = stats.summary()
    assert (summary["tokens_per_step"], summary["tokens_per_forward"]) == (9 / 4, 9 / 4)
    assert (summary["acceptance"], summary["positions_per_token"]) == (1.0, 35 / 9)


@pytest.mark.parametrize("attention", [0.2, 1.0])
def test_counts_are_those_of_the_completions(exact_model_with, attention):
    params = DecodeParams(remasking="self_speculative", temperature=1.0, max_new_tokens=13)
    jobs = [Job(DecodeRequest(id=str(n), prompt_ids=(1,) * n), params) for n in (1, 3, 4, 9)]
    engine = engine_of(exact_model_with(attention), fuse_commits=False, max_batch_size=3)
    done, stats = engine.decode(jobs).values(), engine.stats
    assert stats.row_steps == sum(completion.num_denoising_steps for completion in done)
    assert stats.row_commits == sum(completion.num_commit_forwards for completion in done) > 0
    assert stats.drafted_tokens == sum(stats.drafted_at) == sum(one.num_drafted for one in done) > 0
    assert stats.accepted_tokens == sum(stats.accepted_at) == sum(one.num_accepted for one in done)
    assert stats.committed_tokens == stats.visible_tokens == 4 * 13


@pytest.mark.parametrize("groups", ["last", "all", "auto"])
def test_drafts_are_counted_alike_where_a_stop_or_the_limit_ends_a_response(exact_model_with, groups):
    """Those accepted behind a stop token are, too; their origins are not told, as the response lacks them."""
    num_beyond = 0
    for attention in (0.0, 0.2):
        for stop in range(0, VOCAB, 3):
            jobs = [
                Job(
                    DecodeRequest(id=str(n), prompt_ids=(1 + n,) * n),
                    DecodeParams(
                        remasking="self_speculative",
                        block_size=8,
                        draft_groups=groups,
                        temperature=(stop % 2) * 1.0,
                        max_new_tokens=6 + 4 * n,
                    ),
                )
                for n in (1, 3, 4)
            ]
            engine = engine_of(exact_model_with(attention), (stop,), max_batch_size=2)
            done, stats = engine.decode(jobs).values(), engine.stats
            assert stats.drafted_tokens == sum(stats.drafted_at) == sum(one.num_drafted for one in done)
            assert stats.accepted_tokens == sum(stats.accepted_at) == sum(one.num_accepted for one in done)
            for one in done:
                beyond = one.num_accepted - origins(one).count("accepted")
                assert beyond == 0 or (beyond > 0 and one.finish_reason == "stop")
                num_beyond += beyond
    assert num_beyond > 0 or groups == "auto"


@pytest.mark.parametrize(("size", "length", "new"), [(1, 3, 8), (4, 3, 6), (4, 4, 9)])
def test_every_block_is_counted_once(exact_model_with, monkeypatch, size, length, new):
    """Also where one forward finishes two: of blocks of one token, and of a response that ends in the first
    token of a block, drawn behind a draft that fills the block before."""
    model, request = exact_model_with(0.0), DecodeRequest(id="a", prompt_ids=(1,) * length)
    params = DecodeParams(remasking="self_speculative", block_size=size, temperature=0.0, max_new_tokens=new)
    truth = specified(model, Job(request, params))
    monkeypatch.setattr(Forced, "drafts_of", {"a": dict(enumerate((*(1,) * length, *truth.response_ids)))})
    monkeypatch.setattr(sequences, "Drafting", Forced)
    engine = engine_of(model)
    assert engine.decode([Job(request, params)])["a"].num_accepted > 0
    assert engine.stats.blocks == -(-(length + new) // size) - length // size


def test_a_token_is_worth_what_the_rows_of_its_forward_and_the_engine_s_cost_say(exact_model):
    params = DecodeParams(remasking="self_speculative", draft_groups="auto", block_size=4, max_new_tokens=8)
    requests = [DecodeRequest(id=str(number), prompt_ids=(1, 2, 3)) for number in range(3)]
    seen, value = [], scheduling.token_value
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scheduling, "token_value", lambda *given: seen.append(given) or value(*given))
        engine = engine_of(exact_model, COMMON, max_batch_size=2, forward_cost=77)
        engine.decode([Job(request, params) for request in requests])
    assert {cost for _, cost in seen} == {77} and seen[0][0] == 2
    assert seen[-1][0] == 1, "the third is alone at the end"
