"""Paired differences: published examples, and how often the intervals hold the truth."""

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t3d.evaluation.intervals import (
    clustered_interval,
    gain,
    holm,
    mcnemar_p,
    mean_interval,
    mean_of_differences,
    score_interval,
    sign_flip_p,
    wilson_interval,
)


def test_the_interval_is_that_of_published_examples():
    """Tango (1998), section 6.1: 43, 0, 1, 0 pairs give a lower 90 % limit of -0.096.

    Cavo et al. (2012) in Fagerland, Lydersen and Laake, Statistical Analysis of Contingency Tables, chapter
    8: 59, 6, 16, 80 pairs give -0.1240 to -0.0054 by Tango's method and P = 0.052479 by McNemar's exact test
    (numbers of their R package contingencytables).
    """
    assert score_interval(0, 1, 44, z=1.645)[0] == pytest.approx(-0.096, abs=5e-4)
    assert score_interval(6, 16, 161) == pytest.approx((-0.1240, -0.0054), abs=5e-5)
    assert mcnemar_p(6, 16) == pytest.approx(0.052479, abs=5e-7)


def test_at_the_ends_of_the_interval_the_score_statistic_is_z():
    """The likelihood under the given difference is maximised on a grid here, not by Tango's formula."""
    more, less, count = 1, 7, 10

    def statistic(difference):
        least, most = max(0, -difference), (1 - difference) / 2
        grid = [least + step / 4000 * (most - least) for step in range(1, 4000)]
        only_first = max(
            grid,
            key=lambda q: (
                more * math.log(q + difference)
                + less * math.log(q)
                + (count - more - less) * math.log(1 - 2 * q - difference)
            ),
        )
        variance = count * (2 * only_first + difference * (1 - difference))
        return (more - less - count * difference) / math.sqrt(variance)

    low, high = score_interval(more, less, count)
    assert (statistic(low), statistic(high)) == pytest.approx((1.959964, -1.959964), abs=1e-3)


def test_the_interval_without_discordant_pairs_by_hand():
    """With no discordant pair Tango's equation is n |d| = z^2 (1 - |d|)."""
    z2 = 1.959964**2
    assert score_interval(0, 0, 50) == pytest.approx((-z2 / (50 + z2), z2 / (50 + z2)))
    assert score_interval(0, 7, 7)[0] == -1.0


def outcomes(num_pairs):
    """All counts of discordant pairs, with their interval."""
    for b, c in itertools.product(range(num_pairs + 1), repeat=2):
        if b + c <= num_pairs:
            yield b, c, score_interval(b, c, num_pairs)


@pytest.mark.parametrize("num_pairs", [10, 20])
def test_the_interval_holds_the_truth_in_95_percent_of_small_samples(num_pairs):
    """Exactly, with every outcome weighed. Wald's interval of 10 pairs falls to 0.52 here."""
    intervals = list(outcomes(num_pairs))

    def coverage(more, less):
        return sum(
            math.comb(num_pairs, b)
            * math.comb(num_pairs - b, c)
            * (more**b * less**c * (1 - more - less) ** (num_pairs - b - c))
            for b, c, (low, high) in intervals
            if low <= more - less <= high
        )

    chances = [(0.1, 0.1), (0.2, 0.05), (0.05, 0.02), (0.3, 0.29), (0.5, 0.1), (0.02, 0.6)]
    found = [coverage(more, less) for more, less in chances]
    assert min(found) > 0.93
    assert 0.94 < sum(found) / len(found) < 0.985


def draws(rng, num_prompts, num_answers):
    """Right answers of prompts that differ in how hard they are for either evaluation; means are 1/2."""
    groups = []
    for _ in range(num_prompts):
        chances = [rng.betavariate(0.4, 0.4) for _ in range(2)]
        groups.append([(rng.random() < chances[0], rng.random() < chances[1]) for _ in range(num_answers)])
    return groups


def test_answers_to_one_prompt_do_not_count_as_independent():
    rng = random.Random(0)
    samples = [draws(rng, num_prompts=20, num_answers=6) for _ in range(120)]
    intervals = [clustered_interval(groups) for groups in samples]
    held = sum(low <= 0 <= high for low, high in intervals) / len(intervals)
    assert 0.91 < held < 0.99  # standard error 0.02
    naive = [clustered_interval([[pair] for group in groups for pair in group]) for groups in samples]
    assert sum(low <= 0 <= high for low, high in naive) / len(naive) < 0.8  # 0.69 of 2000 samples


verdicts = st.tuples(st.booleans(), st.booleans())


@given(pairs=st.lists(verdicts, min_size=1, max_size=30), copies=st.integers(2, 4))
def test_repeating_an_answer_adds_nothing(pairs, copies):
    """Prompts whose answers are all alike weigh as one pair each, up to the sample variance's n - 1."""
    once = clustered_interval([[pair] for pair in pairs])
    assert clustered_interval([[pair] * copies for pair in pairs]) == pytest.approx(once, abs=1e-9)


@given(pairs=st.lists(verdicts, min_size=1, max_size=40))
def test_one_answer_per_prompt_gives_tango_s_interval_and_mcnemar_s_test(pairs):
    more, less = pairs.count((False, True)), pairs.count((True, False))
    assert clustered_interval([[pair] for pair in pairs]) == score_interval(more, less, len(pairs))
    assert sign_flip_p([gain([pair]) for pair in pairs]) == pytest.approx(mcnemar_p(more, less))


@given(gains=st.lists(st.integers(-4, 4), max_size=8))
def test_the_sign_flip_test_counts_all_signs(gains):
    sums = [
        abs(sum(sign * value for sign, value in zip(signs, gains, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(gains))
    ]
    expected = sum(value >= abs(sum(gains)) for value in sums) / len(sums)
    assert sign_flip_p(gains) == pytest.approx(expected)


def test_mcnemar_s_test_by_hand_and_with_many_pairs():
    """1 of 6 discordant pairs: 2 (1 + 6) / 64."""
    assert mcnemar_p(1, 5) == mcnemar_p(5, 1) == 14 / 64
    assert mcnemar_p(0, 0) == mcnemar_p(3, 3) == 1.0
    assert 0 <= mcnemar_p(0, 5000) < 1e-300


@given(shares=st.lists(st.integers(0, 20), min_size=1, max_size=4))
def test_the_mean_over_tasks_is_that_of_accuracies(shares):
    """Of a difference that is an accuracy: the interval of metrics.mean_interval."""
    points = [(share / 20, *wilson_interval(share, 20)) for share in shares]
    mean, low, high = mean_of_differences(points)
    assert mean == pytest.approx(sum(shares) / 20 / len(shares))
    assert (low, high) == pytest.approx(mean_interval([share / 20 for share in shares], [20] * len(shares)))


def test_holm_by_hand():
    """0.01, 0.03, 0.04 of three tests: 3 x 0.01; 2 x 0.03; at least as much for the last."""
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.7, 0.8]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []
