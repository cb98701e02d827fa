"""The specification of decoding, checked against a hand-made model and by replaying its own record."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from t3d.attention.forward import block_forward
from t3d.counter_rng import counter_uniform, stable_key
from t3d.decoding.completion import DecodeRequest
from t3d.decoding.params import DecodeParams
from t3d.decoding.sampling import ORDER_STREAM, TOKEN_STREAM, candidate_tokens
from t3d.decoding.specification import decode_as_specified
from t3d.decoding.transfer import transfer_mask

MASK, VOCAB = 37, 40


class ScriptedModel(torch.nn.Module):
    """Predicts token 10 + position with a logit given per position, whatever it sees."""

    def __init__(self, strength):
        super().__init__()
        self.strength, self.seen = strength, []

    def forward(self, input_ids, position_ids, **_):
        self.seen.append(input_ids[0].tolist())
        logits = torch.zeros(*input_ids.shape, VOCAB, dtype=torch.float64)
        strength = torch.tensor(self.strength, dtype=torch.float64)[position_ids]
        return SimpleNamespace(logits=logits.scatter(2, 10 + position_ids[..., None], strength[..., None]))


def scripted(strength, prompt, stops=(), **params):
    model = ScriptedModel(strength)
    request = DecodeRequest(id="a", prompt_ids=tuple(prompt))
    params = DecodeParams(temperature=0.0, **params)
    return model, decode_as_specified(model, request, params, mask_token_id=MASK, stop_token_ids=stops)


def test_static_decoding_by_hand():
    """Prompt 5 6, blocks of 4, one token per step; logits 0 0 | 1 2 || 4 3 2 1 give the order.

    First block: positions 3, 2 (steps 1, 2). Second: 4, 5, 6, 7 (steps 3 to 6).
    """
    model, completion = scripted([0, 0, 1, 2, 4, 3, 2, 1], (5, 6), max_new_tokens=6)
    assert completion.response_ids == (12, 13, 14, 15, 16, 17)
    assert completion.step_map == (2, 1, 3, 4, 5, 6)
    assert (completion.visible_length, completion.finish_reason) == (6, "length")
    assert (completion.num_denoising_steps, completion.num_forwards) == (6, 6)
    m = MASK
    assert model.seen == [
        [5, 6, m, m],
        [5, 6, m, 13],
        [5, 6, 12, 13, m, m, m, m],
        [5, 6, 12, 13, 14, m, m, m],
        [5, 6, 12, 13, 14, 15, m, m],
        [5, 6, 12, 13, 14, 15, 16, m],
    ]


def test_few_step_decoding_by_hand():
    """Two tokens per step: the prompt's tail leaves two masks, so the first block takes one step."""
    _, completion = scripted([0, 0, 1, 2, 4, 1, 2, 3], (5, 6), max_new_tokens=6, steps_per_block=2)
    assert completion.step_map == (1, 1, 2, 3, 3, 2)
    assert completion.num_denoising_steps == 3


def test_dynamic_decoding_by_hand():
    """Logit 9 is a probability of .995, above 0.9: positions 4, 6, 7 at once, then position 5."""
    strength = [0, 0, 9, 9, 9, 1, 9, 9]
    _, completion = scripted(strength, (5, 6), max_new_tokens=6, remasking="low_confidence_dynamic")
    assert completion.step_map == (1, 1, 2, 3, 2, 2)


def test_entropy_bounded_decoding_by_hand():
    """Logit 9 leaves 0.05 nats, logits 1 and 2 over 3: two positions of logit 9 stay below 0.11."""
    strength = [0, 0, 9, 2, 9, 9, 9, 1]
    settings = {"remasking": "entropy_bounded", "entropy_bound": 0.11}
    _, completion = scripted(strength, (5, 6), max_new_tokens=6, **settings)
    assert completion.step_map == (1, 2, 3, 3, 4, 5)


def test_sequential_decoding_by_hand():
    _, completion = scripted([0, 0, 1, 2, 4, 1, 2, 3], (5, 6), max_new_tokens=6, remasking="sequential")
    assert completion.step_map == (1, 2, 3, 4, 5, 6)


def test_decoding_goes_on_to_the_end_of_the_block_of_the_stop_token():
    """The stop token 12 is the first response token; its block is finished, no other one begun."""
    _, completion = scripted([0, 0, 2, 1, 1, 1, 1, 1], (5, 6), stops=(12,), max_new_tokens=6)
    assert completion.response_ids == (12, 13)
    assert (completion.visible_length, completion.finish_reason) == (1, "stop")
    assert completion.num_denoising_steps == 2


