"""The T3D objective (Eq. 10)."""

import pytest
import torch

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
