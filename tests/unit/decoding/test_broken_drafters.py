"""A drafter whose numbers are none (NaN, infinite), or whose drafts the base cannot read, costs forwards."""

import dataclasses
import random

import pytest
import torch
from drafting_helpers import (
    COMMON,
    MASK,
    SAMPLINGS,
    Forced,
    decode,
    fields_of_any_strategy,
    jobs_of,
    mixed_cases,
    specified,
    with_random_weights,
    without_drafts,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from model_fixtures import exact

from t3d.decoding import sequences
from t3d.decoding.completion import DecodeRequest
from t3d.decoding.jobs import Job
from t3d.decoding.params import DecodeParams
from t3d.models.adopted import T3DLlamaConfig, T3DLlamaForCausalLM
from t3d.models.gated import add_gated_adapter

HUGE = 1e200
BROKEN_PARTS = {
    "overflows": ("", HUGE),
    "is not a number": ("", torch.nan),
    "keys alone": ("layers/0/self_attn/k_proj", torch.nan),
    "values alone": ("layers/1/self_attn/v_proj", HUGE),
    "behind the last attention": ("layers/1/mlp/down_proj", torch.inf),
    "its own embedding": ("mask_embedding", torch.nan),
}
"""Which weights of a drafter, and what they are."""


@pytest.fixture(scope="module", params=["dense", "mixture"])
def base(request, exact_model_with, exact_moe_model):
    return exact_model_with(0.02) if request.param == "dense" else exact_moe_model


def broken_drafter(model, part, value):
    adapter = with_random_weights(add_gated_adapter(model, 2, mask_token_id=MASK), 0.02)
    named = {name: weight for name, weight in adapter.named_parameters() if part in name}
    assert named or "mlp" in part, "a mixture's adapter has no such layer"
    with torch.no_grad():
        for weight in named.values():
            weight.fill_(value)
    return adapter


@pytest.mark.parametrize("broken", BROKEN_PARTS)
@settings(max_examples=4)
@given(
    cases=mixed_cases(max_size=5, kinds=[fields_of_any_strategy(groups=["last", "all", "auto"])]),
    stops=st.sampled_from([(), COMMON]),
    batch_size=st.integers(1, 4),
    budget=st.integers(1, 9),
    fuse=st.booleans(),
)
def test_a_drafter_whose_numbers_are_none_changes_no_token(
    base, broken, cases, stops, batch_size, budget, fuse
):
    """Of its own requests, of those beside them and of those that have their slots next."""
    config = {"max_batch_size": batch_size, "fuse_commits": fuse, "max_prefill_tokens": budget}
    these = jobs_of(cases)
    plain = decode(base, list(map(without_drafts, these)), stops=stops, **config)
    drafter = broken_drafter(base, *BROKEN_PARTS[broken])
    try:
        done = decode(base, these, drafter, stops, **config)
        for job, ours, theirs in zip(these, done, plain, strict=True):
            assert (ours.response_ids, ours.finish_reason) == (theirs.response_ids, theirs.finish_reason)
            assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-9)
            assert theirs.num_forwards <= ours.num_forwards <= theirs.num_forwards + 1
            if job.params.draft_groups != "auto" or batch_size == 1:
                assert dataclasses.replace(ours, num_commit_forwards=0) == specified(base, job, stops)
    finally:
        drafter.detach()


