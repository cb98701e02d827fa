"""Reductions of log-probabilities at loss positions."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from t3d.objectives.logprobs import reduce_by_sample, sum_by_sample


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
