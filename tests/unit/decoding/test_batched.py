"""Batched, cached decoding equals the specification, whatever the batch."""

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from t3d.decoding.batched import decode
from t3d.decoding.completion import DecodeRequest
from t3d.decoding.params import DecodeParams
from t3d.decoding.reference import decode_reference
from t3d.errors import InputError
from t3d.schedule import num_transfer_tokens

MASK, VOCAB = 37, 40
STRATEGIES = ["low_confidence_static", "low_confidence_dynamic", "sequential", "random"]
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
    return decode(model, requests, params, mask_token_id=MASK, stop_token_ids=stops, **settings)


def run_reference(model, requests, params, stops=()):
    return [
        decode_reference(model, request, params, mask_token_id=MASK, stop_token_ids=stops)
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
        "max_new_tokens": draw(st.integers(1, 2 * block_size + 3)),
        "seed": draw(st.integers(0, 99)),
    }
    lengths = st.lists(st.integers(1, 3 * block_size), min_size=1, max_size=max_requests)
    return draw(lengths), fields | draw(st.sampled_from(SAMPLINGS)), draw(st.sampled_from([(), COMMON]))


# --- equality with the specification ----------------------------------------------------------------


@settings(max_examples=50)
@given(cases(), st.integers(1, 4))
def test_batched_decoding_equals_the_reference(tiny_model, case, batch_size):
    """Token for token, step for step, forward for forward; ragged batches, fewer rows than requests."""
    lengths, fields, stops = case
    requests, params = requests_of(lengths, seed=fields["seed"]), DecodeParams(**fields)
    expected = run_reference(tiny_model, requests, params, stops)
    assert run(tiny_model, requests, params, stops, batch_size=batch_size) == expected


@pytest.mark.parametrize(
    ("block_size", "steps"),
    [(1, 1), (2, 1), (2, 2), (4, 1), (4, 2), (4, 3), (4, 4), (8, 1), (8, 3), (8, 5), (8, 8)],
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


def test_float32_decoding_equals_the_reference(make_model):
    """Near-ties may flip in float32; with this seed there is none."""
    model = make_model(dtype=torch.float32)
    requests, params = requests_of([3, 4, 9]), DecodeParams(max_new_tokens=12)
    assert run(model, requests, params) == run_reference(model, requests, params)


# --- independence of the batch ----------------------------------------------------------------------


@settings(max_examples=15)
@given(cases(max_requests=5), st.randoms(use_true_random=False), st.integers(1, 5))
def test_a_request_gives_the_same_in_any_batch_and_order(tiny_model, case, random, batch_size):
    lengths, fields, stops = case
    requests, params = requests_of(lengths, seed=fields["seed"]), DecodeParams(**fields)
    alone = {request.id: run(tiny_model, [request], params, stops)[0] for request in requests}
    shuffled = random.sample(requests, len(requests))
    completions = run(tiny_model, shuffled, params, stops, batch_size=batch_size)
    assert completions == [alone[request.id] for request in shuffled]


def test_each_completion_is_reported_once_as_soon_as_it_is_there(tiny_model):
    requests, reported = requests_of([3, 4, 5, 6, 9], seed=1), []
    params = DecodeParams(temperature=1.0, max_new_tokens=16)
    completions = run(tiny_model, requests, params, (13,), batch_size=2, on_finish=reported.append)
    assert [completion.id for completion in completions] == [request.id for request in requests]
    assert sorted(reported, key=lambda completion: completion.id) == completions


def test_no_request_gives_no_completion(tiny_model):
    assert run(tiny_model, [], DecodeParams()) == []


def test_equal_prompts_under_two_ids_are_sampled_independently(tiny_model):
    requests = [DecodeRequest(id=name, prompt_ids=(1, 2, 3)) for name in "ab"]
    first, second = run(tiny_model, requests, DecodeParams(temperature=1.0, max_new_tokens=12))
    assert first.response_ids != second.response_ids
    first, second = run(tiny_model, requests, DecodeParams(temperature=0.0, max_new_tokens=12))
    assert first.response_ids == second.response_ids


# --- what holds for every completion ------------------------------------------------------------------


@settings(max_examples=30)
@given(cases(), st.booleans())
def test_completions_keep_their_rules(tiny_model, case, with_stops):
    lengths, fields, _ = case
    stops = COMMON if with_stops else ()
    requests, params = requests_of(lengths, seed=fields["seed"]), DecodeParams(**fields)
    size = params.block_size
    plan = num_transfer_tokens(size, params.steps_per_block)
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
                if params.remasking == "low_confidence_dynamic":
                    assert count >= min(planned, left)
                else:
                    assert count == min(planned, left)
                left -= count
            assert left == 0
        assert completion.num_commit_forwards == len(blocks) - 1
        if params.remasking == "sequential":
            assert list(steps) == sorted(steps)


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
    params = DecodeParams(
        block_size=size, steps_per_block=steps, remasking=remasking, max_new_tokens=new_tokens
    )
    completion = run(tiny_model, requests_of([prompt]), params)[0]
    assert completion.num_denoising_steps == denoising_steps
    assert completion.num_commit_forwards == commits
    assert completion.num_forwards == denoising_steps + commits


def spy_on(model):
    """Record (input ids, positions) of every forward."""
    calls = []

    def record(_, __, kwargs):
        calls.append((kwargs["input_ids"].clone(), kwargs["position_ids"].clone()))

    return calls, model.register_forward_pre_hook(record, with_kwargs=True)


@pytest.mark.parametrize("prompt_length", [1, 3, 4, 6, 8])
def test_one_request_takes_the_forwards_it_counts_and_one_prefill(make_model, prompt_length):
    """The prefill of the prompt's whole blocks is one more forward, where there is one."""
    model = make_model()
    calls, _ = spy_on(model)
    completion = run(model, requests_of([prompt_length]), DecodeParams(max_new_tokens=9))[0]
    assert len(calls) == completion.num_forwards + (prompt_length >= 4)


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


def test_an_empty_prompt_is_named(tiny_model):
    requests = [*requests_of([3]), DecodeRequest(id="empty", prompt_ids=())]
    with pytest.raises(InputError, match="prompt_ids='empty'"):
        run(tiny_model, requests, DecodeParams(max_new_tokens=8))


def test_a_prompt_that_cannot_fit_is_named_before_anything_is_decoded(make_model):
    model = make_model(max_position_embeddings=16)
    calls, _ = spy_on(model)
    with pytest.raises(InputError, match="'request/1' has 5 prompt tokens and would need 20 positions"):
        run(model, requests_of([4, 5]), DecodeParams(max_new_tokens=12))
    assert calls == []
    assert len(run(model, requests_of([4, 5]), DecodeParams(max_new_tokens=11))) == 2


def test_a_repeated_id_is_named(tiny_model):
    requests = [DecodeRequest(id="twin", prompt_ids=(1,)), DecodeRequest(id="twin", prompt_ids=(2,))]
    with pytest.raises(InputError, match="id='twin': used by two requests"):
        run(tiny_model, requests, DecodeParams(max_new_tokens=8))


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_size_below_one_is_named(tiny_model, batch_size):
    """It reaches decode() from the command line's --batch-size."""
    with pytest.raises(InputError, match="batch_size"):
        run(tiny_model, requests_of([3]), DecodeParams(max_new_tokens=4), batch_size=batch_size)
