"""A request that cannot be decoded fails alone, with its reason; the others do not notice."""

import dataclasses

import pytest
import torch

from t3d.attention.slots import SlotCache
from t3d.decoding.completion import DecodeRequest, DecodingError
from t3d.decoding.engine import Engine, EngineConfig
from t3d.decoding.jobs import Job
from t3d.decoding.llm import LLM
from t3d.decoding.params import DecodeParams
from t3d.models.loading import load_model

BROKEN = 37
"""The token whose embedding is not a number: an id that nothing but its requests uses."""
SETTINGS = [
    {"temperature": 0.0},
    {"temperature": 0.1},
    {"temperature": 1.0, "top_k": 5, "confidence": "sampled"},
    {"temperature": 0.7, "top_p": 0.8, "remasking": "random"},
    {"temperature": 1.0, "remasking": "entropy_bounded"},
    {"temperature": 1.0, "remasking": "low_confidence_dynamic", "confidence_threshold": 0.3},
    {"temperature": 1.0, "remasking": "left_to_right"},
    {"temperature": 1.0, "remasking": "self_speculative", "draft_groups": "all"},
]


def jobs_of(params, prompts):
    return [Job(DecodeRequest(id=name, prompt_ids=tuple(ids)), params) for name, ids in prompts.items()]


def healthy(num_prompts):
    return {f"healthy/{n}": [(5 * n + place) % 30 for place in range(3 + 2 * n)] for n in range(num_prompts)}


@pytest.fixture(scope="module")
def broken_model(make_model):
    """The mask is another token, and the head never says the broken one."""
    model = make_model(mask_token_id=38)
    with torch.no_grad():
        model.get_input_embeddings().weight[BROKEN] = torch.nan
        model.lm_head.weight[BROKEN] = 0.0
    return model


def engine_of(model, **settings):
    return Engine(model, mask_token_id=38, stop_token_ids=(13, 17), config=EngineConfig(**settings))


@pytest.mark.parametrize(
    ("own", "batch_size", "fixed_shapes"),
    [
        *((own, 3, index % 2 == 1) for index, own in enumerate(SETTINGS[:2])),
        *(
            pytest.param(own, 3, index % 2 == 1, marks=pytest.mark.many_inputs)
            for index, own in enumerate(SETTINGS[2:])
        ),
        *(pytest.param(own, 3, index % 2 == 0, marks=pytest.mark.slow) for index, own in enumerate(SETTINGS)),
        pytest.param(SETTINGS[1], 1, False, marks=pytest.mark.many_inputs),
        (SETTINGS[1], 16, False),
    ],
    ids=str,
)
def test_a_request_whose_logits_are_not_numbers_fails_alone(broken_model, own, batch_size, fixed_shapes):
    """Its slot goes to the next request clean; all others are answered as without it."""
    params = DecodeParams(max_new_tokens=9, **own)
    good = healthy(6)
    bad = {f"bad/{n}": [1, 2, BROKEN, 3, *range(4 * n)] for n in range(3)}
    mixed = dict(sorted((good | bad).items(), key=lambda pair: pair[0][::-1]))  # in turns
    engine = engine_of(broken_model, max_batch_size=batch_size, fixed_shapes=fixed_shapes)
    expected = engine_of(broken_model, max_batch_size=batch_size).decode(jobs_of(params, good))
    for _ in range(2):  # the slots of fixed shapes serve the next run too
        done = engine.decode(jobs_of(params, mixed))
        assert {name: done[name] for name in good} == expected
        for name in bad:
            assert (done[name].finish_reason, done[name].response_ids) == ("error", ())
            reason = "logits are not numbers (NaN): its weight model.embed_tokens.weight is not finite"
            assert reason in done[name].error
    assert engine.decode(jobs_of(params, good)) == expected


@pytest.mark.parametrize("temperature", [0.0, 0.1])
def test_a_model_that_is_not_a_number_fails_with_the_name_of_its_weight(make_model, temperature):
    model = make_model()
    with torch.no_grad():
        model.model.norm.weight[0] = torch.nan
    done = engine_of(model).decode(
        jobs_of(DecodeParams(temperature=temperature, max_new_tokens=4), healthy(3))
    )
    assert len(done) == 3
    for completion in done.values():
        assert "not numbers (NaN): its weight model.norm.weight is not finite. Fix: " in completion.error


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_failure_in_a_later_block_ends_the_stream_of_its_request_with_the_reason(make_model, value):
    """Weights that are finite are not blamed."""
    model = make_model()

    def spoil(_, __, kwargs, output):
        position = kwargs["position_ids"][0, kwargs["logit_positions"]]
        output.logits[position >= 8] = value

    model.register_forward_hook(spoil, with_kwargs=True)
    params = DecodeParams(temperature=1.0, max_new_tokens=16)
    (job,) = jobs_of(params, {"a": [1, 2, 3, 4]})
    updates = list(engine_of(model).stream([dataclasses.replace(job, detail="steps")]))
    assert sum(update.is_committed for update in updates) == 2
    last = updates[-1]
    assert last.completion is not None and last.token_ids == ()
    assert "its weights are finite, this request overflows in torch.float64" in last.completion.error


def test_failures_are_returned_or_raised_as_asked(checkpoint):
    loaded = load_model(checkpoint, device="cpu")
    with torch.no_grad():
        loaded.model.get_input_embeddings().weight[100] = torch.nan
    prompts, params = [[1, 2, 3], [1, 100], [4, 5]], DecodeParams(max_new_tokens=6)
    llm = LLM(loaded)
    expected = llm.generate([prompts[0], prompts[2]], params, ids=["0", "2"], progress=False)
    first, failed, last = llm.generate(prompts, params, progress=False, on_error="return")
    assert [first, last] == expected
    assert (failed.id, failed.finish_reason, failed.text) == ("1", "error", "")
    with pytest.raises(DecodingError, match=r"1 requests failed: '1': the model's logits") as caught:
        llm.generate(prompts, params, progress=False)
    assert caught.value.completions == {"0": first, "2": last}
    (streamed,) = (update.completion for update in llm.stream(prompts[1], params) if update.completion)
    assert streamed.error == failed.error


@pytest.mark.parametrize("token", [-1, 40, 10**6])
def test_a_prompt_with_an_id_that_has_no_row_fails_alone(make_model, token):
    params, good = DecodeParams(max_new_tokens=5), healthy(2)
    expected = engine_of(make_model()).decode(jobs_of(params, good))
    done = engine_of(make_model()).decode(jobs_of(params, {"bad": [1, token]} | good))
    assert done["bad"].error.startswith(f"prompt_ids={token}: request 'bad' has this token id, but the model")
    assert {name: done[name] for name in good} == expected


def test_a_cleared_slot_is_all_zeros_and_the_others_stay():
    cache = SlotCache(3, 4)
    keys, values = cache.layer(0, torch.ones(1, 2, 2))
    keys.fill_(torch.nan)
    values.fill_(7.0)
    cache.clear(1)
    assert (keys[1] == 0).all() and (values[1] == 0).all()
    assert keys[[0, 2]].isnan().all() and (values[[0, 2]] == 7.0).all()
