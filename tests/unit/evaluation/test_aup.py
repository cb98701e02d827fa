"""Accuracy under parallelism against numbers worked out by hand."""

import math

import pytest

from t3d.evaluation.aup import accuracy_under_parallelism


def test_two_points_by_hand():
    """Points (1, 80) and (3, 78), best accuracy 80.

    Rectangle 1 * 80 = 80. Weights: W(80) = 1, W(78) = exp(-3 * 2 / 80) = exp(-0.075).
    Trapezoid 0.5 * 2 * (80 + 78 exp(-0.075)) = 80 + 78 * 0.927743 = 152.364.
    """
    expected = 80 + 80 + 78 * math.exp(-0.075)
    assert accuracy_under_parallelism([(3.0, 78.0), (1.0, 80.0)], 80.0) == pytest.approx(expected)
    assert expected == pytest.approx(232.364, abs=1e-3)


def test_a_curve_without_loss_scores_accuracy_times_speed():
    assert accuracy_under_parallelism([(1.0, 90.0), (2.0, 90.0), (4.0, 90.0)], 90.0) == pytest.approx(360.0)


def test_points_more_than_five_below_the_slowest_are_left_out():
    kept = [(1.0, 90.0), (2.0, 85.0)]
    assert accuracy_under_parallelism([*kept, (4.0, 84.9)], 90.0) == accuracy_under_parallelism(kept, 90.0)
    assert accuracy_under_parallelism(kept, 90.0) > 90.0


def test_a_point_above_the_best_accuracy_has_weight_one():
    assert accuracy_under_parallelism([(1.0, 50.0), (2.0, 60.0)], 50.0) == pytest.approx(50 + 0.5 * 110)


@pytest.mark.parametrize(("points", "best"), [([], 90.0), ([(1.0, 0.0), (2.0, 0.0)], 0.0)])
def test_nothing_right_scores_zero(points, best):
    assert accuracy_under_parallelism(points, best) == 0.0
