"""Where gradient descent on the project's DDO loss leads, by the kind of fake tokens (one token, exact
expectations)."""

import pytest
import torch

from t3d.theory.discrimination import flattened
from t3d.theory.fixed_points import FAKES, descend, least
from t3d.theory.instances import ROUNDS_REFERENCE, ROUNDS_TEACHER, SURE, UNSURE, distribution

STARTED, TEACHER = distribution(0.4, 0.3, 0.3), ROUNDS_TEACHER


def argmax_of(p: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(p).scatter(0, p.argmax()[None], 1.0)


def test_argmax_fakes_flatten_a_sure_teacher():
    """(q - alpha 1[argmax]) / (1 - alpha) at alpha = 1/2: (.9, .07, .03) becomes (.80, .14, .06)."""
    expected = flattened(SURE, argmax_of(SURE), 0.5)
    assert torch.allclose(expected, distribution(0.8, 0.14, 0.06))
    found = descend(SURE, SURE, "argmax", alpha=0.5, beta=0.1, num_steps=100, step_size=3.0)
    assert torch.allclose(found[-1], expected, atol=2e-3)


def test_argmax_fakes_have_no_fixed_point_on_an_unsure_teacher():
    """Of (.55, .3, .15) the formula's argmax is another token, so descent chatters about a tie: (.35, .35,
    .30)."""
    solution = flattened(UNSURE, argmax_of(UNSURE), 0.5)
    assert torch.allclose(solution, distribution(0.1, 0.6, 0.3))
    assert solution.argmax() != UNSURE.argmax()
    late = descend(UNSURE, UNSURE, "argmax", alpha=0.5, beta=0.1, num_steps=150)[-50:]
    assert torch.allclose(late.mean(0), distribution(0.35, 0.35, 0.3), atol=0.03)
    assert (late[1:] - late[:-1]).abs().amax(-1).min() > 0.005
    assert len(late.argmax(-1).unique()) > 1


@pytest.mark.parametrize("fakes", ["sample", "expectation"])
@pytest.mark.parametrize("teacher", [SURE, UNSURE], ids=["sure", "unsure"])
def test_sampled_and_exact_fakes_stay_at_the_teacher(fakes, teacher):
    found = descend(teacher, teacher, fakes, alpha=0.5, beta=0.1, num_steps=5, step_size=3.0)
    assert torch.allclose(found[-1], teacher, atol=1e-12)


@pytest.mark.parametrize("fakes", ["sample", "expectation"])
def test_sampled_and_exact_fakes_lead_to_the_teacher_where_the_reference_follows(fakes):
    found = descend(STARTED, UNSURE, fakes, alpha=1, beta=1, num_steps=70, refresh_every=10)
    assert torch.allclose(found[-1], UNSURE, atol=5e-3)


def test_beside_a_reference_that_stays_only_eq_23_is_least_at_the_teacher():
    """alpha = beta = 1, reference (.4, .3, .3), teacher (.5, .3, .2).

    Preset paper's fake term, exact and inside sigma, overshoots; argmax fakes lead to another mode.
    """
    ends = {fakes: least(STARTED, TEACHER, fakes, alpha=1, beta=1) for fakes in FAKES}
    assert torch.allclose(ends["sample"], TEACHER, atol=1e-6)
    assert torch.allclose(ends["expectation"], distribution(0.5795, 0.3031, 0.1174), atol=1e-4)
    assert torch.allclose(ends["argmax"], distribution(0.1746, 0.4654, 0.3599), atol=1e-4)


def test_exact_fakes_inside_sigma_end_a_round_as_far_beyond_the_teacher_as_they_began_before_it():
    """To first order: preset paper's loss; after four such rounds more than 9/10 of the distance is left."""
    distances, student = [], ROUNDS_REFERENCE
    for _ in range(4):
        reference = student
        student = least(reference, TEACHER, "expectation", alpha=1, beta=1)
        distances.append(float((student - TEACHER).abs().sum()) / 2)
        assert ((student - TEACHER) * (TEACHER - reference))[0] > 0
    assert distances[0] == pytest.approx(0.01, abs=3e-4)
    assert distances[-1] > 0.009


def test_with_alpha_one_half_a_reference_that_stays_is_overshot():
    """While beta Delta is small the minimum is (q - alpha p_ref) / (1 - alpha), twice as far as the
    teacher."""
    end = least(STARTED, TEACHER, "sample", alpha=0.5, beta=0.1)
    assert torch.allclose(end, flattened(TEACHER, STARTED, 0.5), atol=0.03)
    assert (end - STARTED).abs().sum() > 1.7 * (TEACHER - STARTED).abs().sum()
