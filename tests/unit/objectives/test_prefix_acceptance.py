"""What a drafter is taught: positions weigh by the chance that the draft before them is accepted."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from t3d.objectives.prefix_acceptance import accepted_per_draft, prefix_acceptance_loss, survival

LN2 = math.log(2)
DRAFTS = torch.tensor([0, 0, 0, 1, 1])
HALVES = torch.tensor([-LN2, -2 * LN2, -LN2, -3 * LN2, -LN2], dtype=torch.float64)
"""Two drafts: p = 1/2, 1/4, 1/2 and 1/8, 1/2."""


def loss_of(log_prob, draft=DRAFTS, **options):
    fields = {"num_drafts": int(draft.max()) + 1, "num_tokens": len(draft)}
    return prefix_acceptance_loss(student_real_M=log_prob, draft_M=draft, **(fields | options))


def test_two_drafts_by_hand():
    """S = 1, 1/2, 1/8 and 1, 1/8: CE ln 2 (1 + 1/2 * 2 + 1/8) + ln 2 (3 + 1/8), over 5 tokens."""
    output = loss_of(HALVES)
    assert survival(HALVES.exp(), DRAFTS, 2).tolist() == pytest.approx([1, 0.5, 0.125, 1, 0.125])
    assert output.loss.item() == pytest.approx(LN2 * (2 + 0.125 + 3 + 0.125) / 5)
    assert output.metrics["loss/prefix"].item() == pytest.approx(output.loss.item())
    assert output.metrics["loss/first_error"].item() == 0


def test_the_first_error_by_hand():
    """S (1 - p) = 1/2, 3/8, 1/16 and 7/8, 1/16, which sum to the chance that a draft has an error."""
    extra = loss_of(HALVES, first_error_weight=2.0).loss - loss_of(HALVES).loss
    by_hand = LN2 * (0.5 + 0.375 * 2 + 0.0625 + 0.875 * 3 + 0.0625)
    assert extra.item() == pytest.approx(2 * by_hand / 5)


def test_where_all_is_accepted_it_is_the_mean_cross_entropy():
    near = torch.full((5,), -1e-9, dtype=torch.float64)
    assert loss_of(near, first_error_weight=3.0).loss.item() == pytest.approx(1e-9, rel=1e-6)
    likely = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss_of(likely, first_error_weight=3.0).loss, likely)
    torch.testing.assert_close(gradient, torch.full((5,), -0.2, dtype=torch.float64))


@pytest.mark.parametrize("weight", [0.0, 2.0])
def test_where_the_first_is_surely_wrong_only_that_counts(weight):
    log_prob = torch.tensor([-800.0, -1.0, -2.0], dtype=torch.float64, requires_grad=True)
    output = loss_of(log_prob, torch.zeros(3, dtype=torch.long), first_error_weight=weight)
    (gradient,) = torch.autograd.grad(output.loss, log_prob)
    assert output.loss.item() == pytest.approx((1 + weight) * 800 / 3)
    assert gradient.tolist() == pytest.approx([-(1 + weight) / 3, 0, 0])


def test_weights_are_no_way_to_lower_the_loss():
    """The gradient is that of the cross-entropies under fixed weights."""
    log_prob = HALVES.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss_of(log_prob, first_error_weight=1.0).loss, log_prob)
    accepts = HALVES.exp()
    weight = survival(accepts, DRAFTS, 2) * (2 - accepts)
    torch.testing.assert_close(gradient, -weight / 5)


def test_gradients_are_those_of_the_value_under_fixed_weights():
    """With a divergence the weights do not depend on what is differentiated."""
    divergence = torch.rand(5, dtype=torch.float64, requires_grad=True)
    assert gradcheck(
        lambda value: loss_of(HALVES, divergence_M=value, first_error_weight=0.5).loss, (divergence,)
    )


def test_soft_targets_are_weighed_in_the_same_way():
    divergence = torch.tensor([0.3, 0.2, 0.1, 0.5, 0.4], dtype=torch.float64)
    expected = 0.3 + 0.2 / 2 + 0.1 / 8 + 0.5 + 0.4 / 8
    assert loss_of(HALVES, divergence_M=divergence).loss.item() == pytest.approx(expected / 5)


def test_positions_left_out_weigh_nothing():
    counted = torch.tensor([True, True, False, True, False])
    log_prob = HALVES.clone().requires_grad_()
    output = loss_of(log_prob, is_counted_M=counted, first_error_weight=1.0)
    (gradient,) = torch.autograd.grad(output.loss, log_prob)
    assert gradient[~counted].abs().max() == 0
    without = loss_of(HALVES[counted], DRAFTS[counted], first_error_weight=1.0, num_tokens=5)
    assert output.loss.item() == pytest.approx(without.loss.item())


def test_tokens_that_are_given_weigh_nothing_and_are_no_risk():
    """The first of each draft: S = -, 1, 1/4 and -, 1; with c = 1 weights 1 + 3/4, 1/4 (1 + 1/2), 1 + 1/2."""
    given = torch.tensor([True, False, False, True, False])
    log_prob = HALVES.clone().requires_grad_()
    output = loss_of(log_prob, is_given_M=given, first_error_weight=1.0)
    (gradient,) = torch.autograd.grad(output.loss, log_prob)
    assert output.loss.item() == pytest.approx(LN2 * (1.75 * 2 + 0.375 + 1.5) / 5)
    assert gradient.tolist() == pytest.approx([0, -0.35, -0.075, 0, -0.3])


drafts = st.lists(st.lists(st.booleans(), min_size=0, max_size=9), min_size=1, max_size=6)


@given(drafts)
def test_accepted_tokens_are_those_before_the_first_mismatch(found):
    draft = torch.tensor([index for index, one in enumerate(found) for _ in one], dtype=torch.long)
    matches = torch.tensor([value for one in found for value in one], dtype=torch.bool)
    expected = [len(one) if all(one) else one.index(False) for one in found]
    assert accepted_per_draft(matches, draft, len(found)).tolist() == expected


@given(drafts)
def test_drafts_do_not_meet(found):
    """Each draft alone has the survival it has among others, in any number of them."""
    generator = torch.Generator().manual_seed(sum(map(len, found)))
    draft = torch.tensor([index for index, one in enumerate(found) for _ in one], dtype=torch.long)
    accepts = torch.rand(len(draft), generator=generator, dtype=torch.float64)
    together = survival(accepts, draft, len(found))
    for index in range(len(found)):
        own = draft == index
        alone = survival(accepts[own], torch.zeros(int(own.sum()), dtype=torch.long), 1)
        torch.testing.assert_close(together[own], alone)
