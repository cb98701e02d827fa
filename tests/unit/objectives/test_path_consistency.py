"""Path consistency (Eq. 8 and 9) and the released code's variant."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from t3d.objectives.path_consistency import linear_path_weights, nested_prefix_weights, path_loss


def test_equation_9_for_four_steps():
    """w = (4 - pi + 1) / 4 for pi = 1, 2, 3, 4."""
    assert linear_path_weights(torch.tensor([1, 2, 3, 4]), 4).tolist() == [1, 0.75, 0.5, 0.25]
    assert linear_path_weights(torch.tensor([2, 1]), 2).tolist() == [0.5, 1]
    assert linear_path_weights(torch.tensor([1, 1]), 1).tolist() == [1, 1]


@given(st.integers(1, 64))
def test_equation_9_falls_from_one_to_one_over_b(budget):
    weights = linear_path_weights(torch.arange(1, budget + 1), budget)
    assert weights[0] == 1
    assert weights[-1].item() == pytest.approx(1 / budget)
    assert weights.sum().item() == pytest.approx((budget + 1) / 2)


def level_mean_loss(cross_entropy, local_steps, counted, block_size, tokens_per_level):
    """The released code's loss, level by level."""
    levels = []
    for level in range(math.ceil(block_size / tokens_per_level)):
        members = [
            value
            for value, step, counts in zip(cross_entropy, local_steps, counted, strict=True)
            if counts and step <= (level + 1) * tokens_per_level
        ]
        if members:
            levels.append(sum(members) / len(members))
    return sum(levels) / len(levels) if levels else 0.0


@st.composite
def responses(draw):
    block_size = draw(st.integers(1, 8))
    count = draw(st.integers(1, 20))
    token = st.tuples(st.integers(1, block_size), st.booleans(), st.floats(0, 9))
    tokens = draw(st.lists(token, min_size=count, max_size=count))
    return block_size, draw(st.integers(1, block_size)), tokens


@given(responses())
def test_nested_prefix_weights_equal_the_mean_over_levels(case):
    block_size, tokens_per_level, tokens = case
    local_steps, counted, cross_entropy = zip(*tokens, strict=True)
    weights = nested_prefix_weights(
        torch.tensor(local_steps), torch.tensor(counted), block_size, tokens_per_level
    )
    weighted = sum(weight * value for weight, value in zip(weights.tolist(), cross_entropy, strict=True))
    expected = level_mean_loss(cross_entropy, local_steps, counted, block_size, tokens_per_level)
    assert weighted == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert weights.sum().item() == pytest.approx(1 if any(counted) else 0, abs=1e-6)
    assert all(weight == 0 for weight, counts in zip(weights.tolist(), counted, strict=True) if not counts)


@pytest.mark.parametrize(
    ("tokens_per_level", "ratios"),
    [(4, [1, 1 / 3]), (2, [1, 0.52, 0.28, 0.12]), (8, [1])],
)
def test_relative_weights_of_the_released_code_by_hand(tokens_per_level, ratios):
    """One block of 8, all counted, k tokens per level: group g weighs sum over s >= g of 1 / (s + 1).

    k = 4: 3/2 and 1/2, so 1 : 1/3. k = 2: 25/12, 13/12, 7/12, 3/12, so 1 : .52 : .28 : .12.
    """
    local = torch.arange(1, 9)
    weights = nested_prefix_weights(local, torch.ones(8, dtype=torch.bool), 8, tokens_per_level)
    groups = weights.view(len(ratios), tokens_per_level)
    assert torch.equal(groups, groups[:, :1].expand_as(groups))
    assert (groups[:, 0] / groups[0, 0]).tolist() == pytest.approx(ratios)


def test_the_path_loss_by_hand():
    """Weights 1 and 1/2 on ln 2 and ln 4: 2 ln 2, over a normaliser of 4."""
    log_prob = torch.tensor([0.5, 0.25], dtype=torch.float64).log()
    output = path_loss(
        student_real_M=log_prob, weight_M=torch.tensor([1.0, 0.5], dtype=torch.float64), normaliser=4
    )
    assert output.loss.item() == pytest.approx(math.log(2) / 2)
    assert output.metrics["loss/path"].item() == output.loss.item()


def test_the_gradient_is_minus_the_weight():
    log_prob = torch.tensor([-1.0, -2.0], dtype=torch.float64, requires_grad=True)
    path_loss(
        student_real_M=log_prob, weight_M=torch.tensor([1.0, 0.25], dtype=torch.float64), normaliser=2
    ).loss.backward()
    assert log_prob.grad.tolist() == [-0.5, -0.125]
