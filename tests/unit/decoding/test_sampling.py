"""Logits to candidate tokens and their confidence."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from t3d.counter_rng import counter_uniform
from t3d.decoding.params import MAX_TEMPERATURE, MIN_TEMPERATURE, DecodeParams
from t3d.decoding.sampling import candidate_tokens

MASK = 3
LOGITS = [1.0, 0.0, -1.0, 9.0, 2.0, 0.5]
"""Six tokens; the mask id 3 has by far the largest logit."""
ALLOWED = [0, 1, 2, 4, 5]

LOGIT_ROWS = st.lists(
    st.lists(st.sampled_from([-3.0, -1.0, 0.0, 0.25, 0.5, 1.0, 2.0, 4.0]), min_size=6, max_size=6),
    min_size=1,
    max_size=5,
)
"""Rows of six logits, with many ties."""


def cells(count):
    """The middles of ``count`` equal cells of (0, 1): every interval gets its share to one cell."""
    return (torch.arange(count, dtype=torch.float64) + 0.5) / count


def draw(logits, uniform, mask=MASK, **params):
    logits = torch.as_tensor(logits, dtype=torch.float64)
    uniform = torch.as_tensor(uniform, dtype=torch.float64)
    return candidate_tokens(logits.expand(len(uniform), -1), uniform, DecodeParams(**params), mask)


def softmax(logits, temperature=1.0, mask=MASK):
    weights = [0.0 if i == mask else math.exp(value / temperature) for i, value in enumerate(logits)]
    return [weight / sum(weights) for weight in weights]


# --- greedy ---------------------------------------------------------------------------------------------


@given(LOGIT_ROWS, st.integers(0, 5))
def test_temperature_zero_is_argmax_without_the_mask(rows, mask):
    """The lowest id among equals; the confidence is the softmax over all tokens but the mask."""
    uniform = torch.rand(len(rows), dtype=torch.float64)
    token, confidence, *_ = candidate_tokens(
        torch.tensor(rows, dtype=torch.float64), uniform, DecodeParams(temperature=0.0), mask
    )
    for row, chosen, prob in zip(rows, token.tolist(), confidence.tolist(), strict=True):
        best = max((i for i in range(6) if i != mask), key=lambda i: (row[i], -i))
        assert chosen == best
        assert prob == pytest.approx(softmax(row, mask=mask)[best])


@given(LOGIT_ROWS, st.integers(0, 5), st.sampled_from([0.1, 1.0, 2.0]))
def test_top_k_of_one_is_argmax(rows, mask, temperature):
    logits = torch.tensor(rows, dtype=torch.float64)
    uniform = counter_uniform(0, torch.arange(len(rows)))
    greedy = candidate_tokens(logits, uniform, DecodeParams(temperature=0.0), mask)
    top_1 = candidate_tokens(logits, uniform, DecodeParams(temperature=temperature, top_k=1), mask)
    assert torch.equal(greedy[0], top_1[0])
    assert torch.equal(greedy[1], top_1[1])


def test_a_tiny_top_p_is_argmax():
    token, *_ = draw(LOGITS, cells(50), temperature=1.0, top_p=1e-9)
    assert set(token.tolist()) == {4}


def test_a_tiny_temperature_is_argmax_without_overflow():
    token, confidence, *_ = draw(LOGITS, cells(50), temperature=1e-4, confidence="sampled")
    assert set(token.tolist()) == {4}
    assert torch.equal(confidence, torch.ones_like(confidence))


# --- the draw -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_inverse_cdf_gives_each_token_its_probability(temperature, dtype):
    """10,000 equal cells: each token is drawn in its probability's share of cells, to one cell."""
    logits = torch.tensor(LOGITS, dtype=dtype).expand(10_000, -1)
    token, *_ = candidate_tokens(logits, cells(10_000), DecodeParams(temperature=temperature), MASK)
    counts = torch.bincount(token, minlength=6)
    for count, probability in zip(counts.tolist(), softmax(LOGITS, temperature), strict=True):
        assert count == pytest.approx(probability * 10_000, abs=1.5)
    assert torch.equal(token, token.sort().values)  # monotone in the uniform


def test_frequencies_of_counter_uniforms_match_the_softmax():
    """Chi-square of 20,000 draws, 4 degrees of freedom: below 25 (p = 5e-5)."""
    token, *_ = draw(LOGITS, counter_uniform(0, torch.arange(20_000)), temperature=1.0)
    counts = torch.bincount(token, minlength=6)[ALLOWED].double()
    expected = torch.tensor(softmax(LOGITS))[ALLOWED] * 20_000
    assert ((counts - expected) ** 2 / expected).sum() < 25


