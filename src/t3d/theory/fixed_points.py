"""Where gradient descent on the project's own DDO loss takes a student, for each kind of fake tokens.

N outcomes of one token, F fake ones, P pairs of a real and a fake one, each with its weight, so that
expectations are exact. T steps.
"""

from functools import partial
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from t3d.objectives.ddo import ddo_loss

Fakes = Literal["argmax", "sample", "expectation"]
"""As ``fake_source`` of training: the reference's likeliest outcome, draws from it, -KL(p_ref || p_theta)."""
_MOST_ITERATIONS = 300
FAKES: tuple[Fakes, ...] = get_args(Fakes)


def expected_ddo(
    log_student: Float[Tensor, "N"],
    log_reference: Float[Tensor, "N"],
    teacher: Float[Tensor, "N"],
    fakes: Fakes,
    *,
    beta: float,
    alpha: float,
) -> Float[Tensor, ""]:
    """The DDO loss of a state in expectation over real outcomes and over fakes, both outside sigma."""
    reference = log_reference.exp()
    if fakes == "expectation":
        share_F = log_student.new_ones(1)
        student_F = (reference * (log_student - log_reference)).sum()[None]
        reference_F = torch.zeros_like(student_F)
    else:
        share_F, student_F, reference_F = reference, log_student, log_reference
        if fakes == "argmax":
            share_F = torch.zeros_like(reference).scatter(0, reference.argmax()[None], 1.0)
    real, fake = (grid.flatten() for grid in torch.meshgrid(*map(_places, (teacher, share_F)), indexing="ij"))
    loss_P = torch.vmap(partial(_pair_loss, beta=beta, alpha=alpha))(
        log_student[real], log_reference[real], student_F[fake], reference_F[fake]
    )
    return (teacher[real] * share_F[fake] * loss_P).sum()


def _places(of: Tensor) -> Tensor:
    return torch.arange(len(of))


def _pair_loss(
    student_real: Tensor,
    reference_real: Tensor,
    student_fake: Tensor,
    reference_fake: Tensor,
    *,
    beta: float,
    alpha: float,
) -> Tensor:
    return ddo_loss(
        student_real_N=student_real[None],
        reference_real_N=reference_real[None],
        student_fake_N=student_fake[None],
        reference_fake_N=reference_fake[None],
        beta=beta,
        alpha=alpha,
        num_samples=1,
    ).loss


def least(
    reference: Float[Tensor, "N"],
    teacher: Float[Tensor, "N"],
    fakes: Fakes,
    *,
    alpha: float,
    beta: float,
) -> Float[Tensor, "N"]:
    """The student of least loss beside a reference that stays: where a round ends that is long enough."""
    logits = reference.log().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [logits],
        max_iter=_MOST_ITERATIONS,
        tolerance_grad=beta * 1e-10,
        tolerance_change=1e-16,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = expected_ddo(logits.log_softmax(-1), reference.log(), teacher, fakes, beta=beta, alpha=alpha)
        loss.backward()
        return loss

    optimizer.step(closure)
    return logits.detach().softmax(-1)


def descend(
    start: Float[Tensor, "N"],
    teacher: Float[Tensor, "N"],
    fakes: Fakes,
    *,
    alpha: float,
    beta: float,
    num_steps: int,
    step_size: float = 1.0,
    refresh_every: int = 1,
) -> Float[Tensor, "T N"]:
    """The student's probabilities before each step and after the last; student and reference begin alike.

    Steps on the logits are ``step_size / beta`` times the gradient, which is proportional to beta. The
    reference is the student of ``refresh_every`` steps ago at most.
    """
    logits = start.log()
    visited = [logits.softmax(-1)]
    reference = logits
    for step in range(num_steps):
        if step % refresh_every == 0:
            reference = logits.log_softmax(-1)
        leaf = logits.detach().requires_grad_()
        loss = expected_ddo(leaf.log_softmax(-1), reference, teacher, fakes, beta=beta, alpha=alpha)
        (gradient,) = torch.autograd.grad(loss, leaf)
        logits = logits - step_size / beta * gradient
        visited.append(logits.softmax(-1))
    return torch.stack(visited)
