"""Eq. 7 and Eq. 23: the bound, where each is least, and what factorised students make of them."""

import math

import pytest
import torch

from t3d.objectives.ddo import ddo_loss
from t3d.theory.discrimination import (
    bound_loss,
    extrapolated,
    printed_loss,
    printed_minimiser,
    real_and_fake_terms,
)
from t3d.theory.instances import (
    EQUAL_PAIR,
    FAIR_PAIR,
    MORE_EQUAL_PAIR,
    ROUNDS_REFERENCE,
    ROUNDS_TEACHER,
    TWO_MODES,
    distribution,
)
from t3d.theory.mode_seeking import preferred, product_students
from t3d.theory.searches import search_bound


def away(p: torch.Tensor, q: torch.Tensor) -> float:
    """Total variation."""
    return float((p - q).abs().sum()) / 2


def random_three(seed: int, size: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, size, dtype=torch.float64, generator=generator).softmax(-1)


@pytest.mark.many_inputs
def test_eq_23_bounds_eq_7_on_the_teachers_states():
    assert search_bound(is_on_teacher_states=True, number=300).violations == 0


def test_with_the_references_own_states_eq_23_is_no_bound():
    """Two states, of which the teacher visits the second with 0.1 and the reference with 0.9.

    There alone student and reference differ, (.8, .2) against (.5, .5), which the teacher is too: 1.3876
    against a "bound" of 1.3615.
    """
    fair = distribution(0.5, 0.5)
    both, student = torch.stack([fair, fair]), torch.stack([fair, distribution(0.8, 0.2)])
    visits, own = distribution(0.9, 0.1), distribution(0.1, 0.9)
    loss = float((visits * printed_loss(both, both, student)).sum())
    real, fake = real_and_fake_terms(both, both, student)
    assert loss == pytest.approx(1.3876, abs=1e-4)
    assert float((visits * real).sum() + (own * fake).sum()) == pytest.approx(1.3615, abs=1e-4)
    assert float((visits * (real + fake)).sum()) >= loss


@pytest.mark.many_inputs
def test_with_the_references_own_states_violations_are_found_at_random():
    found = search_bound(is_on_teacher_states=False, number=300)
    assert 0 < found.violations < 30


def test_both_are_2_ln_2_where_student_and_reference_agree():
    teacher, reference, _ = random_three(1)
    for loss in (printed_loss, bound_loss):
        assert float(loss(teacher, reference, reference)) == pytest.approx(2 * math.log(2))


def test_they_are_the_projects_loss_with_expectations_in_its_place():
    """The project's DDO of one real and one fake outcome, in expectation, is Eq. 23; of their means it is
    Eq. 7."""
    teacher, reference, student = random_three(2)
    logs = {"student": student.log(), "reference": reference.log()}

    def loss(real: torch.Tensor, fake: torch.Tensor) -> float:
        names = [f"{who}_{what}_N" for what in ("real", "fake") for who in ("student", "reference")]
        values = [(weights * logs[who]).sum()[None] for weights in (real, fake) for who in logs]
        return float(ddo_loss(**dict(zip(names, values, strict=True)), beta=1, alpha=1, num_samples=1).loss)

    single = torch.eye(4, dtype=torch.float64)
    outside = sum(
        float(teacher[i] * reference[j]) * loss(single[i], single[j]) for i in range(4) for j in range(4)
    )
    assert float(bound_loss(teacher, reference, student)) == pytest.approx(outside)
    assert float(printed_loss(teacher, reference, student)) == pytest.approx(loss(teacher, reference))


def gradient_at(loss, teacher, reference, student) -> torch.Tensor:
    logits = student.log().requires_grad_()
    return torch.autograd.grad(loss(teacher, reference, logits.softmax(-1)), logits)[0]


@pytest.mark.parametrize("seed", range(5))
def test_eq_23_is_stationary_at_the_teacher_and_eq_7_beyond_it(seed):
    """Beyond: on the line from the reference through the teacher, at teacher + s (teacher - reference)."""
    teacher, reference, _ = random_three(seed)
    best, factor = printed_minimiser(teacher, reference)
    assert gradient_at(bound_loss, teacher, reference, teacher).abs().max() < 1e-12
    assert gradient_at(printed_loss, teacher, reference, best).abs().max() < 1e-8
    assert gradient_at(printed_loss, teacher, reference, teacher).abs().max() > 1e-3
    assert factor > 0 and torch.allclose(best, extrapolated(teacher, reference, factor))
    assert printed_loss(teacher, reference, best) < printed_loss(teacher, reference, teacher)
    generator = torch.Generator().manual_seed(seed)
    others = torch.randn(500, 4, dtype=torch.float64, generator=generator).softmax(-1)
    assert (printed_loss(teacher, reference, others) >= printed_loss(teacher, reference, best)).all()
    assert (bound_loss(teacher, reference, others) >= bound_loss(teacher, reference, teacher)).all()


