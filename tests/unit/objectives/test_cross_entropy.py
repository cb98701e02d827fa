"""Cross-entropy on noisy states."""

import itertools
import math

import pytest
import torch
from torch.nn import functional

from t3d.objectives.cross_entropy import cross_entropy_loss


def test_it_equals_torchs_cross_entropy():
    logits, label = torch.randn(11, 40, dtype=torch.float64), torch.randint(40, (11,))
    loss = cross_entropy_loss(
        student_real_M=-functional.cross_entropy(logits, label, reduction="none"), num_tokens=11
    ).loss
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits, label))


def test_by_hand_with_a_global_count():
    """ln 2 + ln 4 = 3 ln 2, over 6 loss tokens of the whole accumulated batch: ln 2 / 2."""
    log_prob = torch.tensor([0.5, 0.25], dtype=torch.float64).log()
    output = cross_entropy_loss(student_real_M=log_prob, num_tokens=torch.tensor(6))
    assert output.loss.item() == pytest.approx(math.log(2) / 2)
    assert output.metrics["loss/cross_entropy"].item() == output.loss.item()


def test_no_token_gives_no_loss():
    assert cross_entropy_loss(student_real_M=torch.empty(0), num_tokens=3).loss.item() == 0


def test_metrics_carry_no_gradient():
    log_prob = torch.tensor([-1.0], requires_grad=True)
    output = cross_entropy_loss(student_real_M=log_prob, num_tokens=1)
    assert output.loss.requires_grad
    assert not any(value.requires_grad for value in output.metrics.values())


def test_weights_by_hand():
    """SDAR's weighting: p = 1/2 masked ln 2 and ln 4, each weighs 2; 4 response tokens: 6 ln 2 / 4."""
    log_prob = torch.tensor([0.5, 0.25], dtype=torch.float64).log()
    weight = 1 / torch.tensor([0.5, 0.5], dtype=torch.float64)
    output = cross_entropy_loss(student_real_M=log_prob, weight_M=weight, num_tokens=4)
    assert output.loss.item() == pytest.approx(1.5 * math.log(2))


@pytest.mark.parametrize("probability", [0.1, 0.5, 1.0])
def test_inverse_probabilities_make_the_expected_loss_the_mean_over_all_tokens(probability):
    """All 2^4 masks of four tokens, each with its probability: the sum of CE / p is that of all tokens."""
    log_prob = -torch.rand(4, dtype=torch.float64)
    expected = 0.0
    for mask in itertools.product([False, True], repeat=4):
        masked = torch.tensor(mask)
        weight = torch.full((int(masked.sum()),), 1 / probability, dtype=torch.float64)
        loss = cross_entropy_loss(student_real_M=log_prob[masked], weight_M=weight, num_tokens=4).loss
        expected += probability ** sum(mask) * (1 - probability) ** (4 - sum(mask)) * loss.item()
    assert expected == pytest.approx(-log_prob.mean().item())


def test_the_gradient_by_the_logits_passes_the_numerical_check():
    logits = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    label, weight = torch.randint(4, (5,)), torch.rand(5, dtype=torch.float64)

    def loss(logits):
        log_prob = -functional.cross_entropy(logits, label, reduction="none")
        return cross_entropy_loss(student_real_M=log_prob, weight_M=weight, num_tokens=7).loss

    assert torch.autograd.gradcheck(loss, (logits,))
