"""Log-probabilities at loss positions and their reductions."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from t3d.objectives.logprobs import reduce_by_sample, sum_by_sample, token_log_probs


def test_token_log_probs_by_hand():
    """Logits ln 1, ln 2, ln 5: probabilities 1/8, 2/8, 5/8."""
    logits = torch.tensor([[0.0, math.log(2), math.log(5)]] * 3, dtype=torch.float64)
    log_prob = token_log_probs(logits, torch.tensor([0, 1, 2]))
    assert log_prob.exp().tolist() == pytest.approx([0.125, 0.25, 0.625])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_they_equal_torchs_log_softmax_and_its_gradient(dtype):
    logits = torch.randn(9, 40, dtype=dtype, requires_grad=True)
    token = torch.randint(40, (9,))
    ours = token_log_probs(logits, token)
    torchs = logits.log_softmax(-1).gather(-1, token[:, None])[:, 0]
    torch.testing.assert_close(ours, torchs)
    (gradient,) = torch.autograd.grad(ours.sum(), logits, retain_graph=True)
    (expected,) = torch.autograd.grad(torchs.sum(), logits)
    torch.testing.assert_close(gradient, expected)


def test_half_precision_logits_are_reduced_in_float32():
    logits = torch.randn(9, 4000).bfloat16()
    token = torch.randint(4000, (9,))
    log_prob = token_log_probs(logits, token)
    assert log_prob.dtype == torch.float32
    torch.testing.assert_close(log_prob, logits.float().log_softmax(-1).gather(-1, token[:, None])[:, 0])


def test_huge_logits_do_not_overflow():
    logits = torch.tensor([[1e30, -1e30, 0.0]], requires_grad=True)
    log_prob = token_log_probs(logits, torch.tensor([0]))
    log_prob.sum().backward()
    assert log_prob.item() == 0
    assert torch.isfinite(logits.grad).all()


def test_reductions_by_hand():
    """Sample 0 has values 1 and 3, sample 1 none, sample 2 the value 5; positions in any order."""
    value, sample = torch.tensor([1.0, 5.0, 3.0]), torch.tensor([0, 2, 0])
    assert sum_by_sample(value, sample, 3).tolist() == [4, 0, 5]
    assert reduce_by_sample(value, sample, 3, "sum").tolist() == [4, 0, 5]
    assert reduce_by_sample(value, sample, 3, "mean").tolist() == [2, 0, 5]


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(-9, 9)), max_size=20))
def test_reductions_equal_a_loop(positions):
    sample = torch.tensor([row for row, _ in positions], dtype=torch.int64)
    value = torch.tensor([number for _, number in positions], dtype=torch.float64)
    own = [[number for row, number in positions if row == name] for name in range(5)]
    assert reduce_by_sample(value, sample, 5, "sum").tolist() == pytest.approx([sum(part) for part in own])
    means = [sum(part) / len(part) if part else 0 for part in own]
    assert reduce_by_sample(value, sample, 5, "mean").tolist() == pytest.approx(means)
