"""Spearman's rank correlation: ties, weights, and intervals by drawing owners of pairs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from t3d.evaluation.rank_correlation import rank_correlation, rank_interval, ranks


@given(st.lists(st.integers(0, 5), min_size=2, max_size=12))
def test_ranks_are_their_mean_over_all_orders_of_ties(values):
    found = ranks(values, np.ones(len(values)))
    places = [[place for place, value in enumerate(sorted(values)) if value == wanted] for wanted in values]
    assert found.tolist() == [sum(one) / len(one) for one in places]


def test_the_rank_correlation_knows_order_and_its_reverse():
    assert rank_correlation([1, 2, 5], [2, 4, 1000]) == pytest.approx(1)
    assert rank_correlation([1, 2, 5], [3, 2, 1]) == pytest.approx(-1)


def test_pairs_that_are_drawn_twice_count_as_two():
    first, second = [3.0, 1.0, 2.0, 2.0], [1.0, 5.0, 2.0, 4.0]
    counts = [2, 0, 1, 3]
    twice = [np.repeat(values, counts).tolist() for values in (first, second)]
    found = rank_correlation(first, second, np.array([counts, [1, 0, 0, 0]]))
    assert found[0] == pytest.approx(float(rank_correlation(*twice)))
    assert np.isnan(found[1])


def test_an_owner_is_drawn_with_all_its_pairs():
    """Two owners of three pairs each, -1 and +1 alone: drawn pair by pair the interval would not reach
    them."""
    first, second = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [6.0, 5.0, 4.0, 1.0, 2.0, 3.0]
    value, low, high = rank_interval(first, second, [0, 0, 0, 1, 1, 1])
    assert value == pytest.approx(float(rank_correlation(first, second)))
    assert (low, high) == pytest.approx((-1, 1))


def test_of_one_pair_an_owner_the_interval_covers_a_correlation_of_nothing():
    first, second = np.random.default_rng(1).normal(size=(2, 40)).tolist()
    value, low, high = rank_interval(first, second, range(40))
    assert low < 0 < high and low < value < high
    assert 0.4 < high - low < 0.8  # about 4 / sqrt(40)
