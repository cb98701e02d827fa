"""Lemma B.2 and Proposition 4.3: what holds, what holds by assumption, and what does not."""

from math import comb, inf

import pytest
import torch

from t3d.theory.exact.chain import chain_of
from t3d.theory.exact.measures import (
    average,
    divergence,
    divergence_of_joints,
    risk,
    total_correlation,
)
from t3d.theory.exact.tables import TableModel, exact_posteriors, model_of, random_model
from t3d.theory.instances import FAMILY_LEFT_OUT, TEACHER_LEFT_OUT
from t3d.theory.optimality import choose, corrupted, corrupted_independently, student_joint, tabular_risks
from t3d.theory.searches import search_optimality, whole_block

CLOSE = 1e-12
DIRECTIONS = ("forward", "reverse")


def some_model(seed: int, length: int = 3, scale: float = 1.5) -> TableModel:
    generator = torch.Generator().manual_seed(seed)
    return random_model(2, length, block_size=length, scale=scale, generator=generator)


@pytest.mark.parametrize("orders", [("random", "random"), ("sequential", "random"), ("random", "sequential")])
def test_lemma_b2_the_divergence_of_joints_is_that_of_states_and_the_mean_of_the_rest(orders):
    """Of two decoding processes at every t; where one reaches states that the other does not, it is
    infinite."""
    first, second = (chain_of(some_model(seed), whole_block(order, 3)) for seed, order in enumerate(orders))
    p, q = first.posteriors(), second.posteriors()
    for t in (1, 2, 3):
        marginal, other = first.marginal(t), second.marginal(t)
        conditional = {
            masked: divergence(p[masked], q[masked], masked) if masked in q else torch.zeros(())
            for masked in marginal
        }
        expected = divergence_of_joints(marginal, other) + average(marginal, conditional)
        assert divergence_of_joints(first.joint(t), second.joint(t)) == pytest.approx(expected, abs=CLOSE)
        assert (expected == inf) == (orders == ("random", "sequential") and t < 3)


def test_lemma_b2_of_arrays_with_zeros():
    generator = torch.Generator().manual_seed(3)
    for _ in range(20):
        p, q = torch.rand(2, 4, 5, dtype=torch.float64, generator=generator)
        p = p * (torch.rand(4, 5, generator=generator) < 0.7)
        p, q = p / p.sum(), q / q.sum()
        whole = float(torch.special.xlogy(p, p / q).sum())
        states_p, states_q = p.sum(1, keepdim=True), q.sum(1, keepdim=True)
        rest = torch.special.xlogy(p, (p / states_p) / (q / states_q)).nansum()
        states = torch.special.xlogy(states_p, states_p / states_q).nansum()
        assert whole == pytest.approx(float(states + rest), abs=CLOSE)


@pytest.mark.many_inputs
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_proposition_4_3_holds_where_assumption_4_2_is_imposed(direction):
    """No violation can be found: with equal marginals D(J_Tra || J_theta) is R_t itself."""
    found = search_optimality("random", direction, shares_marginal=True, number=4)
    assert found.violations == 0 and found.instances == 8 and found.undefined == 0


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_with_equal_marginals_the_distance_is_the_risk(direction):
    teacher = chain_of(some_model(1), whole_block("low_confidence_static", 3))
    marginal, student = teacher.marginal(2), some_model(2)
    joint = student_joint(student, marginal)
    one_shot = {masked: student.one_shot(masked) for masked in marginal}
    expected = risk(marginal, teacher.posteriors(), one_shot, direction)
    assert divergence_of_joints(teacher.joint(2), joint, direction) == pytest.approx(expected, abs=CLOSE)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_without_assumption_4_2_the_trajectory_joint_may_pick_the_worse_student(direction):
    """The committed instances: R_1 of theta_Tra* is 0.999 against 0.058, and 1.285 against 0.164 in
    reverse."""
    params = whole_block("random", 2)
    teacher, family = chain_of(TEACHER_LEFT_OUT[direction], params), FAMILY_LEFT_OUT[direction]
    choice = choose(teacher, family, params, 1, direction, shares_marginal=False)
    expected = {"forward": (0.99919, 0.05834), "reverse": (1.28538, 0.16408)}[direction]
    assert choice.risks[choice.trajectory] == pytest.approx(expected[0], abs=1e-5)
    assert choice.risks[choice.corrupted] == pytest.approx(expected[1], abs=1e-5)
    assert choice.excess > 0 and choice.has_target
    assert choose(teacher, family, params, 1, direction, shares_marginal=True).excess <= 0


