"""The engine equals the specification, whatever the batch, and loses nothing."""

import dataclasses
import itertools
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from slot_helpers import extend

from t3d.attention.slots import SlotCache
from t3d.decoding.completion import DecodeRequest, DecodingError, completions_of
from t3d.decoding.engine import Engine, EngineConfig
from t3d.decoding.jobs import Job
from t3d.decoding.params import DecodeParams
from t3d.decoding.specification import decode_as_specified
from t3d.errors import InputError
from t3d.models import packed

MASK, VOCAB = 37, 40
STRATEGIES = ["low_confidence_static", "low_confidence_dynamic", "entropy_bounded", "sequential", "random"]
ADAPTIVE = ("low_confidence_dynamic", "entropy_bounded")
SAMPLINGS = [
    {"temperature": 0.0},
    {"temperature": 1.0},
    {"temperature": 1.0, "top_k": 5, "confidence": "sampled"},
    {"temperature": 0.7, "top_p": 0.8},
]
COMMON = (13, 17, 34)
"""Tokens that the tiny model says often: as stop ids they end responses early, at different places."""


def requests_of(prompt_lengths, seed=0):
    """One request per prompt length, with any token in the prompts, mask and stop ids included."""
    generator = torch.Generator().manual_seed(seed)
    prompts = [torch.randint(0, VOCAB, (length,), generator=generator).tolist() for length in prompt_lengths]
    return [
        DecodeRequest(id=f"request/{row}", prompt_ids=tuple(prompt)) for row, prompt in enumerate(prompts)
    ]


def run(model, requests, params, stops=(), **settings):
    """Completions in request order; raises as :func:`completions_of` for refusals."""
    done = engine_of(model, stops, **settings).decode([Job(request, params) for request in requests])
    return completions_of(requests, done)


def engine_of(model, stops=(), **settings):
    return Engine(model, mask_token_id=MASK, stop_token_ids=stops, config=EngineConfig(**settings))


def caches_of(model):
    """Record the slots of every forward."""
    caches = []

    def record(_, __, kwargs):
        caches.append(kwargs["extend_plan"].cache)

    return caches, model.register_forward_pre_hook(record, with_kwargs=True)


def run_reference(model, requests, params, stops=()):
    return [
        decode_as_specified(model, request, params, mask_token_id=MASK, stop_token_ids=stops)
        for request in requests
    ]


@st.composite
def cases(draw, max_requests=4):
    """Prompt lengths and plain fields of DecodeParams."""
    block_size = draw(st.sampled_from([1, 2, 4, 8]))
    fields = {
        "block_size": block_size,
        "steps_per_block": draw(st.integers(1, block_size)),
        "remasking": draw(st.sampled_from(STRATEGIES)),
        "confidence_threshold": draw(st.sampled_from([0.2, 0.3, 0.9])),
        "entropy_bound": draw(st.sampled_from([0.1, 1.0, 3.0])),
        "max_new_tokens": draw(st.integers(1, 2 * block_size + 3)),
        "seed": draw(st.integers(0, 99)),
    }
    lengths = st.lists(st.integers(1, 3 * block_size), min_size=1, max_size=max_requests)
    return draw(lengths), fields | draw(st.sampled_from(SAMPLINGS)), draw(st.sampled_from([(), COMMON]))


# --- equality with the specification ----------------------------------------------------------------


WAYS = {
    "fused": {},
    "separate commits": {"fuse_commits": False},
    "fixed shapes": {"fixed_shapes": True},
    "fixed shapes, separate commits": {"fixed_shapes": True, "fuse_commits": False},
}
"""Fixed shapes: the padded forwards that a GPU replays, run one by one."""


@pytest.mark.many_inputs
@settings(max_examples=20)
@given(cases(), st.integers(1, 4), st.integers(1, 9), st.randoms(use_true_random=False))
def test_every_way_to_run_the_engine_equals_the_reference(tiny_model, case, batch_size, budget, random):
    """Token for token, step for step, forward for forward: alone or in ragged batches, in any order."""
    lengths, fields, stops = case
    requests, params = requests_of(lengths, seed=fields["seed"]), DecodeParams(**fields)
    expected = dict(zip(requests, run_reference(tiny_model, requests, params, stops), strict=True))
    for name, way in WAYS.items():
        shuffled = random.sample(requests, len(requests))
        sizes = {"max_batch_size": batch_size, "max_prefill_tokens": budget}
        completions = run(tiny_model, shuffled, params, stops, **sizes, **way)
        fused = [dataclasses.replace(completion, num_commit_forwards=0) for completion in completions]
        assert fused == [expected[request] for request in shuffled], name
        assert completions == fused or "separate" in name