@pytest.mark.parametrize("mask", range(6))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("params", [{}, {"top_k": 5}, {"top_k": 6}, {"top_p": 0.999}, {"temperature": 5.0}])
def test_the_mask_is_never_drawn(mask, dtype, params):
    """Not even at the ends of the interval, nor if it is the first or the last token, nor in bfloat16."""
    ends = torch.tensor([2.0**-54, 2.0**-30, 1 - 2.0**-30, 1 - 2.0**-53], dtype=torch.float64)
    uniform = torch.cat([cells(500), ends])
    row = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4, 0.5], dtype=dtype)
    row[mask] = 20.0
    token, confidence, *_ = candidate_tokens(
        row.expand(len(uniform), -1), uniform, DecodeParams(**({"temperature": 1.0} | params)), mask
    )
    assert set(token.tolist()) <= set(range(6)) - {mask}
    assert (confidence > 0).all()


def test_a_mask_that_takes_all_probability_is_still_not_drawn():
    row = [-1000.0, 0.0, 0.0, 1e30, 0.0, 0.0]
    token, confidence, *_ = draw(row, cells(100), temperature=1.0)
    assert set(token.tolist()) == {1, 2, 4, 5}
    assert confidence.tolist() == pytest.approx([0.25] * 100)


@given(LOGIT_ROWS, st.integers(1, 6))
def test_top_k_keeps_the_k_likeliest(rows, top_k):
    """The lower id wins a tie at the edge; the kept probabilities are scaled to sum to one."""
    uniform = cells(64)
    for row in rows:
        ranked = sorted(ALLOWED, key=lambda i: (-row[i], i))[:top_k]
        token, confidence, *_ = draw(row, uniform, temperature=1.0, top_k=top_k, confidence="sampled")
        assert set(token.tolist()) <= set(ranked)
        total = sum(math.exp(row[i]) for i in ranked)
        assert confidence.tolist() == pytest.approx([math.exp(row[i]) / total for i in token.tolist()])


@given(LOGIT_ROWS, st.sampled_from([0.05, 0.31, 0.57, 0.83, 0.97]))
def test_top_p_keeps_the_smallest_set_that_reaches_it(rows, top_p):
    """Brute force: likeliest first until the sum is at least top_p."""
    uniform = cells(64)
    for row in rows:
        probability, kept, total = softmax(row), [], 0.0
        for i in sorted(ALLOWED, key=lambda i: (-row[i], i)):
            kept.append(i)
            total += probability[i]
            if total >= top_p:
                break
        token, confidence, *_ = draw(row, uniform, temperature=1.0, top_p=top_p, confidence="sampled")
        assert set(token.tolist()) <= set(kept)
        assert confidence.tolist() == pytest.approx([probability[i] / total for i in token.tolist()])


def test_top_p_by_hand():
    """Probabilities 1/2, 1/4, 1/8, 1/8: 0.5 keeps one token, 0.6 two, 0.75 two, 0.8 three, 0.9 four."""
    row = [math.log(0.5), math.log(0.25), math.log(0.125), 50.0, math.log(0.125), -1e9]
    for top_p, kept in ((0.5, {0}), (0.6, {0, 1}), (0.75, {0, 1}), (0.8, {0, 1, 2}), (0.9, {0, 1, 2, 4})):
        token, *_ = draw(row, cells(2000), temperature=1.0, top_p=top_p - 1e-9)
        assert set(token.tolist()) == kept


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.25, {0}), (0.5, {0, 1}), (0.75, {0, 1, 2}), (1.0, {0, 1, 2, 4})]
)
def test_a_set_that_reaches_top_p_exactly_is_large_enough(top_p, kept):
    """Four equal tokens of exactly 1/4; the lower ids come first."""
    token, *_ = draw([0.0, 0.0, 0.0, 50.0, 0.0, -1e9], cells(500), temperature=1.0, top_p=top_p)
    assert set(token.tolist()) == kept


def test_top_p_counts_what_top_k_left():
    """Of 1/2, 1/4, 1/8, 1/8 top_k=2 leaves 2/3 and 1/3: top_p=0.6 keeps the first alone."""
    row = [math.log(0.5), math.log(0.25), math.log(0.125), 50.0, math.log(0.125), -1e9]
    token, *_ = draw(row, cells(500), temperature=1.0, top_k=2, top_p=0.6)
    assert set(token.tolist()) == {0}


# --- confidence -----------------------------------------------------------------------------------------


def test_model_confidence_ignores_temperature_and_filters():
    token, confidence, *_ = draw(LOGITS, cells(200), temperature=3.0, top_k=4, top_p=0.95, confidence="model")
    probability = softmax(LOGITS)
    assert confidence.tolist() == pytest.approx([probability[i] for i in token.tolist()])


def test_sampled_confidence_is_the_tempered_probability():
    token, confidence, *_ = draw(LOGITS, cells(200), temperature=3.0, confidence="sampled")
    probability = softmax(LOGITS, 3.0)
    assert confidence.tolist() == pytest.approx([probability[i] for i in token.tolist()])


def test_half_precision_logits_are_reduced_in_float32():
    row = torch.tensor([LOGITS], dtype=torch.bfloat16)
    _, confidence, *_ = candidate_tokens(row, cells(1), DecodeParams(temperature=0.0), MASK)
    assert confidence.dtype == torch.float32
    assert confidence.item() == pytest.approx(softmax(LOGITS)[4], abs=1e-6)


def test_no_position_gives_no_token():
    nothing = torch.empty(0, dtype=torch.float64)
    for params in (DecodeParams(temperature=0.0), DecodeParams(temperature=1.0, top_k=2, top_p=0.5)):
        token, confidence, *_ = candidate_tokens(torch.empty(0, 6), nothing, params, MASK)
        assert token.shape == confidence.shape == (0,)


def test_rows_do_not_influence_each_other():
    logits, uniform = torch.randn(7, 6, dtype=torch.float64), cells(7)
    params = DecodeParams(temperature=1.0, top_k=4, top_p=0.9)
    token, confidence, *_ = candidate_tokens(logits, uniform, params, MASK)
    for row in range(7):
        alone = candidate_tokens(logits[row : row + 1], uniform[row : row + 1], params, MASK)
        assert (alone[0].item(), alone[1].item()) == (token[row].item(), confidence[row].item())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("filters", [{}, {"top_k": 2}, {"top_p": 0.7}, {"confidence": "sampled"}], ids=str)
def test_the_lowest_temperature_draws_what_greedy_decoding_takes(dtype, filters):
    """Logits of any size that differ by more than rounding."""
    logits = torch.randn(64, 40, generator=torch.Generator().manual_seed(0)) * 10
    logits[32:] *= 1e6
    uniform = cells(64)
    greedy = candidate_tokens(logits.to(dtype), None, DecodeParams(temperature=0.0), MASK)
    settings = DecodeParams(temperature=MIN_TEMPERATURE, **filters)
    drawn = candidate_tokens(logits.to(dtype), uniform, settings, MASK)
    assert torch.equal(drawn.token_M, greedy.token_M)
    assert torch.equal(drawn.logprob_M, greedy.logprob_M)


@pytest.mark.parametrize("temperature", [MIN_TEMPERATURE, 0.1, 1.0, MAX_TEMPERATURE])
def test_float32_bears_every_temperature(temperature):
    logits = torch.tensor([LOGITS, [1e4 * value for value in LOGITS]])
    drawn = candidate_tokens(logits, cells(2), DecodeParams(temperature=temperature), MASK)
    assert drawn.logprob_M.isfinite().all()
    assert (drawn.token_M != MASK).all()


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("place", [[0], [5], [0, 1, 2, 4, 5]])
@pytest.mark.parametrize(
    "own",
    [{"temperature": 0.0}, {}, {"top_k": 2}, {"top_p": 0.7, "temperature": 1.0}],
    ids=str,
)
def test_logits_that_are_not_numbers_are_told_by_their_log_probability_row_by_row(own, place, value):
    logits = torch.tensor([LOGITS, LOGITS, LOGITS])
    sound = candidate_tokens(logits, cells(3), DecodeParams(**own), MASK)
    logits[1, place] = value
    told = candidate_tokens(logits, cells(3), DecodeParams(**own), MASK)
    assert told.logprob_M.isfinite().tolist() == [True, False, True]
    assert (told.token_M < len(LOGITS)).all()
    assert torch.equal(told.token_M[[0, 2]], sound.token_M[[0, 2]])
