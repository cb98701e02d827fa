"""Noisy states: which tokens are masked, and what stands in their place."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from t3d.training.block_grid import TrainingExample, lay_on_grid
from t3d.training.noising import (
    NoiseSource,
    Stream,
    draw_mask_ratios,
    mask_ratio_probabilities,
    mix_random_tokens,
    pair_with_complement,
    random_noise_mask,
    trajectory_noise_mask,
    visited_noise_mask,
)
from t3d.trajectory import Trajectory

RATIOS = (1.0, 0.75, 0.5, 0.25)
MASK, VOCAB = 37, 40


def noise_of(keys, *, seed=0, epoch=0):
    keys = torch.as_tensor(keys)
    return NoiseSource(seed=seed, epoch_R=torch.full_like(keys, epoch), sample_key_R=keys)


def whole_blocks(rows, blocks, size):
    """Positions of full blocks, all of them valid."""
    position = torch.arange(blocks * size).view(1, blocks, size).expand(rows, -1, -1)
    return position, torch.ones(rows, blocks, size, dtype=torch.bool)


# --- masked by the order of commits ------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "order", "masked"),
    [
        # steps 2 4 1 3: committed in the order third, first, fourth, second token
        (1.0, "trajectory", [1, 1, 1, 1]),
        (0.75, "trajectory", [1, 1, 0, 1]),
        (0.5, "trajectory", [0, 1, 0, 1]),
        (0.25, "trajectory", [0, 1, 0, 0]),
        (1.0, "released", [1, 1, 1, 1]),
        (0.75, "released", [1, 0, 1, 1]),
        (0.5, "released", [1, 0, 1, 0]),
        (0.25, "released", [0, 0, 1, 0]),
    ],
)
def test_state_direction_by_hand(ratio, order, masked):
    """The paper keeps the earliest commits visible; the released code masks exactly these."""
    steps = torch.tensor([[[2, 4, 1, 3]]])
    mask = trajectory_noise_mask(steps, torch.ones(1, 1, 4, dtype=torch.bool), torch.tensor([[ratio]]), order)
    assert mask.int().tolist() == [[masked]]


@pytest.mark.parametrize(
    ("ratio", "masked"),
    [(0.25, [0, 0, 1, 1]), (0.5, [0, 0, 1, 1]), (0.75, [1, 1, 1, 1]), (1.0, [1, 1, 1, 1])],
)
def test_tokens_committed_together_are_masked_together(ratio, masked):
    """Steps 5 5 6 6: the teacher went from all masked to the first two visible, nothing between."""
    steps = torch.tensor([[[5, 5, 6, 6]]])
    mask = trajectory_noise_mask(steps, torch.ones(1, 1, 4, dtype=torch.bool), torch.tensor([[ratio]]))
    assert mask.int().tolist() == [[masked]]


@pytest.mark.parametrize(
    ("power", "uniform", "masked"),
    [
        # behind a prompt token steps 5 5 6 8: 4, 2 or 1 of 4 masked; power 0 has cuts at 1/3 and 2/3,
        # power 1 at 4/7 and 6/7
        (0.0, 0.32, [0, 1, 1, 1, 1]),
        (0.0, 0.34, [0, 0, 0, 1, 1]),
        (0.0, 0.68, [0, 0, 0, 0, 1]),
        (1.0, 0.56, [0, 1, 1, 1, 1]),
        (1.0, 0.58, [0, 0, 0, 1, 1]),
        (1.0, 0.86, [0, 0, 0, 0, 1]),
    ],
)
def test_only_visited_states_are_drawn_each_by_its_masked_share(power, uniform, masked):
    steps, valid = torch.tensor([[[6, 5, 5, 6, 8]]]), torch.tensor([[[False, True, True, True, True]]])
    mask = visited_noise_mask(steps, valid, torch.tensor([[uniform]]), power)
    assert mask.int().tolist() == [[masked]]


@given(
    st.lists(st.tuples(st.integers(1, 5), st.booleans()), min_size=1, max_size=8),
    st.floats(1e-6, 1 - 1e-6),
    st.sampled_from([0.0, 1.0, 8.0, -2.0]),
)
def test_a_visited_state_is_that_of_a_loop_over_the_steps(tokens, uniform, power):
    """The first token of a step in the order of places stands for it; of no valid token nothing is masked."""
    places = [place for place, (_, is_valid) in enumerate(tokens) if is_valid]
    drawn = list(dict.fromkeys(tokens[place][0] for place in places))
    states = [[place for place in places if tokens[place][0] >= step] for step in drawn]
    weights = [(len(state) / len(places)) ** power for state in states]
    left, expected = uniform * sum(weights), []
    for state, weight in zip(states, weights, strict=True):
        if left >= 0:
            expected = state
        left -= weight
    steps, valid = (torch.tensor([[values]]) for values in zip(*tokens, strict=True))
    mask = visited_noise_mask(steps, valid, torch.tensor([[uniform]], dtype=torch.float64), power)
    assert mask[0, 0].nonzero()[:, 0].tolist() == expected


def test_only_valid_tokens_count_and_are_masked():
    """Two prompt tokens, then steps 1 2: half of two valid tokens is one, the later."""
    steps = torch.tensor([[[9, 1, 1, 2]]])
    valid = torch.tensor([[[False, False, True, True]]])
    for order, masked in (("trajectory", [0, 0, 0, 1]), ("released", [0, 0, 1, 0])):
        mask = trajectory_noise_mask(steps, valid, torch.tensor([[0.5]]), order)
        assert mask.int().tolist() == [[masked]]


def test_at_least_one_token_is_masked_on_a_trajectory():
    """floor(2 * 0.25) = 0: the released code masks none, but a state without a mask teaches nothing."""
    steps, valid = torch.tensor([[[1, 2]]]), torch.ones(1, 1, 2, dtype=torch.bool)
    assert trajectory_noise_mask(steps, valid, torch.tensor([[0.25]])).int().tolist() == [[[0, 1]]]
    assert not trajectory_noise_mask(steps, valid, torch.tensor([[0.25]]), "released").any()


def test_a_block_of_padding_is_never_masked():
    steps, valid = torch.ones(1, 2, 4, dtype=torch.int64), torch.zeros(1, 2, 4, dtype=torch.bool)
    for order in ("trajectory", "released"):
        assert not trajectory_noise_mask(steps, valid, torch.ones(1, 2), order).any()


@pytest.mark.parametrize("count", [*range(1, 11), 50, 100])
def test_the_number_of_masks_is_the_exact_floor(count):
    """floor(count * ratio) in exact arithmetic: 100 * 0.29 is 29 although the product is 28.999..."""
    steps = torch.arange(1, count + 1).view(1, 1, count)
    valid = torch.ones(1, 1, count, dtype=torch.bool)
    for percent in (1, 10, 25, 29, 30, 50, 57, 58, 70, 75, 90, 100):
        ratio = torch.tensor([[percent / 100]], dtype=torch.float64)
        floor = count * percent // 100
        assert trajectory_noise_mask(steps, valid, ratio, "released").sum() == floor
        assert trajectory_noise_mask(steps, valid, ratio).sum() == max(1, floor)


@st.composite
def trajectory_fields(draw):
    """A trajectory with ties in its step map, for any rollout block size.

    Fields, not the object: the runtime type checker may not run inside a hypothesis strategy.
    """
    rollout_size = draw(st.sampled_from([1, 2, 4, 8]))
    prompt_length = draw(st.integers(1, 9))
    count = draw(st.integers(1, 3)) * rollout_size + (-prompt_length) % rollout_size
    step_map, first = [], 1
    for position in range(prompt_length, prompt_length + count):
        if position % rollout_size == 0 and step_map:
            first = max(step_map) + 1
        step_map.append(first + draw(st.integers(0, rollout_size - 1)))
    ids = draw(
        st.lists(st.integers(0, VOCAB - 1).filter(lambda i: i != MASK), min_size=count, max_size=count)
    )
    return {
        "id": "t",
        "prompt_ids": tuple(range(prompt_length)),
        "response_ids": tuple(ids),
        "step_map": tuple(step_map),
        "visible_length": count,
        "finish_reason": "length",
        "block_size": rollout_size,
        "mask_token_id": MASK,
    }


def example_of(trajectory, key=0, epoch=0):
    return TrainingExample(
        sample_key=key,
        epoch=epoch,
        prompt_ids=trajectory.prompt_ids,
        response_ids=trajectory.response_ids,
        step_map=trajectory.step_map,
        token_weight=[1.0] * len(trajectory.step_map),
        num_loss_tokens=len(trajectory.step_map),
    )


@given(
    trajectory_fields(), st.sampled_from([1, 2, 3, 4, 8]), st.sampled_from(["prompt", "response"]), st.data()
)
def test_every_block_state_is_one_the_teacher_visited(fields, block_size, origin, data):
    """Inside each of the student's blocks the noisy ids equal ``Trajectory.state_at(k)`` for some k.

    And no state with fewer masks, but still enough of them, was visited.
    """
    trajectory = Trajectory(**fields)
    grid = lay_on_grid([example_of(trajectory)], block_size, 0, origin)
    ratios = [data.draw(st.sampled_from(RATIOS)) for _ in range(grid.ids_RKS.shape[1])]
    mask = trajectory_noise_mask(grid.step_RKS, grid.valid_RKS, torch.tensor([ratios], dtype=torch.float64))
    noisy = grid.ids_RKS.masked_fill(mask, MASK)
    first = len(trajectory.prompt_ids)
    for block in range(grid.ids_RKS.shape[1]):
        valid = grid.valid_RKS[0, block]
        where = (grid.position_RKS[0, block][valid] - first).tolist()
        here = noisy[0, block][valid].tolist()
        visited = [
            [trajectory.state_at(step)[index] for index in where]
            for step in range(trajectory.num_denoising_steps + 1)
        ]
        asked = max(1, math.floor(len(where) * ratios[block]))
        enough = [state for state in visited if state.count(MASK) >= asked]
        assert here == min(enough, key=lambda state: state.count(MASK))


# --- mask ratios ---------------------------------------------------------------------------------


def test_mask_ratio_probabilities_by_hand():
    """Ratios to the 8th power: 1, .100113, .003906, .0000153; divided by their sum 1.104034."""
    probabilities = mask_ratio_probabilities(RATIOS, 8.0)
    assert probabilities.tolist() == pytest.approx([0.90577, 0.09068, 0.00354, 0.0000138], abs=5e-6)
    assert mask_ratio_probabilities(RATIOS, 0.0).tolist() == [0.25] * 4


def test_mask_ratios_follow_their_probabilities():
    """Uniforms in the middle of 100,000 equal cells: each count is its probability to one cell."""
    uniform = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    drawn = draw_mask_ratios(uniform.view(100, 1000), RATIOS, 8.0)
    for ratio, probability in zip(RATIOS, mask_ratio_probabilities(RATIOS, 8.0).tolist(), strict=True):
        assert (drawn == ratio).sum().item() == pytest.approx(probability * 100_000, abs=1)


def test_extreme_uniforms_draw_a_ratio():
    uniform = torch.tensor([[2.0**-54, 1 - 2.0**-53]], dtype=torch.float64)
    assert draw_mask_ratios(uniform, RATIOS, 8.0).tolist() == [[1.0, 0.25]]


def test_frequencies_over_samples_and_epochs():
    """20,000 (sample, epoch) pairs of the counter generator against .90577 and .09068, within 5 sigma."""
    _, valid = whole_blocks(2000, 1, 4)
    drawn = torch.cat(
        [
            draw_mask_ratios(
                noise_of(torch.arange(2000), epoch=epoch).level_uniform(valid, "block"), RATIOS, 8.0
            )
            for epoch in range(10)
        ]
    )
    for ratio, probability in ((1.0, 0.90577), (0.75, 0.09068), (0.5, 0.00354)):
        sigma = math.sqrt(probability * (1 - probability) / 20_000)
        assert (drawn == ratio).double().mean().item() == pytest.approx(probability, abs=5 * sigma)


def test_one_level_per_block_or_one_per_response():
    _, valid = whole_blocks(3, 4, 2)
    noise = noise_of([1, 2, 3])
    per_block = noise.level_uniform(valid, "block")
    per_response = noise.level_uniform(valid, "response")
    assert per_block.shape == per_response.shape == (3, 4)
    assert per_block.unique().numel() == 12
    assert torch.equal(per_response, per_response[:, :1].expand(3, 4))
    assert per_response.unique().numel() == 3


# --- masked at random ----------------------------------------------------------------------------


def test_random_masks_follow_their_probability():
    """Per block p = (1 - 0.001) t + 0.001; over 4,000 blocks of 8 the masks minus p average to zero."""
    position, valid = whole_blocks(1000, 4, 8)
    mask, probability = random_noise_mask(position, valid, noise_of(torch.arange(1000)))
    assert torch.equal(probability, probability[..., :1].expand_as(probability))
    assert probability.min() >= 1e-3 and probability.max() <= 1
    level = noise_of(torch.arange(1000)).level_uniform(valid, "block")
    torch.testing.assert_close(probability[..., 0], (0.999 * level + 0.001).float())
    assert (mask.double() - probability).mean().abs() < 5 * math.sqrt(1 / 6 / 32_000)
    assert probability[..., 0].mean().item() == pytest.approx(0.5005, abs=5 / math.sqrt(12 * 4000))
    high, low = mask[probability > 0.9].double().mean(), mask[probability < 0.1].double().mean()
    assert high > 0.93 and low < 0.07


def test_inverse_probabilities_make_the_loss_weights_average_to_one():
    """E[mask / p] = 1 per token: the sum of masked tokens weighted by 1 / p is unbiased."""
    position, valid = whole_blocks(2000, 4, 8)
    noise = noise_of(torch.arange(2000))
    mask, probability = random_noise_mask(position, valid, noise, mask_prob_range=(0.1, 1.0))
    assert (mask / probability).mean().item() == pytest.approx(1, abs=0.05)


def test_one_probability_per_response_with_that_scope():
    position, valid = whole_blocks(5, 3, 4)
    _, probability = random_noise_mask(position, valid, noise_of(torch.arange(5)), "response")
    assert torch.equal(probability, probability[:, :1, :1].expand_as(probability))


def test_random_masks_spare_what_is_not_valid():
    position, valid = whole_blocks(50, 2, 4)
    valid = valid & (position % 3 > 0)
    noise = noise_of(torch.arange(50))
    mask, _ = random_noise_mask(position, valid, noise, mask_prob_range=(0.9, 1.0))
    assert not (mask & ~valid).any()
    assert mask.any()


@pytest.mark.parametrize("scope", ["block", "response", "token"])
def test_a_range_bounds_the_probabilities_and_one_of_1_masks_everything(scope):
    position, valid = whole_blocks(300, 2, 8)
    noise = noise_of(torch.arange(300))
    _, probability = random_noise_mask(position, valid, noise, scope, (0.3, 0.8))
    assert probability.min() >= 0.3 and probability.max() <= 0.8
    assert probability.min() < 0.35 and probability.max() > 0.75
    mask, probability = random_noise_mask(position, valid, noise, scope, (1.0, 1.0))
    assert mask.all() and (probability == 1).all()
    mask, probability = random_noise_mask(position, valid, noise, scope, (0.5, 0.5))
    assert (probability == 0.5).all()
    assert mask.double().mean().item() == pytest.approx(0.5, abs=5 * math.sqrt(0.25 / 4800))


def test_one_probability_per_token_leaves_tokens_independent():
    """dLLM-RL: p_i ~ U(0.1, 0.9), so each token is masked with 1/2, and two of a block both with 1/4."""
    position, valid = whole_blocks(2000, 1, 8)
    mask, probability = random_noise_mask(position, valid, noise_of(torch.arange(2000)), "token", (0.1, 0.9))
    assert len(probability.unique()) > 15_000
    assert mask.double().mean().item() == pytest.approx(0.5, abs=5 * math.sqrt(0.25 / 16_000))
    pairs = (mask[..., ::2] & mask[..., 1::2]).double().mean().item()
    assert pairs == pytest.approx(0.25, abs=5 * math.sqrt(3 / 16 / 8000))
    high, low = mask[probability > 0.8].double().mean(), mask[probability < 0.2].double().mean()
    assert high.item() == pytest.approx(0.85, abs=0.05) and low.item() == pytest.approx(0.15, abs=0.05)


@given(
    st.lists(trajectory_fields(), min_size=1, max_size=4),
    st.sampled_from(["block", "response", "token"]),
    st.floats(0.05, 0.95),
)
def test_complementary_states_mask_each_token_exactly_once(batch, scope, low):
    """With p in the one state and 1 - p in the other; the first is the state without a complement."""
    examples = [example_of(Trajectory(**fields), key=key) for key, fields in enumerate(batch)]
    grid = lay_on_grid([*examples, *examples], 4, 0)
    noise = NoiseSource(seed=0, epoch_R=grid.epoch_R, sample_key_R=grid.sample_key_R)
    masks = random_noise_mask(grid.position_RKS, grid.valid_RKS, noise, scope, (low, 0.95))
    mask, probability = pair_with_complement(*masks, grid.valid_RKS)
    rows = len(examples)
    assert torch.equal(mask[:rows].int() + mask[rows:].int(), grid.valid_RKS[:rows].int())
    torch.testing.assert_close(probability[:rows] + probability[rows:], torch.ones_like(probability[:rows]))
    assert torch.equal(mask[:rows], masks[0][:rows])
    assert torch.equal(probability[:rows], masks[1][:rows])


# --- random tokens -------------------------------------------------------------------------------


def mix(noise_mask, position, noise, probability, rule="bernoulli", vocab_size=VOCAB, mask_id=MASK):
    clean = torch.full_like(position, 1)
    noisy = clean.masked_fill(noise_mask, mask_id)
    mixed = mix_random_tokens(
        noisy,
        noise_mask,
        position,
        noise,
        random_token_prob=probability,
        vocab_size=vocab_size,
        mask_token_id=mask_id,
        rule=rule,
    )
    return noisy, mixed


@pytest.mark.parametrize("rule", ["bernoulli", "exact_count"])
def test_random_tokens_replace_masks_only(rule):
    position, valid = whole_blocks(200, 2, 8)
    noise_mask = valid & (position % 3 > 0)
    noisy, mixed = mix(noise_mask, position, noise_of(torch.arange(200)), 0.5, rule)
    assert torch.equal(mixed[~noise_mask], noisy[~noise_mask])
    assert (mixed != noisy).any()


@pytest.mark.parametrize("rule", ["bernoulli", "exact_count"])
@pytest.mark.parametrize("mask_id", [0, 3, 6])
def test_the_mask_id_is_never_drawn_and_every_other_id_is(rule, mask_id):
    """Vocabulary of 7 with the mask id first, inside or last: 6 ids, equally often (chi-square, 5 d.o.f.)."""
    position, valid = whole_blocks(1500, 1, 8)
    _, mixed = mix(valid, position, noise_of(torch.arange(1500)), 1.0, rule, vocab_size=7, mask_id=mask_id)
    counts = torch.bincount(mixed.flatten(), minlength=7)
    assert counts[mask_id] == 0 and len(counts) == 7
    others = counts[torch.arange(7) != mask_id].double()
    assert ((others - 2000) ** 2 / 2000).sum() < 25


@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_bernoulli_replaces_each_mask_with_the_given_probability(probability):
    position, valid = whole_blocks(2000, 2, 4)
    noisy, mixed = mix(valid, position, noise_of(torch.arange(2000)), probability)
    sigma = math.sqrt(probability * (1 - probability) / 16_000)
    assert (mixed != noisy).double().mean().item() == pytest.approx(probability, abs=5 * sigma)


def test_no_random_tokens_at_probability_zero():
    position, valid = whole_blocks(2, 2, 4)
    for rule in ("bernoulli", "exact_count"):
        noisy, mixed = mix(valid, position, noise_of([1, 2]), 0.0, rule)
        assert torch.equal(noisy, mixed)


@given(st.lists(st.integers(0, 16), min_size=1, max_size=5), st.sampled_from([0.1, 0.25, 0.3, 0.5, 1.0]))
def test_exact_count_replaces_the_floor_and_at_least_one(counts, probability):
    """max(1, floor(probability * masks)) of each row's masks; none where there is no mask."""
    position, _ = whole_blocks(len(counts), 2, 8)
    noise_mask = position < torch.tensor(counts).view(-1, 1, 1)
    noisy, mixed = mix(noise_mask, position, noise_of(torch.arange(len(counts))), probability, "exact_count")
    expected = [min(count, max(1, round(count * probability * 100) // 100)) for count in counts]
    assert (mixed != noisy).flatten(1).sum(-1).tolist() == expected


def test_a_start_state_is_the_same_in_every_epoch():
    """ReDi's stochastic start; Bernoulli noise changes. Another sample or seed has another start."""
    position, valid = whole_blocks(200, 2, 8)
    keys = torch.arange(200)

    def mixed(rule, epoch, seed=0, keys=keys):
        return mix(valid, position, noise_of(keys, seed=seed, epoch=epoch), 0.3, rule)[1]

    start = mixed("start_state", 0)
    assert torch.equal(start, mixed("start_state", 7))
    assert torch.equal(start, mixed("bernoulli", 0))
    assert not torch.equal(start, mixed("bernoulli", 7))
    assert not torch.equal(start, mixed("start_state", 0, seed=1))
    assert not torch.equal(start, mixed("start_state", 0, keys=keys + 200))
    share = (start != MASK).double().mean().item()
    assert share == pytest.approx(0.3, abs=5 * math.sqrt(0.21 / 3200))


def test_a_start_state_is_what_all_states_of_a_response_are_cut_from():
    """Where fewer tokens are masked, the masked ones show the same start."""
    position, valid = whole_blocks(50, 2, 8)
    few = valid & (position % 3 > 0)
    noise = noise_of(torch.arange(50))
    start, part = (mix(mask, position, noise, 0.3, "start_state")[1] for mask in (valid, few))
    assert torch.equal(part[few], start[few])


# --- what the noise depends on ---------------------------------------------------------------------


def noisy_state(examples, *, seed=0, rule="bernoulli", scope="block", origin="prompt"):
    """The whole road from examples to noisy ids; one list of response ids per example."""
    grid = lay_on_grid(examples, 4, 0, origin)
    noise = NoiseSource(seed=seed, epoch_R=grid.epoch_R, sample_key_R=grid.sample_key_R)
    ratio = draw_mask_ratios(noise.level_uniform(grid.valid_RKS, scope), (1.0, 0.75, 0.5, 0.25), 1.0)
    by_order = trajectory_noise_mask(grid.step_RKS, grid.valid_RKS, ratio)
    at_random, probability = random_noise_mask(grid.position_RKS, grid.valid_RKS, noise, scope)
    states = []
    for noise_mask in (by_order, at_random):
        noisy = mix_random_tokens(
            grid.ids_RKS.masked_fill(noise_mask, MASK),
            noise_mask,
            grid.position_RKS,
            noise,
            random_token_prob=0.3,
            vocab_size=VOCAB,
            mask_token_id=MASK,
            rule=rule,
        )
        states.append(noisy)
    return [
        [state[row][grid.valid_RKS[row]].tolist() for state in states]
        + [probability[row][grid.valid_RKS[row]].tolist()]
        for row in range(len(examples))
    ]


@given(
    st.lists(trajectory_fields(), min_size=1, max_size=4),
    st.sampled_from(["bernoulli", "exact_count", "start_state"]),
    st.sampled_from(["block", "response", "token"]),
    st.sampled_from(["prompt", "response"]),
    st.randoms(use_true_random=False),
)
def test_the_noise_of_a_sample_is_the_same_in_every_batch(batch, rule, scope, origin, random):
    """Alone, together, and in another order."""
    examples = [example_of(Trajectory(**fields), key=key) for key, fields in enumerate(batch)]
    settings = {"rule": rule, "scope": scope, "origin": origin}
    alone = [noisy_state([example], **settings)[0] for example in examples]
    assert noisy_state(examples, **settings) == alone
    order = list(range(len(examples)))
    random.shuffle(order)
    assert noisy_state([examples[index] for index in order], **settings) == [alone[index] for index in order]


def long_example(key, epoch):
    return TrainingExample(
        sample_key=key,
        epoch=epoch,
        prompt_ids=[1, 2],
        response_ids=[5] * 30,
        step_map=list(range(1, 31)),
        token_weight=[1.0] * 30,
        num_loss_tokens=30,
    )


def test_noise_is_fresh_in_every_epoch_sample_and_seed():
    base = noisy_state([long_example(1, 0)])
    assert noisy_state([long_example(1, 0)]) == base
    assert noisy_state([long_example(1, 1)]) != base
    assert noisy_state([long_example(2, 0)]) != base
    assert noisy_state([long_example(1, 0)], seed=1) != base


def test_streams_are_independent():
    """All streams at one position: pairwise correlations over 10,000 samples within 5 sigma of zero."""
    noise = noise_of(torch.arange(10_000))
    position = torch.zeros(10_000, 1, dtype=torch.int64)
    draws = torch.stack([noise.uniform(stream, position)[:, 0] for stream in Stream])
    correlation = torch.corrcoef(draws) - torch.eye(len(Stream))
    assert correlation.abs().max() < 5 / math.sqrt(10_000)