def test_a_stop_token_in_the_prompt_does_not_stop():
    """Not even in the prompt's tail, which lies in the first block."""
    _, completion = scripted([0, 0, 2, 1, 1, 1, 1, 1], (5, 6), stops=(5, 6), max_new_tokens=6)
    assert (completion.visible_length, completion.finish_reason) == (6, "length")


def test_max_new_tokens_is_exact_and_the_terminal_block_whole():
    """Three visible tokens of the six that the two blocks hold; a stop token after them does not count."""
    _, completion = scripted([0, 0, 2, 1, 1, 1, 1, 1], (5, 6), stops=(16,), max_new_tokens=3)
    assert completion.response_ids == (12, 13, 14, 15, 16, 17)
    assert (completion.visible_length, completion.finish_reason) == (3, "length")
    assert completion.visible_ids == (12, 13, 14)


@st.composite
def decode_settings(draw):
    """Plain fields of a request and of DecodeParams."""
    block_size = draw(st.sampled_from([1, 2, 4, 8]))
    sampling = draw(
        st.sampled_from(
            [
                {"temperature": 0.0},
                {"temperature": 1.0},
                {"temperature": 1.0, "top_k": 5, "confidence": "sampled"},
                {"temperature": 0.7, "top_p": 0.8},
            ]
        )
    )
    params = {
        "block_size": block_size,
        "steps_per_block": draw(st.integers(1, block_size)),
        "remasking": draw(
            st.sampled_from(
                ["low_confidence_static", "low_confidence_dynamic", "entropy_bounded", "sequential", "random"]
            )
        ),
        "confidence_threshold": 0.3,
        "entropy_bound": 2.0,
        "max_new_tokens": draw(st.integers(1, 2 * block_size + 3)),
        "seed": draw(st.integers(0, 99)),
    }
    prompt = draw(st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=3 * block_size))
    return prompt, params | sampling


def brute_force_mask(length, block_size):
    rows = [[key // block_size <= query // block_size for key in range(length)] for query in range(length)]
    return torch.tensor(rows)[None]


@settings(max_examples=25)
@given(decode_settings(), st.sampled_from([(), (13, 17, 34)]))
def test_every_recorded_step_is_derived_again_from_its_state(tiny_model, case, stops):
    """Replay: the model, shown ``Trajectory.state_at(k)``, commits exactly what step k + 1 recorded."""
    prompt, fields = case
    params = DecodeParams(**fields)
    size, start = params.block_size, len(prompt)
    completion = decode_as_specified(
        tiny_model,
        DecodeRequest(id="replay", prompt_ids=tuple(prompt)),
        params,
        mask_token_id=MASK,
        stop_token_ids=stops,
    )
    record = completion.trajectory
    steps = [0] * start + list(record.step_map)
    quotient, remainder = divmod(size, params.steps_per_block)
    for step in range(record.num_denoising_steps):
        block_start = steps.index(step + 1) // size * size
        end = block_start + size
        ids = torch.tensor([[*prompt, *record.state_at(step)][:end]])
        position = torch.arange(end)[None]
        with torch.no_grad():
            logits = block_forward(tiny_model, ids, position, brute_force_mask(end, size))[0, block_start:]
        block = torch.arange(block_start, end)
        noise = (params.seed, stable_key("replay"), block, step + 1)
        candidates = candidate_tokens(logits, counter_uniform(*noise, TOKEN_STREAM), params, MASK)
        token, entropy = candidates.token_M, candidates.entropy_M
        in_block = torch.tensor(steps[block_start:end])
        local_step = len({value for value in in_block.tolist() if 0 < value <= step})
        chosen = transfer_mask(
            candidates.confidence_M[None],
            (in_block > step)[None],
            torch.tensor([quotient + (local_step < remainder)]),
            params,
            order_uniform_RS=counter_uniform(*noise, ORDER_STREAM)[None],
            entropy_RS=None if entropy is None else entropy[None],
        )[0]
        assert torch.equal(chosen, in_block == step + 1)
        assert token[chosen].tolist() == [record.response_ids[p - start] for p in block[chosen].tolist()]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_decoding_is_a_function_of_its_arguments(tiny_model, temperature):
    request = DecodeRequest(id="a", prompt_ids=(1, 2, 3))
    params = DecodeParams(temperature=temperature, max_new_tokens=9)

    def run(request=request, params=params):
        return decode_as_specified(tiny_model, request, params, mask_token_id=MASK, stop_token_ids=())

    first = run()
    torch.manual_seed(123)
    assert run() == first
    renamed = run(DecodeRequest(id="b", prompt_ids=(1, 2, 3)))
    reseeded = run(params=DecodeParams(temperature=temperature, max_new_tokens=9, seed=1))
    same = temperature == 0
    assert (renamed.response_ids == first.response_ids) == same
    assert (reseeded.response_ids == first.response_ids) == same
