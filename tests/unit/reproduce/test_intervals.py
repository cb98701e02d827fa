"""Intervals over prompts and seeds: by hand, and how often they hold the truth."""

import math

import numpy as np
import pytest

from t3d.evaluation.intervals import T_QUANTILES, mean_interval, seeds_interval, t_half_width, wilson_interval


def test_one_seed_and_one_task_is_wilson_s_interval():
    assert seeds_interval([([0.37], [100])], [0.0]) == pytest.approx((0.37, *wilson_interval(37, 100)))


def test_seeds_that_agree_on_other_prompts_count_as_more_prompts():
    """Two seeds at 0.5 of 100: mean_interval's 0.068002."""
    centre, low, high = seeds_interval([([0.5], [100])] * 2, [0.0])
    assert (centre, low, high) == pytest.approx((0.5, 0.431998, 0.568002), abs=1e-5)
    assert (low, high) == pytest.approx(mean_interval([0.5, 0.5], [100, 100]))


def test_seeds_on_the_same_prompts_do_not_count_as_more_prompts():
    assert seeds_interval([([0.9], [100])] * 3, [1.0]) == pytest.approx((0.9, *wilson_interval(90, 100)))
    # One task's prompts are shared, the other's are not: Wilson's distance d, and d over the root of 3.
    _, low, high = seeds_interval([([0.9, 0.9], [100, 100])] * 3, [1.0, 0.0])
    below, above = 0.9 - wilson_interval(90, 100)[0], wilson_interval(90, 100)[1] - 0.9
    assert (0.9 - low, high - 0.9) == pytest.approx(
        (below * math.sqrt(4 / 3) / 2, above * math.sqrt(4 / 3) / 2)
    )


def test_seeds_that_share_half_of_their_prompts_are_between():
    """Variance of a mean of three numbers with correlation 1/2: (1 + 2 / 2) / 3 of one's."""
    _, low, _ = seeds_interval([([0.5], [100])] * 3, [0.5])
    assert 0.5 - low == pytest.approx((0.5 - wilson_interval(50, 100)[0]) * math.sqrt(2 / 3))


def test_seeds_that_differ_have_the_t_interval_of_their_averages():
    """dParallel at B8-T4: standard deviation 7.1505 of three, times 4.303, by the root of 3: 17.76."""
    centre, low, high = seeds_interval([([x], [1536]) for x in (0.609, 0.478, 0.592)], [0.0])
    assert centre == pytest.approx(0.55967, abs=1e-5)
    assert (centre - low, high - centre) == pytest.approx((0.17699, 0.17699), abs=1e-4)


def test_the_quantiles_are_student_s():
    """97.5 % of the density lie below each."""
    for freedom, quantile in enumerate(T_QUANTILES, start=1):
        log_scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)
        # x = tan(angle) * sqrt(freedom) turns the density into a power of the cosine.
        angles = np.linspace(0, math.atan(quantile / math.sqrt(freedom)), 2001)
        area = np.trapezoid(np.cos(angles) ** (freedom - 1), angles)
        assert 0.5 + math.exp(log_scale) / math.sqrt(math.pi) * area == pytest.approx(0.975, abs=5e-5)


def test_more_seeds_than_the_list_of_quantiles_take_its_last():
    values = [float(value) for value in range(40)]
    assert t_half_width(values) == pytest.approx(T_QUANTILES[-1] * np.std(values, ddof=1) / math.sqrt(40))


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize("accuracy", [0.0, 1.0])
def test_intervals_stay_between_0_and_1(accuracy, share):
    _, low, high = seeds_interval([([accuracy], [10])] * 3, [share])
    assert 0 <= low < high <= 1
    assert seeds_interval([([x], [10]) for x in (0.0, 1.0, 0.5)], [share]) == (0.5, 0.0, 1.0)


@pytest.mark.many_inputs
@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize("num_seeds", [2, 3])
@pytest.mark.parametrize("shift_sd", [0.0, 0.02, 0.08])
def test_intervals_hold_the_truth_as_often_as_they_say(shift_sd, num_seeds, share):
    """Three tasks of 512 prompts; training moves all accuracies of a seed by one normal shift.

    Prompts that seeds share are answered alike by all of them, but for the shift.
    """
    rng = np.random.default_rng(0)
    expected, num_prompts, repeats = np.array([0.45, 0.6, 0.7]), 512, 500
    num_draws = 1 if share else num_seeds
    drawn = rng.binomial(num_prompts, expected, (repeats, num_draws, 3)) / num_prompts
    shifts = rng.normal(0, shift_sd, (repeats, num_seeds, 1))
    num_held = 0
    for per_seed in np.clip(drawn + shifts, 0, 1).tolist():
        _, low, high = seeds_interval([(seed, [num_prompts] * 3) for seed in per_seed], [share] * 3)
        num_held += low <= expected.mean() <= high
    assert num_held / repeats >= 0.93
