"""Cross-entropy on noisy states."""

import math

import pytest
import torch

from t3d.objectives.cross_entropy import cross_entropy_loss
from t3d.objectives.logprobs import token_log_probs


def test_it_equals_torchs_cross_entropy():
    logits, label = torch.randn(11, 40, dtype=torch.float64), torch.randint(40, (11,))
    loss = cross_entropy_loss(student_real_M=token_log_probs(logits, label), num_tokens=11).loss
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
