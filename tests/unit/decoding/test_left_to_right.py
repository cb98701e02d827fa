"""The specification of left-to-right decoding, against one forward per token; drafts change forwards only."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from t3d.attention.forward import block_forward
from t3d.counter_rng import counter_uniform, stable_key
from t3d.decoding.completion import DecodeRequest
from t3d.decoding.params import DecodeParams
from t3d.decoding.sampling import TOKEN_STREAM, candidate_tokens
from t3d.decoding.self_speculation import most_masks, scratch_of
from t3d.decoding.specification import decode_as_specified, decode_left_to_right

MASK, VOCAB = 37, 40
SAMPLINGS = [
    {"temperature": 0.0},
    {"temperature": 1.0},
    {"temperature": 1.0, "top_k": 5},
    {"temperature": 0.7, "top_p": 0.8},
]
COMMON = (13, 17, 34)


@st.composite
def cases(draw, **fixed):
    """A prompt, plain fields of DecodeParams, and stop ids."""
    size = draw(st.sampled_from([1, 2, 4, 8]))
    fields = {
        "block_size": size,
        "max_new_tokens": draw(st.integers(1, 2 * size + 3)),
        "seed": draw(st.integers(0, 99)),
        "context": draw(st.sampled_from(["block", "causal"])),
        "draft_groups": draw(st.sampled_from(["last", "all", "auto"])),
        "max_draft_tokens": draw(st.sampled_from([0, 0, 1, 3])),
    }
    prompt = draw(st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=2 * size + 1))
    stops = draw(st.sampled_from([(), COMMON]))
    return prompt, fields | draw(st.sampled_from(SAMPLINGS)) | fixed, stops


def decode(model, prompt, fields, stops=(), remasking="self_speculative", **how):
    request = DecodeRequest(id="request", prompt_ids=tuple(prompt))
    params = DecodeParams(remasking=remasking, **fields)
    return decode_left_to_right(model, request, params, mask_token_id=MASK, stop_token_ids=stops, **how)


@torch.no_grad()
def one_by_one(model, prompt, fields, stops):
    """The definition: for each token a forward over what precedes it and a mask that sees all of that."""
    params, ids, logprobs = DecodeParams(remasking="left_to_right", **fields), list(prompt), []
    size = params.block_size if params.context == "block" else 1
    while len(ids) - len(prompt) < params.max_new_tokens and not (logprobs and ids[-1] in stops):
        n = len(ids)
        open_from = n // params.block_size * params.block_size
        sees = [
            [key // size <= query // size if query < open_from else key <= query for key in range(n + 1)]
            for query in range(n + 1)
        ]
        position = torch.arange(n + 1)[None]
        logits = block_forward(model, torch.tensor([[*ids, MASK]]), position, torch.tensor([sees]))[0]
        uniform = counter_uniform(params.seed, stable_key("request"), torch.tensor([n]), 0, TOKEN_STREAM)
        drawn = candidate_tokens(logits[n : n + 1], uniform, params, MASK)
        ids.append(int(drawn.token_M))
        logprobs.append(float(drawn.logprob_M))
    return ids[len(prompt) :], logprobs


def same(ours, theirs):
    """Same tokens and log-probabilities; forwards and step maps may differ."""
    assert ours.response_ids == theirs.response_ids
    assert (ours.visible_length, ours.finish_reason) == (theirs.visible_length, theirs.finish_reason)
    assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-9)


# --- what is decoded ----------------------------------------------------------------------------------


@pytest.mark.many_inputs
@settings(max_examples=15)
@given(cases())
def test_left_to_right_equals_one_forward_per_token(exact_model, case):
    prompt, fields, stops = case
    completion = decode(exact_model, prompt, fields, stops, "left_to_right")
    tokens, logprobs = one_by_one(exact_model, prompt, fields, stops)
    assert list(completion.response_ids) == tokens
    assert completion.logprobs == pytest.approx(logprobs, abs=1e-9)
    assert completion.step_map == tuple(range(1, len(tokens) + 1))
    assert completion.num_forwards == len(tokens)
    assert completion.num_drafted == completion.num_accepted == 0


@pytest.mark.many_inputs
@pytest.mark.parametrize("attention", [0.0, 0.2, 1.0])
@settings(max_examples=10)
@given(cases())
def test_own_drafts_change_nothing_but_forwards(exact_model_with, attention, case):
    """Where tokens hardly depend on each other all drafts are accepted, else some, or next to none."""
    model = exact_model_with(attention)
    ours, theirs = (decode(model, *case, name) for name in ("self_speculative", "left_to_right"))
    same(ours, theirs)
    assert ours.num_forwards <= theirs.num_forwards
    assert ours.num_accepted + ours.num_forwards == len(ours.response_ids) or ours.finish_reason == "stop"
    if attention == 0:
        assert ours.num_accepted == ours.num_drafted or ours.finish_reason == "stop"


@pytest.mark.many_inputs
@settings(max_examples=6)
@given(cases(), st.randoms(use_true_random=False))
def test_drafts_of_anybody_change_nothing_but_forwards(exact_model, case, random):
    """The true continuation, the same with one wrong token at each place, and random tokens."""
    prompt, fields, _ = case
    start, size = len(prompt), fields["block_size"]
    truth = decode(exact_model, prompt, fields, (), "left_to_right")
    true = dict(enumerate([*prompt, *truth.response_ids]))
    right = decode(exact_model, prompt, fields, draft_of=true.get)
    same(right, truth)
    assert right.num_accepted == right.num_drafted
    for place in range(start, len(true)):
        wrong = true | {place: (true[place] + 1) % VOCAB}
        ours = decode(exact_model, prompt, fields, draft_of=wrong.get)
        same(ours, truth)
        assert ours.num_forwards <= right.num_forwards + 1
    drafts = {place: random.randrange(VOCAB) for place in true}
    same(decode(exact_model, prompt, fields, draft_of=drafts.get), truth)
    never = {place: (token + 1) % VOCAB for place, token in true.items()}
    ours = decode(exact_model, prompt, fields, draft_of=never.get)
    same(ours, truth)
    assert ours.num_forwards == len(ours.response_ids)
    if fields["max_draft_tokens"] == 0 and size > 1:
        assert right.num_forwards == num_forwards_of_right_drafts(start, len(true), size)


def num_forwards_of_right_drafts(start, end, size):
    """Each forward fills the block and adds the first token of the next."""
    count, n = 0, start
    while n < end:
        count, n = count + 1, min((n // size + 1) * size + 1, end)
    return count


@pytest.mark.many_inputs
@pytest.mark.parametrize("prompt_length", [3, 4])
@pytest.mark.parametrize("place", [0, 1, 3, 4, 5, 8])
def test_a_stop_anywhere_ends_the_response(exact_model, prompt_length, place):
    """With it, exactly; the log-probabilities, steps and forwards are those without stop ids."""
    fields = {"block_size": 4, "temperature": 1.0, "max_new_tokens": 9}
    prompt = range(1, prompt_length + 1)
    endless = decode(exact_model, prompt, fields, (), "left_to_right")
    stop = endless.response_ids[place]
    first = endless.response_ids.index(stop)
    true = dict(enumerate([*prompt, *endless.response_ids]))
    for name, how in (("left_to_right", {}), ("self_speculative", {"draft_of": true.get})):
        full = decode(exact_model, prompt, fields, (), name, **how)
        ours = decode(exact_model, prompt, fields, (stop,), name, **how)
        assert ours.response_ids == endless.response_ids[: first + 1]
        assert (ours.visible_length, ours.finish_reason) == (first + 1, "stop")
        assert ours.step_map == full.step_map[: first + 1]
        assert ours.num_forwards == ours.step_map[-1]
        assert ours.num_accepted <= full.num_accepted and ours.num_drafted <= full.num_drafted


# --- the record ---------------------------------------------------------------------------------------


@settings(max_examples=15)
@given(cases())
def test_every_forward_commits_and_the_record_is_a_trajectory(exact_model_with, case):
    prompt, fields, stops = case
    completion = decode(exact_model_with(0.2), prompt, fields, stops)
    count = len(completion.response_ids)
    assert completion.visible_length == count <= fields["max_new_tokens"]
    assert sorted(set(completion.step_map)) == list(range(1, completion.num_forwards + 1))
    assert list(completion.step_map) == sorted(completion.step_map)
    assert MASK not in completion.response_ids and max(completion.logprobs) <= 0
    record = completion.trajectory
    assert record.response_ids == completion.response_ids
    assert record.terminal_complete == ((len(prompt) + count) % fields["block_size"] == 0)
    assert list(record.step_map) == sorted(record.step_map)
    for first, second in zip(range(count - 1), range(1, count), strict=True):
        if completion.step_map[first] != completion.step_map[second]:
            assert record.step_map[first] != record.step_map[second]


def test_the_specification_decodes_by_the_strategy_of_its_settings(exact_model):
    fields = {"block_size": 4, "temperature": 1.0, "max_new_tokens": 9}
    request = DecodeRequest(id="request", prompt_ids=(1, 2, 3))
    for name in ("left_to_right", "self_speculative"):
        params = DecodeParams(remasking=name, **fields)
        completion = decode_as_specified(
            exact_model, request, params, mask_token_id=MASK, stop_token_ids=(13,)
        )
        assert completion == decode(exact_model, (1, 2, 3), fields, (13,), name)


# --- who sees whom ------------------------------------------------------------------------------------


def rows(scratch):
    return ["".join(".x"[sees] for sees in row) for row in scratch.sees_QQ.astype(int)]


def test_a_draft_inside_its_block_by_hand():
    """One open token, two drafted, blocks of 4: positions 0 | 1 2 | masks at 1, 2, 3; behind all: 3."""
    scratch = scratch_of(1, 2, 4, "block", (1, 2))
    assert scratch.source_Q.tolist() == [0, 1, 2, -1, -1, -1, -1, -1, -1]
    assert scratch.offset_Q.tolist() == [0, 1, 2, 1, 2, 3, 2, 3, 3]
    assert scratch.place_M.tolist() == [3, 4, 5, 7]
    assert scratch.drawn_offset_M.tolist() == [1, 2, 3, 3]
    assert scratch.drafts == {1: slice(3, 4), 2: slice(4, 4)}
    assert rows(scratch) == [
        "x........",
        "xx.......",
        "xxx......",
        "x..x.....",
        "xx..x....",
        "xxx..x...",
        "xx....xx.",
        "xx....xx.",
        "xxx.....x",
    ]
    assert scratch.ids([5, 6, 7], 9).tolist() == [5, 6, 7, 9, 9, 9, 9, 9, 9]


def test_a_draft_that_fills_its_block_by_hand():
    """One open token, one drafted, blocks of 2: causal, copy, masks at 1 and 2; behind all 2 and 3."""
    scratch = scratch_of(1, 1, 2, "block", (1,))
    assert scratch.source_Q.tolist() == [0, 1, 0, 1, -1, -1, -1, -1]
    assert scratch.offset_Q.tolist() == [0, 1, 0, 1, 1, 2, 2, 3]
    assert rows(scratch) == [
        "x.......",
        "xx......",
        "..xx....",
        "..xx....",
        "x...x...",
        "..xx.x..",
        "..xx..xx",
        "..xx..xx",
    ]
    causal = scratch_of(1, 1, 2, "causal", (1,))
    assert rows(causal) == ["x.....", "xx....", "x.x...", "xx.x..", "xx..xx", "xx..xx"]


@given(cases(), st.integers(0, 7), st.integers(0, 8))
def test_no_forward_reads_more_masks_than_the_most(case, num_open, num_draft):
    _, fields, _ = case
    params = DecodeParams(remasking="self_speculative", **fields)
    size = params.block_size
    num_open = num_open % size
    num_draft = min(num_draft, size - num_open, params.max_draft_tokens or size)
    groups = tuple(range(num_draft + 1)) if params.draft_groups == "all" else (num_draft,)
    groups = tuple(j for j in groups if (num_open + j) % size < size - 1)
    scratch = scratch_of(num_open, num_draft, size, params.context, groups)
    assert (scratch.source_Q == -1).sum() <= most_masks(params)
