"""Measures of few-step text: by hand, against slow definitions, and their intervals."""

import math
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from t3d.evaluation.intervals import (
    pooled_difference_interval,
    pooled_interval,
    pooled_ratio_interval,
    t_half_width,
)
from t3d.evaluation.text_measures import (
    MIN_LOOP,
    agreement,
    distinct,
    doubled,
    edit_distance,
    looped,
    normalised_edit_distance,
    text_measures,
    token_agreement,
)

TEXTS = st.lists(st.integers(0, 3), max_size=24).map(tuple)


def test_agreement_is_the_share_of_the_target_s_positions():
    """Of 1 2 3 the text 1 2 9 4 has two; what it has behind the target does not count."""
    assert agreement((1, 2, 9, 4), (1, 2, 3)) == (2, 3)
    assert agreement((1,), (1, 2, 3)) == (1, 3)
    assert token_agreement([(1, 2, 9, 4), (5,)], [(1, 2, 3), (5,)]) == 3 / 4


def slow_distance(one, two):
    if not one or not two:
        return len(one) + len(two)
    rows = [list(range(len(two) + 1))]
    for i, left in enumerate(one, 1):
        row = [i]
        for j, right in enumerate(two, 1):
            row.append(min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (left != right)))
        rows.append(row)
    return rows[-1][-1]


@given(TEXTS, TEXTS)
def test_edit_distance_is_that_of_the_textbook_s_table(one, two):
    assert edit_distance(one, two) == edit_distance(two, one) == slow_distance(one, two)
    assert 0 <= normalised_edit_distance(one, two) <= 1
    assert (edit_distance(one, two) == 0) == (one == two)


def test_edit_distance_by_hand():
    """kitten to sitting: two replacements and an insertion; one token left out costs one, not all behind."""
    kitten, sitting = (tuple(map(ord, word)) for word in ("kitten", "sitting"))
    assert normalised_edit_distance(kitten, sitting) == 3 / 7
    assert normalised_edit_distance((2, 3, 4, 5), (1, 2, 3, 4, 5)) == 1 / 5
    assert normalised_edit_distance((), ()) == 0


def test_doubled_tokens_by_hand():
    """7 7 7 1 1: three of the four tokens behind the first are the one before them."""
    assert doubled((7, 7, 7, 1, 1)) == (3, 4)
    assert doubled((7,)) == doubled(()) == (0, 0)


def test_distinct_ngrams_by_hand():
    """1 2 1 2 1: two different tokens of five, two pairs of four, one triple less than it has places."""
    assert [distinct((1, 2, 1, 2, 1), n) for n in (1, 2, 3, 4, 6)] == [(2, 5), (2, 4), (2, 3), (2, 2), (0, 0)]


def test_loops_by_hand():
    """0 then 1 2 3 twice and 4: six of eight tokens. A pair that repeats, or with a gap, is none."""
    assert looped((0, 1, 2, 3, 1, 2, 3, 4)) == (6, 8)
    assert looped((1, 2, 1, 2, 3)) == (0, 5)
    assert looped((1, 2, 3, 0, 1, 2, 3)) == (0, 7)
    assert looped(()) == (0, 0)


@given(TEXTS)
def test_loops_are_those_that_a_search_of_all_places_finds(text):
    covered = set()
    for length in range(MIN_LOOP, len(text) // 2 + 1):
        for first in range(len(text) - 2 * length + 1):
            if text[first : first + length] == text[first + length : first + 2 * length]:
                covered |= set(range(first, first + 2 * length))
    assert looped(text) == (len(covered), len(text))


@given(st.lists(st.integers(0, 9), min_size=2, max_size=20))
def test_units_of_one_size_have_the_interval_of_their_mean(parts):
    shares = [part / 10 for part in parts]
    mean, half = fmean(shares), t_half_width(shares)
    assert pooled_interval([(part, 10) for part in parts]) == pytest.approx((mean, mean - half, mean + half))


def test_the_pooled_interval_by_hand():
    """1 of 2 and 3 of 8: 0.4; deviations 2 / 10 * (0.2, -0.2), whose t interval is 12.706 * 0.04 wide."""
    assert pooled_interval([(1, 2), (3, 8)]) == pytest.approx((0.4, 0.4 - 0.50824, 0.4 + 0.50824))
    assert pooled_interval([(0, 0), (0, 0)]) == (0.0, 0.0, 0.0)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(5, 9)), min_size=2, max_size=9))
def test_a_paired_difference_to_itself_is_nothing_and_to_zero_is_the_ratio(counts):
    assert pooled_difference_interval(counts, counts) == (0, 0, 0)
    zero = [(0, 1)] * len(counts)
    assert pooled_difference_interval(counts, zero) == pytest.approx(pooled_interval(counts))


@given(st.lists(TEXTS.filter(bool), min_size=1, max_size=6))
def test_a_teacher_s_own_text_is_its_own(texts):
    found = text_measures(texts, texts, [True] * len(texts))
    assert found["agreement"][0] == found["exact"][0] == found["ended"][0] == 1
    assert found["edit_distance"] == found["doubled_excess"] == (0, 0, 0)
    assert all(low - 1e-12 <= value <= high + 1e-12 for value, low, high in found.values())
    shares = [estimate for name, estimate in found.items() if name != "doubled_excess"]
    assert all(low >= 0 and high <= 1 for _, low, high in shares)
    assert all(math.isfinite(number) for estimate in found.values() for number in estimate)


def test_measures_of_a_doubling_text():
    """1 2 3 told as 1 1 2 3: one of three in place, one edit of four, a third doubled where none was."""
    found = text_measures([(1, 1, 2, 3)], [(1, 2, 3)], [False])
    shown = {name: value for name, (value, _, _) in found.items()}
    assert shown["agreement"] == 1 / 3 and shown["edit_distance"] == 1 / 4
    assert shown["doubled"] == shown["doubled_excess"] == 1 / 3
    assert shown["distinct_1"] == 3 / 4 and shown["distinct_2"] == 1
    assert shown["exact"] == shown["ended"] == shown["loops"] == 0


def test_a_ratio_of_shares_is_paired_and_has_the_interval_of_a_bootstrap():
    draw = np.random.default_rng(0)
    hard = draw.uniform(0.1, 0.5, 300)  # shared by both sides of a text
    seconds = [(int(draw.binomial(50, share)), 50) for share in hard]
    firsts = [(int(draw.binomial(40, 1.8 * share)), 40) for share in hard]
    assert pooled_ratio_interval(seconds, seconds) == (1, 1, 1)
    nothing = [(0, 40)] * len(hard)
    assert pooled_ratio_interval(nothing, seconds) == (0, 0, 0)
    one, two = np.array(firsts), np.array(seconds)
    picks = draw.integers(0, len(hard), (4000, len(hard)))
    ratios = (one[picks].sum(1)[:, 0] / one[picks].sum(1)[:, 1]) / (
        two[picks].sum(1)[:, 0] / two[picks].sum(1)[:, 1]
    )
    value, low, high = pooled_ratio_interval(firsts, seconds)
    assert value == pytest.approx(one[:, 0].sum() / one[:, 1].sum() / (two[:, 0].sum() / two[:, 1].sum()))
    assert (low, high) == pytest.approx(tuple(np.quantile(ratios, [0.025, 0.975])), abs=0.02)
    with pytest.raises(ZeroDivisionError):
        pooled_ratio_interval(firsts, [(0, 50)] * len(hard))
