"""Soft targets: divergences in both directions, over all tokens or the likeliest and the rest."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from t3d.objectives.cross_entropy import cross_entropy_loss
from t3d.objectives.kl import keep_top_k, kl_divergence, kl_loss, soft_cross_entropy_loss, with_rest

LN2 = math.log(2)
HALVES = torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64).log()
QUARTERS = torch.tensor([[0.25, 0.5, 0.25]], dtype=torch.float64).log()


def random_log_probs(*shape):
    return torch.randn(*shape, dtype=torch.float64).log_softmax(-1)


def test_both_directions_by_hand():
    """p = (1/2, 1/4, 1/4), q = (1/8, 1/8, 3/4): KL(p || q) = 1/2 ln 4 + 1/4 ln 2 + 1/4 ln (1/3).

    KL(q || p) = 1/8 ln (1/4) + 1/8 ln (1/2) + 3/4 ln 3.
    """
    other = torch.tensor([[0.125, 0.125, 0.75]], dtype=torch.float64).log()
    forward = LN2 + 0.25 * LN2 - 0.25 * math.log(3)
    reverse = -0.25 * LN2 - 0.125 * LN2 + 0.75 * math.log(3)
    assert kl_divergence(HALVES, other).item() == pytest.approx(forward)
    assert kl_divergence(HALVES, other, "reverse").item() == pytest.approx(reverse)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_it_is_zero_only_between_equals(direction):
    target, student = random_log_probs(5, 7), random_log_probs(5, 7)
    torch.testing.assert_close(
        kl_divergence(target, target, direction), torch.zeros(5, dtype=torch.float64), atol=1e-12, rtol=0
    )
    assert (kl_divergence(target, student, direction) > 0).all()


def test_forward_has_the_gradient_of_the_cross_entropy_under_the_target():
    target, logits = random_log_probs(4, 6), torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    loss = kl_loss(target_MV=target, student_MV=logits.log_softmax(-1), num_tokens=4).loss
    (ours,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(ours, (logits.detach().softmax(-1) - target.exp()) / 4)


@pytest.mark.parametrize("top_k", [None, 2])
@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_gradients_are_those_of_the_value(direction, top_k):
    target, logits = random_log_probs(3, 5), torch.randn(3, 5, dtype=torch.float64, requires_grad=True)

    def value(logits):
        student = logits.log_softmax(-1)
        options = {"num_tokens": 3, "direction": direction, "top_k": top_k}
        return kl_loss(target_MV=target, student_MV=student, **options).loss

    assert gradcheck(value, (logits,))


def test_tokens_that_cannot_occur_add_nothing_and_have_a_finite_gradient():
    """The mask token is never drawn: its log-probability is minus infinity."""
    logits = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([[0.0, -torch.inf, -torch.inf]], dtype=torch.float64)
    loss = kl_divergence(target, logits.log_softmax(-1)).sum()
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() == pytest.approx(math.log(3))
    torch.testing.assert_close(gradient, torch.tensor([[-2 / 3, 1 / 3, 1 / 3]], dtype=torch.float64))


def test_the_rest_is_one_bucket():
    """Of 1/2, 1/4, 1/8, 1/8 the two likeliest, and 1/4; the student's share of the same tokens."""
    target = torch.tensor([[0.125, 0.5, 0.125, 0.25]], dtype=torch.float64).log()
    student = torch.tensor([[0.3, 0.1, 0.2, 0.4]], dtype=torch.float64).log()
    kept = keep_top_k(target, student, 2)
    torch.testing.assert_close(kept[0].exp(), torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64))
    torch.testing.assert_close(kept[1].exp(), torch.tensor([[0.1, 0.4, 0.5]], dtype=torch.float64))


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_buckets_lose_divergence_and_all_tokens_lose_none(direction):
    target, student = random_log_probs(20, 9), random_log_probs(20, 9)
    whole = kl_divergence(target, student, direction)
    for top_k in (1, 4, 8):
        assert (kl_divergence(*keep_top_k(target, student, top_k), direction) <= whole + 1e-12).all()
    torch.testing.assert_close(kl_divergence(*keep_top_k(target, student, 8), direction), whole)


def test_a_rest_of_nothing_stays_finite():
    whole = torch.tensor([[0.75, 0.25]], dtype=torch.float64).log().requires_grad_()
    rest = with_rest(whole)
    rest.sum().backward()
    assert torch.isfinite(rest).all() and whole.grad is not None and torch.isfinite(whole.grad).all()


def test_positions_weigh_as_told_and_the_target_is_not_taught():
    target = HALVES.expand(2, 3).clone().requires_grad_()
    weight = torch.tensor([1.0, 3.0], dtype=torch.float64)
    student = torch.cat([HALVES, QUARTERS]).requires_grad_()
    output = kl_loss(target_MV=target, student_MV=student, num_tokens=6, weight_M=weight)
    output.loss.backward()
    assert output.loss.item() == pytest.approx(3 * 0.25 * LN2 / 6)
    assert output.metrics["loss/kl"].item() == output.loss.item()
    assert target.grad is None and student.grad is not None


def test_soft_targets_take_a_share_where_there_are_some_by_hand():
    """-log p = (1, 2, 4), KL = (8, 16, 32) none at the last; w = (1, 3, 5), a share of 1/4, 2 tokens.

    (1 (3/4 + 8/4) + 3 (6/4 + 16/4) + 5 * 4) / 2; cross-entropy (1 + 6 + 20) / 2; soft (8 + 48) / 2.
    """
    numbers = {"student_real_M": [-1.0, -2.0, -4.0], "divergence_M": [8.0, 16.0, 32.0]}
    numbers |= {"weight_M": [1.0, 3.0, 5.0], "is_soft_M": [True, True, False]}
    output = soft_cross_entropy_loss(
        **{name: torch.tensor(values) for name, values in numbers.items()},
        soft_target_weight=0.25,
        num_tokens=2,
    )
    assert output.loss.item() == 19.625
    assert output.metrics["loss/cross_entropy"].item() == 13.5
    assert output.metrics["loss/soft_targets"].item() == 28


@pytest.mark.parametrize("weighs", [False, True])
def test_without_a_share_or_without_soft_targets_it_is_the_cross_entropy(weighs):
    log_prob, divergence = -torch.rand(6), torch.rand(6)
    weight = {"weight_M": torch.rand(6)} if weighs else {}
    expected = cross_entropy_loss(student_real_M=log_prob, num_tokens=4, **weight).loss
    for share, is_soft in ((0.0, torch.ones(6, dtype=torch.bool)), (0.9, torch.zeros(6, dtype=torch.bool))):
        soft = {"divergence_M": divergence, "is_soft_M": is_soft, "soft_target_weight": share}
        loss = soft_cross_entropy_loss(student_real_M=log_prob, num_tokens=4, **soft, **weight).loss
        torch.testing.assert_close(loss, expected)