def test_left_to_right_both_targets_have_the_same_posteriors_and_differ_by_a_factor_on_prefixes():
    """So in reverse, where a student that decodes left to right is on prefixes too, they pick the same
    one."""
    teacher = chain_of(some_model(3), whole_block("sequential", 3))
    clean = teacher.clean()
    for t in (1, 2):
        target = corrupted(clean, t)
        for masked, joint in teacher.joint(t).items():
            assert torch.allclose(target[masked], joint / comb(3, t), atol=CLOSE, rtol=0)
            assert torch.allclose(teacher.posteriors()[masked], exact_posteriors(clean)[masked], rtol=1e-12)


@pytest.mark.parametrize("order", ["sequential", "low_confidence_static"])
def test_forwards_the_second_target_is_infinitely_far_from_every_student(order):
    """J_phi masks any positions, the teacher's x_t only some: theta* of Proposition 4.3 is then any
    student."""
    teacher = chain_of(some_model(4), whole_block(order, 3))
    choice = choose(
        teacher, [some_model(5), some_model(6)], whole_block(order, 3), 2, "forward", shares_marginal=True
    )
    assert not choice.has_target
    assert all(first < inf for first, _ in choice.distances)


def test_under_the_noise_of_eq_1_it_is_infinitely_far_in_any_order():
    """Tokens masked each by itself give every number of masks; x_t has t of them."""
    teacher = chain_of(some_model(4), whole_block("random", 3))
    target = corrupted_independently(teacher.clean(), 0.5)
    assert sum(float(table.sum()) for table in target.values()) == pytest.approx(1, abs=CLOSE)
    for t in (1, 2, 3):
        joint = student_joint(some_model(5), teacher.marginal(t))
        assert divergence_of_joints(target, joint) == inf
        assert divergence_of_joints(target, joint, "reverse") < inf


def test_with_parameters_for_every_state_the_two_optima_differ_only_where_the_posteriors_do():
    """Left to right the posteriors are the same and so are the risks; in other orders Eq. 13's are not the
    trajectory's, which the proof takes them for."""
    for seed in range(5):
        sequential = chain_of(some_model(seed), whole_block("sequential", 3))
        own, other = tabular_risks(sequential, 2)
        assert own == pytest.approx(other, abs=CLOSE)
        for order in ("random", "low_confidence_static"):
            own, other = tabular_risks(chain_of(some_model(seed), whole_block(order, 3)), 2)
            assert own < other


def test_one_step_loses_the_risk_and_no_student_less_than_the_total_correlation():
    """KL(p_phi(x_0) || p_theta(x_0)) of a student that decodes all at once is R_T, at least TC(x_0 | x_T)."""
    model = some_model(7)
    teacher = chain_of(model, whole_block("low_confidence_static", 3))
    least = total_correlation(teacher, s=0, t=3)
    students = {"best": model_of(teacher.posteriors(), otherwise=model), "other": some_model(8)}
    lost = {}
    for name, student in students.items():
        clean = chain_of(student, whole_block("random", 3, tokens_per_step=3)).clean()
        lost[name] = float(divergence(teacher.clean(), clean, teacher.all_masked))
        one_shot = {teacher.all_masked: student.one_shot(teacher.all_masked)}
        at_T = risk(teacher.marginal(3), teacher.posteriors(), one_shot)
        assert lost[name] == pytest.approx(at_T, abs=CLOSE)
    assert lost["best"] == pytest.approx(least, abs=CLOSE)
    assert lost["other"] > least > 0


@pytest.mark.parametrize("tokens_per_step", [1, 2, 4])
def test_left_to_right_the_best_student_loses_the_total_correlation_of_what_it_commits_together(
    tokens_per_step,
):
    """KL(p_phi(x_0) || p_theta(x_0)) is the sum of TC(x_s | x_t) over its steps, s tokens fewer than t."""
    model = some_model(9, length=4)
    teacher = chain_of(model, whole_block("sequential", 4))
    student = model_of(teacher.posteriors(), otherwise=model)
    clean = chain_of(student, whole_block("sequential", 4, tokens_per_step)).clean()
    steps = range(tokens_per_step, 5, tokens_per_step)
    expected = sum(total_correlation(teacher, s=t - tokens_per_step, t=t) for t in steps)
    lost = float(divergence(teacher.clean(), clean, teacher.all_masked))
    assert lost == pytest.approx(expected, abs=CLOSE)
    assert (lost < CLOSE) == (tokens_per_step == 1)