@pytest.mark.parametrize(
    ("block_size", "steps"),
    [
        *((1, 1), (4, 2), (8, 5)),
        *(
            pytest.param(*pair, marks=pytest.mark.many_inputs)
            for pair in ((2, 1), (2, 2), (4, 1), (4, 3), (4, 4), (8, 1), (8, 3), (8, 8))
        ),
    ],
)
@pytest.mark.parametrize("remasking", STRATEGIES)
def test_every_schedule_and_strategy_equals_the_reference(tiny_model, block_size, steps, remasking):
    """Greedy and sampled, for an aligned prompt and for one with a tail of one token."""
    requests = requests_of([block_size, 2 * block_size + 1])
    for temperature in (0.0, 1.0):
        params = DecodeParams(
            block_size=block_size,
            steps_per_block=steps,
            remasking=remasking,
            confidence_threshold=0.3,
            entropy_bound=2.0,
            temperature=temperature,
            max_new_tokens=block_size + 1,
        )
        assert run(tiny_model, requests, params, COMMON) == run_reference(
            tiny_model, requests, params, COMMON
        )


def test_rows_that_stop_at_different_blocks_equal_the_reference(tiny_model):
    """Rows leave the batch one by one; the others go on as if nothing had happened."""
    requests = requests_of([3, 4, 5, 6, 9, 1, 12, 2], seed=1)
    params = DecodeParams(temperature=1.0, max_new_tokens=24)
    completions = run(tiny_model, requests, params, (13,))
    assert len({len(completion.response_ids) // 4 for completion in completions}) >= 3
    assert {completion.finish_reason for completion in completions} == {"stop", "length"}
    assert completions == run_reference(tiny_model, requests, params, (13,))


@settings(max_examples=15)
@given(cases(), st.integers(1, 4))
def test_a_mixture_of_experts_equals_the_reference(tiny_moe_model, case, batch_size):
    lengths, fields, stops = case
    requests, params = requests_of(lengths, seed=fields["seed"]), DecodeParams(**fields)
    expected = run_reference(tiny_moe_model, requests, params, stops)
    assert run(tiny_moe_model, requests, params, stops, max_batch_size=batch_size) == expected


@pytest.mark.many_inputs
@pytest.mark.parametrize("position", range(8))
@pytest.mark.parametrize("prompt_length", [4, 6])
def test_a_stop_at_any_position_ends_with_its_whole_block(tiny_model, position, prompt_length):
    """What is decoded does not depend on the stop ids: the response is cut after the stop's block."""
    request = requests_of([prompt_length], seed=3)
    params = DecodeParams(temperature=1.0, max_new_tokens=12)
    endless = run(tiny_model, request, params)[0]
    stop = endless.response_ids[position]
    first = endless.response_ids.index(stop)
    completion = run(tiny_model, request, params, (stop,))[0]
    end = -(-(prompt_length + first + 1) // 4) * 4 - prompt_length
    assert completion.response_ids == endless.response_ids[:end]
    assert completion.step_map == endless.step_map[:end]
    assert completion.logprobs == pytest.approx(endless.logprobs[:end], abs=1e-6)
    assert (completion.visible_length, completion.finish_reason) == (first + 1, "stop")


def test_keys_and_values_of_committed_blocks_equal_a_full_recompute(tiny_model):
    """Of a row that shared its forwards with others and took over a slot."""
    params = [DecodeParams(temperature=1.0, max_new_tokens=count) for count in (6, 13, 22)]
    jobs = [Job(*pair) for pair in zip(requests_of([5, 1, 7]), params, strict=True)]
    caches, hook = caches_of(tiny_model)
    *_, completion = engine_of(tiny_model, max_batch_size=2).decode(jobs).values()
    hook.remove()
    assert completion.id == jobs[2].request.id, "the longest ends alone, in slot 0"
    cache, fresh = caches[-1], SlotCache(1, 32)
    ids = [*completion.prompt_ids, *completion.response_ids]
    committed = len(ids) - 4  # the terminal block is never committed
    extend(tiny_model, fresh, [(0, 0, ids[:committed])])
    for layer in range(2):
        for ours, theirs in zip(
            cache.layer(layer, torch.empty(0)), fresh.layer(layer, torch.empty(0)), strict=True
        ):
            torch.testing.assert_close(ours[0, :committed], theirs[0, :committed], atol=1e-6, rtol=0)


def test_float32_decoding_equals_the_reference(make_model):
    """Near-ties may flip in float32; with this seed there is none."""
    model = make_model(dtype=torch.float32)
    requests, params = requests_of([3, 4, 9]), DecodeParams(max_new_tokens=12)
    assert run(model, requests, params) == run_reference(model, requests, params)


@pytest.mark.skipif(not packed.can_pack(), reason="no oneDNN products on this machine")
@pytest.mark.parametrize("row_multiple", [1, 5])
def test_packed_weights_decode_the_same_and_follow_a_weight_that_changes(
    make_model, monkeypatch, row_multiple
):
    """With 5, forwards have padding."""
    asked = []
    monkeypatch.setattr(packed, "MIN_ELEMENTS", 1)
    monkeypatch.setattr(
        packed.Packs,
        "num_rows",
        lambda packs, wanted: asked.append(wanted) or -(-wanted // row_multiple) * row_multiple,
    )
    model = make_model(dtype=torch.float32)
    engine = engine_of(model, pack_weights=True)
    requests, params = requests_of([3, 4, 9]), DecodeParams(max_new_tokens=12)
    jobs = [Job(request, params) for request in requests]
    texts = []
    for _ in range(2):
        texts.append(completions_of(requests, engine.decode(jobs)))
        assert texts[-1] == run(model, requests, params, pack_weights=False)
        model.lm_head.weight.data.mul_(-1)  # the least likely are now the likeliest
    assert texts[0] != texts[1]
    assert packed.packs_of(model).num_bytes > 0
    assert any(wanted % 5 for wanted in asked)


@pytest.mark.skipif(not packed.can_pack(), reason="no oneDNN products on this machine")
def test_an_engine_of_a_model_that_was_cast_lets_its_copies_go(make_model, monkeypatch):
    monkeypatch.setattr(packed, "MIN_ELEMENTS", 1)
    model = make_model(dtype=torch.float32)
    packed.packs_of(model).refresh(model)
    engine_of(model.double())
    assert packed.packs_of(model).num_bytes == 0


@pytest.mark.skipif(not packed.can_pack(), reason="no oneDNN products on this machine")
def test_packed_weights_are_refused_where_no_such_product_is(tiny_model):
    with pytest.raises(
        InputError, match=r"pack_weights=True: only float32 on an x86 CPU, .* not torch.float64 on cpu"
    ):
        engine_of(tiny_model, pack_weights=True)


# --- independence of the batch ----------------------------------------------------------------------


def test_each_completion_is_reported_once_as_soon_as_it_is_there(tiny_model):
    requests, reported, forwards = requests_of([3, 4, 5, 6, 9], seed=1), [], []
    params = DecodeParams(temperature=1.0, max_new_tokens=16)
    engine = engine_of(tiny_model, (13,), max_batch_size=2)
    for update in engine.stream([Job(request, params, detail="completions") for request in requests]):
        reported.append(update.completion)
        forwards.append(engine.stats.forwards)
    assert sorted(done.id for done in reported) == sorted(request.id for request in requests)
    assert all(done in reported for done in run(tiny_model, requests, params, (13,)))
    # With two slots the last request begins when others have ended, and those were told by then.
    assert forwards == sorted(forwards)
    assert forwards[0] < forwards[-2] < forwards[-1]


def test_no_request_gives_no_completion(tiny_model):
    assert run(tiny_model, [], DecodeParams()) == []


def test_equal_prompts_under_two_ids_are_sampled_independently(tiny_model):
    requests = [DecodeRequest(id=name, prompt_ids=(1, 2, 3)) for name in "ab"]
    first, second = run(tiny_model, requests, DecodeParams(temperature=1.0, max_new_tokens=12))
    assert first.response_ids != second.response_ids
    first, second = run(tiny_model, requests, DecodeParams(temperature=0.0, max_new_tokens=12))
    assert first.response_ids == second.response_ids


def test_an_engine_reuses_its_slots_and_two_runs_at_once_do_not_share_them(tiny_model):
    requests, params = requests_of([3, 9, 4, 6, 1]), DecodeParams(temperature=1.0, max_new_tokens=9)
    jobs = [Job(request, params) for request in requests]
    expected = {c.id: c for c in run(tiny_model, requests, params)}
    engine = engine_of(tiny_model, max_batch_size=2, fixed_shapes=True)
    streams = [engine.stream(part) for part in (jobs, jobs[::-1], jobs[2:])]
    caches, hook = caches_of(tiny_model)
    updates = itertools.chain.from_iterable(itertools.zip_longest(*streams))
    completions = [update.completion for update in updates if update is not None and update.completion]
    assert len(completions) == 13
    assert all(completion == expected[completion.id] for completion in completions)
    own = [*caches]  # alive, so that no other one gets their identities
    assert len(set(map(id, own))) == 3
    for _ in range(2):
        caches.clear()
        assert engine.decode(jobs) == expected
        assert all(cache is caches[0] for cache in caches)
        assert any(cache is caches[0] for cache in own)
        own = [caches[0]]
    hook.remove()


@pytest.mark.parametrize("fixed_shapes", [False, True])
def test_a_stream_closed_halfway_leaves_the_engine_usable(tiny_model, fixed_shapes):
    requests, params = requests_of([3, 9, 4]), DecodeParams(temperature=1.0, max_new_tokens=9)
    jobs = [Job(request, params) for request in requests]
    engine = engine_of(tiny_model, max_batch_size=2, fixed_shapes=fixed_shapes)
    stream = engine.stream(jobs)
    assert next(stream).is_committed
    stream.close()
    assert engine.decode(jobs) == {c.id: c for c in run(tiny_model, requests, params)}


@pytest.mark.many_inputs
@settings(max_examples=20)
@given(st.data(), st.integers(1, 4), st.booleans())
def test_each_request_may_have_its_own_settings(tiny_model, data, batch_size, fixed_shapes):
    """Block sizes, schedules, strategies, temperatures and seeds side by side."""
    own = [data.draw(cases(max_requests=1)) for _ in range(4)]
    lengths, params = [case[0][0] for case in own], [DecodeParams(**case[1]) for case in own]
    requests = requests_of(lengths)
    jobs = [Job(*pair) for pair in zip(requests, params, strict=True)]
    sizes = {"max_batch_size": batch_size, "fixed_shapes": fixed_shapes}
    done = engine_of(tiny_model, COMMON, **sizes).decode(jobs)
    for job in jobs:
        assert done[job.request.id] == run_reference(tiny_model, [job.request], job.params, COMMON)[0]


@pytest.mark.many_inputs
def test_five_hundred_requests_through_three_slots_all_come_back(tiny_model):
    generator = torch.Generator().manual_seed(5)
    lengths = torch.randint(1, 13, (500,), generator=generator).tolist()
    requests = requests_of(lengths)
    params = DecodeParams(steps_per_block=1, temperature=1.0, max_new_tokens=8)
    completions = run(tiny_model, requests, params, COMMON, max_batch_size=3)
    assert [completion.id for completion in completions] == [request.id for request in requests]
    assert all(c.prompt_ids == r.prompt_ids for c, r in zip(completions, requests, strict=True))
    for index in (0, 3, 123, 256, 499):
        assert completions[index] == run_reference(tiny_model, [requests[index]], params, COMMON)[0]


def test_logprobs_are_those_of_the_model_when_it_committed(tiny_model):
    requests = requests_of([3, 8, 5])
    for fields in ({"temperature": 0.0}, {"temperature": 1.0, "top_k": 4, "confidence": "sampled"}):
        params = DecodeParams(steps_per_block=2, max_new_tokens=10, **fields)
        for ours, theirs in zip(
            run(tiny_model, requests, params), run_reference(tiny_model, requests, params), strict=True
        ):
            assert len(ours.logprobs) == len(ours.response_ids)
            assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-6)
            assert max(ours.logprobs) < 0


# --- what holds for every completion ------------------------------------------------------------------


@settings(max_examples=30)
@given(cases(), st.booleans())
def test_completions_keep_their_rules(tiny_model, case, with_stops):
    lengths, fields, _ = case
    stops = COMMON if with_stops else ()
    requests, params = requests_of(lengths, seed=fields["seed"]), DecodeParams(**fields)
    size = params.block_size
    plan = params.schedule
    for request, completion in zip(requests, run(tiny_model, requests, params, stops), strict=True):
        start, ids, steps = len(request.prompt_ids), completion.response_ids, completion.step_map
        assert completion.prompt_ids == request.prompt_ids
        assert MASK not in ids
        # Whole blocks up to the first one with a stop token, or as many as max_new_tokens needs
        assert (start + len(ids)) % size == 0
        needed = -(-(start + params.max_new_tokens) // size) * size - start
        stop_at = [index for index, token in enumerate(ids) if token in stops]
        assert len(ids) == (-(-(start + stop_at[0] + 1) // size) * size - start if stop_at else needed)
        visible_stop = [index for index in stop_at if index < params.max_new_tokens]
        assert completion.visible_length == (visible_stop[0] + 1 if visible_stop else params.max_new_tokens)
        assert completion.finish_reason == ("stop" if visible_stop else "length")
        # The step map: 1-based, gapless, growing from block to block, as many commits as planned
        edges = range(start // size * size, start + len(ids), size)
        blocks = [steps[max(0, edge - start) : edge + size - start] for edge in edges]
        assert sorted(set(steps)) == list(range(1, completion.num_denoising_steps + 1))
        last = 0
        for block in blocks:
            assert min(block) == last + 1
            last = max(block)
            counts = [count for _, count in sorted(Counter(block).items())]
            left = len(block)
            for planned, count in zip(plan, counts, strict=False):
                if params.remasking in ADAPTIVE:
                    assert count >= min(planned, left)
                else:
                    assert count == min(planned, left)
                left -= count
            assert left == 0
        assert completion.num_commit_forwards == 0
        assert completion.num_forwards == completion.num_denoising_steps
        if params.remasking == "sequential":
            assert list(steps) == sorted(steps)


@pytest.mark.many_inputs
@pytest.mark.parametrize(
    ("prompt", "size", "steps", "new_tokens", "denoising_steps", "commits"),
    [
        (4, 4, 4, 8, 8, 1),  # two whole blocks of four steps
        (5, 4, 4, 8, 3 + 4 + 4, 2),  # three masks, then two whole blocks (8 tokens end inside the third)
        (5, 4, 4, 7, 3 + 4, 1),
        (7, 4, 2, 9, 1 + 2 + 2, 2),  # one mask is one step although two are planned
        (6, 8, 3, 2, 1, 0),  # plan 3 3 2: two masks fit the first step
        (4, 8, 3, 5, 2 + 3, 1),  # plan 3 3 2: four masks take two steps
        (1, 1, 1, 5, 5, 4),
        (3, 8, 1, 20, 3, 2),  # one step per block
    ],
)
@pytest.mark.parametrize("remasking", ["low_confidence_static", "sequential", "random"])
def test_numbers_of_forwards_by_hand(
    tiny_model, prompt, size, steps, new_tokens, denoising_steps, commits, remasking
):
    """Fused: as many as denoising steps. Separate commits: one more for every block but the last."""
    params = DecodeParams(
        block_size=size, steps_per_block=steps, remasking=remasking, max_new_tokens=new_tokens
    )
    fused, separate = (
        run(tiny_model, requests_of([prompt]), params, fuse_commits=fuse)[0] for fuse in (True, False)
    )
    assert fused.num_denoising_steps == separate.num_denoising_steps == denoising_steps
    assert (fused.num_commit_forwards, separate.num_commit_forwards) == (0, commits)
    assert separate.num_forwards == denoising_steps + commits


def spy_on(model):
    """Record (input ids, positions) of every forward."""
    calls = []

    def record(_, __, kwargs):
        calls.append((kwargs["input_ids"].clone(), kwargs["position_ids"].clone()))

    return calls, model.register_forward_pre_hook(record, with_kwargs=True)


@pytest.mark.parametrize("prompt_length", [1, 3, 4, 6, 8])
@pytest.mark.parametrize("fuse", [True, False])
def test_one_request_takes_the_forwards_it_counts(make_model, prompt_length, fuse):
    """The prompt rides in the first one; with separate commits it takes one of its own."""
    model = make_model()
    calls, _ = spy_on(model)
    params = DecodeParams(max_new_tokens=9)
    completion = run(model, requests_of([prompt_length]), params, fuse_commits=fuse)[0]
    assert len(calls) == completion.num_forwards + (not fuse and prompt_length >= 4)


@pytest.mark.parametrize("remasking", STRATEGIES)
def test_the_model_always_sees_the_prompt_as_given_and_never_takes_back_a_token(make_model, remasking):
    """Every forward shows each prompt token unchanged, and a response token either masked or final."""
    model = make_model()
    calls, _ = spy_on(model)
    request = requests_of([6])[0]
    request = DecodeRequest(
        id=request.id, prompt_ids=(*request.prompt_ids[:5], MASK)
    )  # a mask token in the tail
    completion = run(
        model, [request], DecodeParams(steps_per_block=2, remasking=remasking, max_new_tokens=10)
    )[0]
    final = [*request.prompt_ids, *completion.response_ids]
    decided = set(range(6))
    for ids, position in calls:
        for token, place in zip(ids[0].tolist(), position[0].tolist(), strict=True):
            if place in decided:
                assert token == final[place]
            else:
                assert token in (MASK, final[place])
                if token != MASK:
                    decided.add(place)
    assert len(decided) == len(final) - sum(
        step == completion.num_denoising_steps for step in completion.step_map
    )


def test_a_stop_id_in_the_prompt_does_not_stop(tiny_model):
    """In the prompt's whole blocks nor in its tail."""
    stop = 39  # the tiny model does not say it here
    requests = [
        DecodeRequest(id="tail", prompt_ids=(1, 2, 3, 4, 5, stop)),
        DecodeRequest(id="prefix", prompt_ids=(stop, 2, 3, 4, 5)),
    ]
    completions = run(tiny_model, requests, DecodeParams(temperature=0.0, max_new_tokens=7), (stop,))
    assert all(stop not in completion.response_ids for completion in completions)
    assert [(completion.visible_length, completion.finish_reason) for completion in completions] == [
        (7, "length")
    ] * 2


def test_tokens_differ_between_positions(tiny_model):
    """What makes these equalities sharp: the random model does not repeat one token."""
    completions = run(tiny_model, requests_of([3, 4, 9]), DecodeParams(temperature=1.0, max_new_tokens=24))
    assert all(len(set(completion.response_ids)) > 6 for completion in completions)


def test_no_gradient_is_recorded_and_the_model_is_unchanged(make_model):
    model = make_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run(model, requests_of([3]), DecodeParams(max_new_tokens=4))
    assert all(weight.grad is None for weight in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# --- errors ---------------------------------------------------------------------------------------------


def test_refused_requests_are_named_and_the_others_finish(make_model):
    """An empty prompt, and one that can never fit; more of them than slots."""
    model = make_model(max_position_embeddings=16)
    good = requests_of([3, 4, 2])
    bad = [DecodeRequest(id="empty", prompt_ids=()), DecodeRequest(id="long", prompt_ids=(1,) * 9)]
    params = DecodeParams(max_new_tokens=8)
    with pytest.raises(DecodingError) as caught:
        run(model, [good[0], bad[0], good[1], bad[1], good[2]], params, max_batch_size=1)
    assert set(caught.value.problems) == {"empty", "long"}
    assert "prompt_ids='empty': this request has an empty prompt" in str(caught.value)
    assert "'long' has 9 prompt tokens and would need 20 positions, but the model has 16" in str(caught.value)
    finished = [caught.value.completions[request.id] for request in good]
    assert finished == run_reference(model, good, params)


def test_max_model_len_refuses_what_is_longer(tiny_model):
    requests = requests_of([4, 9])
    params = DecodeParams(max_new_tokens=8)
    with pytest.raises(
        DecodingError,
        match=r"'request/1' has 9 prompt tokens .* but max_model_len is 16.*raise max_model_len",
    ):
        run(tiny_model, requests, params, max_model_len=16)
    assert len(run(tiny_model, requests, params, max_model_len=20)) == 2


def test_a_failure_in_the_model_names_the_requests_and_keeps_what_is_finished(make_model):
    model = make_model()
    requests, params = requests_of([1, 2, 3, 4]), DecodeParams(max_new_tokens=4)
    expected = run(model, requests, params)
    calls, _ = spy_on(model)

    def fail(*_):
        if len(calls) > 12:
            raise RuntimeError("out of memory")

    model.register_forward_pre_hook(fail)
    with pytest.raises(DecodingError, match="RuntimeError: out of memory") as caught:
        run(model, requests, params, max_batch_size=1)
    assert isinstance(caught.value.__cause__, RuntimeError)
    done, failed = caught.value.completions, caught.value.problems
    assert done and failed
    assert set(done) | set(failed) == {request.id for request in requests}
    assert all(done[completion.id] == completion for completion in expected if completion.id in done)


def test_a_repeated_id_is_named(tiny_model):
    requests = [DecodeRequest(id="twin", prompt_ids=(1,)), DecodeRequest(id="twin", prompt_ids=(2,))]
    with pytest.raises(InputError, match="id='twin': used by two requests"):
        run(tiny_model, requests, DecodeParams(max_new_tokens=8))


@pytest.mark.parametrize("field", ["max_batch_size", "max_model_len", "max_prefill_tokens"])
@pytest.mark.parametrize("value", [0, -1])
def test_a_size_below_one_is_named(field, value):
    with pytest.raises(InputError, match=field):
        EngineConfig(**{field: value})
