"""Direct Discriminative Optimization (Eq. 4 and 7)."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from t3d.objectives.ddo import ddo_loss
from t3d.objectives.logprobs import reduce_by_sample

NUMBER = st.floats(-30, 30)


def loss_of(
    student_real, reference_real, student_fake, reference_fake, *, beta=1.0, alpha=1.0, num_samples=None
):
    tensors = [
        torch.as_tensor(part, dtype=torch.float64)
        for part in (student_real, reference_real, student_fake, reference_fake)
    ]
    return ddo_loss(
        student_real_N=tensors[0],
        reference_real_N=tensors[1],
        student_fake_N=tensors[2],
        reference_fake_N=tensors[3],
        beta=beta,
        alpha=alpha,
        num_samples=len(tensors[0]) if num_samples is None else num_samples,
    )


@given(st.lists(NUMBER, min_size=1, max_size=5), st.floats(0.01, 5), st.floats(0, 3))
def test_at_the_reference_it_is_one_plus_alpha_times_ln_2(log_prob, beta, alpha):
    """Both margins are 0 and sigma(0) = 1/2, whatever beta."""
    output = loss_of(log_prob, log_prob, log_prob, log_prob, beta=beta, alpha=alpha)
    assert output.loss.item() == pytest.approx((1 + alpha) * math.log(2))
    assert output.metrics["margin/real"].item() == output.metrics["margin/fake"].item() == 0


def test_two_samples_by_hand():
    """beta = 2, alpha = 1/2; log-ratios times 2 are ln 3, -ln 3 (real) and ln 3, 0 (fake).

    sigma(ln 3) = 3/4 and sigma(-ln 3) = 1/4, so
    real: -ln(3/4) - ln(1/4) = ln(16/3); fake: -ln(1 - 3/4) - ln(1 - 1/2) = ln 8.
    Loss: (ln(16/3) + ln(8) / 2) / 2.
    """
    third = math.log(3) / 2
    output = loss_of([-1 + third, -4 - third], [-1, -4], [-2 + third, -7], [-2, -7], beta=2.0, alpha=0.5)
    assert output.loss.item() == pytest.approx((math.log(16 / 3) + math.log(8) / 2) / 2)
    assert output.metrics["loss/ddo_real"].item() == pytest.approx(math.log(16 / 3) / 2)
    assert output.metrics["loss/ddo_fake"].item() == pytest.approx(0.5 * math.log(8) / 2)
    assert output.metrics["margin/real"].item() == pytest.approx(0)
    assert output.metrics["margin/fake"].item() == pytest.approx(math.log(3) / 2)
    assert output.metrics["margin/saturated"].item() == 0


def test_saturated_samples_are_counted():
    """Margins beyond 4 on either side: sigma is within 2% of 0 or 1. Two of four samples."""
    output = loss_of([4.1, 0, 3.9, 0], [0] * 4, [0, -4.1, 0, 0], [0] * 4)
    assert output.metrics["margin/saturated"].item() == 0.5


@given(
    st.lists(st.tuples(NUMBER, NUMBER, NUMBER, NUMBER), min_size=1, max_size=4),
    st.floats(0.05, 1),
    st.floats(0, 2),
)
def test_it_equals_the_printed_formula(samples, beta, alpha):
    """-log sigma(x) - alpha log(1 - sigma(y)), as printed; its last digits are lost for large y."""
    expected = 0.0
    for student_real, reference_real, student_fake, reference_fake in samples:
        real = 1 / (1 + math.exp(-beta * (student_real - reference_real)))
        not_fake = 1 / (1 + math.exp(beta * (student_fake - reference_fake)))
        expected -= math.log(real) + alpha * math.log(not_fake)
    output = loss_of(*zip(*samples, strict=True), beta=beta, alpha=alpha)
    assert output.loss.item() == pytest.approx(expected / len(samples))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(("beta", "alpha"), [(1.0, 1.0), (0.1, 0.5)])
def test_the_gradient_at_the_reference_raises_real_and_lowers_fake(reduction, beta, alpha):
    """-(beta / 2) grad l(real) + alpha (beta / 2) grad l(fake), per sample, with respect to the logits.

    For -log sigma(beta m) has slope -beta sigma(-beta m), which is -beta / 2 at m = 0.
    """
    num_samples, sample = 3, torch.tensor([0, 0, 1, 2, 2, 2])
    logits = torch.randn(6, 7, dtype=torch.float64, requires_grad=True)
    real, fake = torch.randint(7, (6,)), torch.randint(7, (6,))

    def sequence(token):
        return reduce_by_sample(
            -functional.cross_entropy(logits, token, reduction="none"), sample, num_samples, reduction
        )

    loss = ddo_loss(
        student_real_N=sequence(real),
        reference_real_N=sequence(real).detach(),
        student_fake_N=sequence(fake),
        reference_fake_N=sequence(fake).detach(),
        beta=beta,
        alpha=alpha,
        num_samples=num_samples,
    ).loss
    (gradient,) = torch.autograd.grad(loss, logits)
    (real_gradient,) = torch.autograd.grad(sequence(real).sum(), logits)
    (fake_gradient,) = torch.autograd.grad(sequence(fake).sum(), logits)
    expected = (-(beta / 2) * real_gradient + alpha * (beta / 2) * fake_gradient) / num_samples
    torch.testing.assert_close(gradient, expected)
    assert gradient.abs().max() > 1e-4


def test_no_gradient_flows_into_the_reference():
    parts = [torch.randn(3, requires_grad=True) for _ in range(4)]
    names = ("student_real_N", "reference_real_N", "student_fake_N", "reference_fake_N")
    ddo_loss(**dict(zip(names, parts, strict=True)), beta=1.0, alpha=1.0, num_samples=3).loss.backward()
    assert [part.grad is not None for part in parts] == [True, False, True, False]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("margin", [1e3, -1e3, 1e6, -1e6])
def test_huge_margins_neither_overflow_nor_lose_the_gradient(dtype, margin):
    """log(1 - sigma(x)) is -x for large x and its slope -1; the naive form gives -inf and nan."""
    real = torch.tensor([-margin], dtype=dtype, requires_grad=True)
    fake = torch.tensor([margin], dtype=dtype, requires_grad=True)
    zero = torch.zeros(1, dtype=dtype)
    loss = ddo_loss(
        student_real_N=real,
        reference_real_N=zero,
        student_fake_N=fake,
        reference_fake_N=zero,
        beta=1.0,
        alpha=1.0,
        num_samples=1,
    ).loss
    loss.backward()
    assert loss.item() == 2 * max(margin, 0)
    assert (real.grad.item(), fake.grad.item()) == ((-1, 1) if margin > 0 else (0, 0))


def test_alpha_zero_leaves_the_real_term_alone():
    assert loss_of([0.0], [0.0], [50.0], [0.0], alpha=0.0).loss.item() == pytest.approx(math.log(2))