def test_a_drafter_that_breaks_later_drafts_until_then_and_only_its_own_request_stops(exact_model_with):
    model = exact_model_with(0.0)  # every draft is right
    drafter = add_gated_adapter(model, 2, mask_token_id=MASK)
    own = drafter.mask_embedding.detach().clone()

    def spoil(module, args, kwargs):
        if "gated_positions" not in kwargs:
            return
        position = kwargs["position_ids"].flatten()[kwargs["gated_positions"]]
        with torch.no_grad():
            drafter.mask_embedding.copy_(own * (torch.nan if (position >= 12).any() else 1.0))

    hook = model.register_forward_pre_hook(spoil, with_kwargs=True)
    params = DecodeParams(remasking="self_speculative", temperature=0.0, max_new_tokens=20)
    short = dataclasses.replace(params, max_new_tokens=8)
    these = [
        Job(DecodeRequest(id="long", prompt_ids=(1, 2, 3)), params),
        Job(DecodeRequest(id="short", prompt_ids=(1, 2, 3)), short),
    ]
    try:
        long, alone = decode(model, these, drafter, (), max_batch_size=2)
        assert alone == decode(model, these[1:], drafter, ())[0] and alone.num_accepted > 0
        assert long.num_accepted > 0
        plain = decode(model, list(map(without_drafts, these)), stops=())
        assert [long.response_ids, alone.response_ids] == [one.response_ids for one in plain]
        steps = sorted(set(long.step_map))
        (lost,) = set(range(1, long.num_forwards + 1)) - set(steps)
        behind = [step for step in long.step_map if step > lost]
        assert long.step_map[0] < lost and behind == [*range(lost + 1, long.num_forwards + 1)], "one each"
    finally:
        hook.remove()
        drafter.detach()


@pytest.mark.parametrize("fields", SAMPLINGS, ids=str)
@pytest.mark.parametrize("groups", ["last", "all"])
def test_a_drafted_token_that_the_base_cannot_read_is_no_error(make_model, monkeypatch, groups, fields):
    """It draws all tokens but this one, so that it never has to."""
    model = exact(make_model(), 0.2)
    params = DecodeParams(remasking="self_speculative", draft_groups=groups, max_new_tokens=12, **fields)
    these = [
        Job(DecodeRequest(id=str(n), prompt_ids=tuple(range(1, 2 + n)), noise_id="one"), params)
        for n in range(4)
    ]
    plain = decode(model, list(map(without_drafts, these)), stops=())
    unread = max({*range(5, MASK)}.difference(*(one.response_ids for one in plain)))
    with torch.no_grad():
        model.get_input_embeddings().weight[unread] = torch.nan
    monkeypatch.setattr(
        Forced, "drafts_of", {str(n): dict.fromkeys(range(6 * (n % 2), 30), unread) for n in range(4)}
    )
    monkeypatch.setattr(sequences, "Drafting", Forced)
    done = decode(model, these, stops=(), max_batch_size=3)
    assert [one.error for one in done] == [""] * 4
    assert [one.response_ids for one in done] == [one.response_ids for one in plain]
    assert [one.num_forwards for one in done] == [13] * 4


def test_keys_of_drafts_that_overflow_are_not_there_for_whoever_has_the_slot_next():
    """Hidden by minus infinity, infinite scores give no number in the next request's forwards alone."""
    torch.manual_seed(1)
    sizes = {"vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    ends = {"bos_token_id": None, "eos_token_id": 0, "pad_token_id": 0, "tie_word_embeddings": False}
    config = T3DLlamaConfig(**sizes, **heads, **ends, mask_token_id=MASK, initializer_range=0.3)
    model = T3DLlamaForCausalLM(config).eval()  # which does not norm its keys
    torch.manual_seed(0)
    drafter = add_gated_adapter(model, 1, target_modules=["k_proj"], alpha=1.0)
    with torch.no_grad():
        for name, weight in drafter.named_parameters():
            weight.normal_(std=0.3).mul_(3.4e37 if "lora_B" in name else 1.0)
    draw = random.Random(0)
    prompts = [tuple(draw.randrange(37) for _ in range(draw.randint(1, 9))) for _ in range(2)]
    drafted = DecodeParams(remasking="self_speculative", temperature=0.0, max_new_tokens=9)
    plain = DecodeParams(remasking="left_to_right", temperature=0.0, max_new_tokens=8)
    these = [
        Job(DecodeRequest(id=str(index), prompt_ids=prompt), params)
        for index, (prompt, params) in enumerate(zip(prompts, (drafted, plain), strict=True))
    ]
    _, later = decode(model, these, drafter, (), max_batch_size=1)
    drafter.detach()
    assert not later.error and later == decode(model, these[1:], stops=())[0]