def test_eq_7_is_least_further_from_the_teacher_than_its_reference_is_and_rounds_do_not_converge():
    """Teacher (.5, .3, .2), reference (.49, .305, .205): the minimum is (.661, .220, .120). Each round at
    its minimum leads away, to two students in turn, 0.32 and 0.34 from the teacher in total variation."""
    best, factor = printed_minimiser(ROUNDS_TEACHER, ROUNDS_REFERENCE)
    assert torch.allclose(best, distribution(0.66059, 0.21971, 0.11971), atol=1e-5)
    assert factor == pytest.approx(16.059, abs=1e-3)
    students = [ROUNDS_REFERENCE]
    for _ in range(20):
        students.append(printed_minimiser(ROUNDS_TEACHER, students[-1])[0])
    distances = [away(student, ROUNDS_TEACHER) for student in students]
    assert distances[0] == pytest.approx(0.01)
    assert sorted(distances[-2:]) == pytest.approx([0.32131, 0.33672], abs=1e-4)
    assert torch.allclose(students[-1], students[-3], atol=1e-5)


def test_the_nearer_the_reference_the_further_is_eq_7s_minimum_in_its_distances():
    """On the line from (.4, .35, .25) to the teacher: s grows without bound, s times the distance falls."""
    found = []
    for distance in (0.1, 0.03, 0.01, 0.003, 0.001):
        reference = ROUNDS_TEACHER + distance * distribution(-1.0, 0.5, 0.5)
        factor = printed_minimiser(ROUNDS_TEACHER, reference)[1]
        found.append((factor, factor * distance))
    assert [factor for factor, _ in found] == pytest.approx([2.85, 7.29, 16.06, 36.92, 77.79], abs=0.01)
    assert [away for _, away in found] == sorted((away for _, away in found), reverse=True)


def test_of_factorised_students_and_references_eq_7_sees_the_teachers_marginals_alone():
    """Three teachers of the same marginals, from independent to mostly equal tokens: the same loss
    everywhere."""
    students = product_students(5).flatten(0, 1)
    reference = students[7]
    losses = [
        printed_loss(teacher, reference, students) for teacher in (FAIR_PAIR, EQUAL_PAIR, MORE_EQUAL_PAIR)
    ]
    assert torch.allclose(losses[0], losses[1], atol=1e-14) and torch.allclose(
        losses[0], losses[2], atol=1e-14
    )
    bounds = [bound_loss(teacher, reference, students) for teacher in (FAIR_PAIR, EQUAL_PAIR)]
    assert (bounds[0] - bounds[1]).abs().max() > 0.1


def test_no_form_of_ddo_seeks_a_mode_as_the_reverse_divergence_does():
    """00 with .69, 11 with .29: the share of wrong pairs is .03 for reverse KL, .42 for forward KL. With
    the product of marginals as reference Eq. 7 and Eq. 23 prefer what forward KL does."""
    product = distribution(0.49, 0.21, 0.21, 0.09)
    wrong = {
        (name, objective): float(preferred(objective, TWO_MODES, reference)[1:3].sum())
        for name, reference in (("naive", product), ("fair", FAIR_PAIR))
        for objective in ("forward KL", "reverse KL", "Eq. 7", "Eq. 23")
    }
    assert wrong["naive", "reverse KL"] == pytest.approx(0.03, abs=0.005)
    for objective in ("forward KL", "Eq. 7", "Eq. 23"):
        assert wrong["naive", objective] == pytest.approx(0.42, abs=0.005)
    assert wrong["fair", "Eq. 7"] == pytest.approx(0.18, abs=0.005)
    sharpened = preferred("Eq. 7", TWO_MODES, FAIR_PAIR).reshape(2, 2)
    assert sharpened.sum(0)[0] > 0.85 and sharpened.sum(1)[0] > 0.85  # the teacher has .7
    assert wrong["fair", "Eq. 23"] == pytest.approx(0.458, abs=0.005)
