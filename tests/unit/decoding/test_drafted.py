"""A drafter changes how many forwards ``self_speculative`` takes, and nothing else."""

import dataclasses
import re

import pytest
import torch
from drafting_helpers import (
    COMMON,
    MASK,
    decode,
    fields_of_any_strategy,
    fields_of_next,
    jobs_of,
    mixed_cases,
    specified,
    with_random_weights,
    without_drafts,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from model_fixtures import exact

from t3d.decoding.completion import DecodeRequest
from t3d.decoding.jobs import Job
from t3d.decoding.llm import LLM
from t3d.decoding.params import DecodeParams
from t3d.errors import InputError
from t3d.models.drafter import save_drafter, told_hash, with_drafter
from t3d.models.gated import add_gated_adapter
from t3d.models.gated_student import gate_student
from t3d.models.loading import load_model

OF_SELF = fields_of_any_strategy(groups=["last", "all", "auto"])
OF_NEXT = fields_of_next(groups=["last", "all", "auto"])
"""Of one model all requests predict alike."""


def disturbed(model):
    """A student: the same, but for small changes of every weight."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.02 * torch.randn_like(weight))
    return model


@pytest.fixture(
    scope="module",
    params=[
        "dense",
        pytest.param("mixture", marks=pytest.mark.many_inputs),
        "student of a dense model",
        pytest.param("student of a mixture", marks=pytest.mark.many_inputs),
    ],
)
def drafted(request, exact_model_with, exact_moe_model, make_model, make_moe_model):
    """An exact model with a random drafter, whose drafts are sometimes right."""
    is_dense = "dense" in request.param
    model = exact_model_with(0.02) if is_dense else exact_moe_model
    if "student" in request.param:
        student = exact(make_model(), 0.02) if is_dense else exact(make_moe_model())
        drafter = gate_student(model, disturbed(student))
    else:
        drafter = with_random_weights(add_gated_adapter(model, 4, mask_token_id=MASK), 0.02)
    yield model, drafter
    drafter.detach()


@settings(max_examples=6)
@given(
    cases=mixed_cases(max_size=4, kinds=[OF_SELF, OF_SELF, OF_NEXT]),
    stops=st.sampled_from([(), (5,), COMMON]),
    batch_size=st.integers(1, 3),
    fuse=st.booleans(),
    fixed=st.booleans(),
)
def test_tokens_are_those_without_drafts_and_forwards_those_of_the_specification(
    drafted, cases, stops, batch_size, fuse, fixed
):
    """Of any mix of strategies. Forwards of drafts where they pay depend on what is decoded beside them."""
    model, drafter = drafted
    config = {"max_batch_size": batch_size, "fuse_commits": fuse, "fixed_shapes": fixed}
    these = jobs_of(cases)
    done = decode(model, these, drafter, stops, **config)
    plain = decode(model, list(map(without_drafts, these)), stops=stops)
    for job, ours, theirs in zip(these, done, plain, strict=True):
        assert (ours.response_ids, ours.finish_reason) == (theirs.response_ids, theirs.finish_reason)
        assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-9)
        if job.params.draft_groups != "auto" or batch_size == 1:
            expected = specified(model, job, stops)
            assert dataclasses.replace(ours, num_commit_forwards=0) == expected
            assert ours.logprobs == pytest.approx(expected.logprobs, abs=1e-9)


def test_an_engine_without_it_decodes_as_if_it_were_not_attached(exact_model):
    prompt = DecodeRequest(id="x", prompt_ids=tuple(range(7)))
    params = DecodeParams(
        block_size=4, remasking="self_speculative", max_new_tokens=24, temperature=0.0, draft_groups="all"
    )
    before = decode(exact_model, [Job(prompt, params)])
    adapter = with_random_weights(add_gated_adapter(exact_model, 4), 1.0)
    try:
        assert decode(exact_model, [Job(prompt, params)]) == before
        assert decode(exact_model, [Job(prompt, params)], adapter, fixed_shapes=True)[0].response_ids == (
            before[0].response_ids
        )
    finally:
        adapter.detach()
    with pytest.raises(InputError, match=r"drafter=.*not attached to this model"):
        decode(exact_model, [Job(prompt, params)], adapter)


@pytest.fixture
def drafter_folder(checkpoint, tmp_path):
    loaded = load_model(checkpoint, device="cpu", dtype="float64")
    adapter = with_random_weights(add_gated_adapter(loaded.model, 2))
    save_drafter(adapter, loaded, tmp_path / "drafter")
    return tmp_path / "drafter"


def test_an_llm_with_a_drafter_drafts_unless_it_is_told_a_strategy(checkpoint, drafter_folder):
    """And decodes without drafts where it is, which is what drafts are compared with."""
    llm = LLM(checkpoint, device="cpu", dtype="float64", drafter=drafter_folder)
    assert llm.default_params.remasking == "self_speculative"
    assert LLM(checkpoint, device="cpu").default_params.remasking == DecodeParams.remasking
    short = dataclasses.replace(llm.default_params, max_new_tokens=12)
    plain = dataclasses.replace(short, remasking="left_to_right")
    own, other = (llm.generate("Tom has 3 pens.", how, progress=False)[0] for how in (short, plain))
    assert own.num_drafted > other.num_drafted == 0
    assert own.response_ids == other.response_ids


@pytest.mark.parametrize("remasking", ["left_to_right", "low_confidence_static"])
@pytest.mark.parametrize(("field", "value"), [("draft_groups", "all"), ("max_draft_tokens", 2)])
def test_an_llm_refuses_what_is_said_of_drafts_where_none_are_made(checkpoint, remasking, field, value):
    params = DecodeParams(remasking=remasking, **{field: value})
    problem = (
        f"^{field}={value!r}: ignored: remasking='{remasking}' drafts nothing. Fix: leave it out, or dec"
    )
    with pytest.raises(InputError, match=problem):
        LLM(checkpoint, device="cpu").generate("Tom", params, progress=False)


def test_a_drafter_that_does_not_fit_is_named_as_it_was_given_with_its_base(checkpoint):
    fix = "give the base that it was trained on (SmolLM2-135M-Instruct.Q4_1.gguf, of t3d fetch smollm2"
    with pytest.raises(InputError, match=f"^drafter='smollm2': .*{re.escape(fix)}"):
        LLM(checkpoint, device="cpu", drafter="smollm2")


def test_a_folder_above_a_drafter_s_is_refused_with_the_folder_to_give(checkpoint, drafter_folder):
    with pytest.raises(InputError, match=f"Fix: give {re.escape(str(drafter_folder))}.$"):
        LLM(checkpoint, device="cpu", drafter=drafter_folder.parent)


def test_an_llm_takes_the_folder_of_a_drafter_and_says_so_in_its_identity(checkpoint, tmp_path):
    loaded = load_model(checkpoint, device="cpu", dtype="float64")
    adapter = with_random_weights(add_gated_adapter(loaded.model, 2))
    save_drafter(adapter, loaded, tmp_path / "drafter")
    adapter.detach()
    params = DecodeParams(remasking="self_speculative", temperature=0.0, max_new_tokens=12)
    plain = LLM(loaded).generate("Tom has 3 pens.", params, progress=False)
    llm = LLM(checkpoint, device="cpu", dtype="float64", drafter=tmp_path / "drafter")
    drafted = llm.generate("Tom has 3 pens.", params, progress=False)
    assert drafted[0].response_ids == plain[0].response_ids
    assert "drafter" not in loaded.identity()
    with_it = with_drafter(loaded, tmp_path / "drafter")
    assert len(with_it.identity()["drafter"]) == 64
    assert with_it.drafter_hash == told_hash(tmp_path / "drafter")
    assert {
        name: value for name, value in with_it.identity().items() if name != "drafter"
    } == loaded.identity()
    with pytest.raises(InputError, match="has a drafter already"):
        LLM(loaded, drafter=tmp_path / "drafter")
    assert LLM(with_it).generate("Tom has 3 pens.", params, progress=False)[0].step_map == drafted[0].step_map
