"""The T3D objective (Eq. 10)."""

import math

import pytest
import torch

from t3d.objectives.cross_entropy import cross_entropy_loss
from t3d.objectives.ddo import ddo_loss
from t3d.objectives.path_consistency import path_loss
from t3d.objectives.t3d import t3d_loss


def parts():
    student_real = torch.randn(5, dtype=torch.float64, requires_grad=True)
    others = [torch.randn(5, dtype=torch.float64) for _ in range(4)]
    ddo = ddo_loss(
        student_real_N=student_real,
        reference_real_N=others[0],
        student_fake_N=others[1],
        reference_fake_N=others[2],
        beta=1.0,
        alpha=0.5,
        num_samples=5,
    )
    return student_real, ddo, path_loss(student_real_M=student_real, weight_M=others[3].abs(), normaliser=5)


def test_with_path_weight_zero_it_is_ddo():
    """The loss, and its gradient."""
    student_real, ddo, path = parts()
    loss = t3d_loss(ddo, path, path_weight=0.0).loss
    assert loss.item() == ddo.loss.item()
    (gradient,) = torch.autograd.grad(loss, student_real, retain_graph=True)
    (expected,) = torch.autograd.grad(ddo.loss, student_real)
    assert torch.equal(gradient, expected)


@pytest.mark.parametrize("path_weight", [0.2, 1.0, 3.0])
def test_it_is_the_weighted_sum_of_its_parts(path_weight):
    _, ddo, path = parts()
    loss = t3d_loss(ddo, path, path_weight=path_weight).loss
    assert loss.item() == pytest.approx(ddo.loss.item() + path_weight * path.loss.item())


def test_it_reports_the_numbers_of_both_parts():
    _, ddo, path = parts()
    assert t3d_loss(ddo, path, path_weight=0.2).metrics == {**ddo.metrics, **path.metrics}


def test_naive_distillation_plus_the_path_term_by_hand():
    """ln 2 and ln 4 with path weights 1 and 1/2 over two tokens: (3 ln 2) / 2 + 0.2 (2 ln 2) / 2."""
    log_prob = torch.tensor([0.5, 0.25], dtype=torch.float64).log()
    weight = torch.tensor([1.0, 0.5], dtype=torch.float64)
    naive = cross_entropy_loss(student_real_M=log_prob, num_tokens=2)
    path = path_loss(student_real_M=log_prob, weight_M=weight, normaliser=2)
    output = t3d_loss(naive, path, path_weight=0.2)
    assert output.loss.item() == pytest.approx(1.7 * math.log(2))
    assert set(output.metrics) == {"loss/cross_entropy", "loss/path"}
