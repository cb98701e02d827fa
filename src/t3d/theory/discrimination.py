"""DDO on distributions that are written out: Eq. 7 as printed, its bound Eq. 23, and where they are least.

N outcomes of x_0 at a state, and any axes before it that broadcast; ``teacher`` is p_phi(x_0 | x_t),
``reference`` p_theta_ref, ``student`` p_theta.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

_HALVINGS = 80


def printed_loss(
    teacher: Float[Tensor, "... N"], reference: Float[Tensor, "... N"], student: Float[Tensor, "... N"]
) -> Float[Tensor, "..."]:
    """Eq. 7: -log sigma(E_teacher[Delta]) - log(1 - sigma(E_reference[Delta])), Delta of Eq. 24."""
    ratio = (student / reference).log()
    return -logsigmoid((teacher * ratio).sum(-1)) - logsigmoid(-(reference * ratio).sum(-1))


def real_and_fake_terms(
    teacher: Float[Tensor, "... N"], reference: Float[Tensor, "... N"], student: Float[Tensor, "... N"]
) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
    """Eq. 23's terms at each state: -E_teacher[log sigma(Delta)], -E_reference[log(1 - sigma(Delta))]."""
    ratio = (student / reference).log()
    return -(teacher * logsigmoid(ratio)).sum(-1), -(reference * logsigmoid(-ratio)).sum(-1)


def bound_loss(
    teacher: Float[Tensor, "... N"], reference: Float[Tensor, "... N"], student: Float[Tensor, "... N"]
) -> Float[Tensor, "..."]:
    """Eq. 23 at each state: both expectations outside sigma. Eq. 4 with a state; least at the teacher."""
    real, fake = real_and_fake_terms(teacher, reference, student)
    return real + fake


def extrapolated(
    teacher: Float[Tensor, "N"], reference: Float[Tensor, "N"], factor: float
) -> Float[Tensor, "N"]:
    """teacher + factor (teacher - reference)."""
    return teacher + factor * (teacher - reference)


def printed_minimiser(
    teacher: Float[Tensor, "N"], reference: Float[Tensor, "N"]
) -> tuple[Float[Tensor, "N"], float]:
    """The student at which Eq. 7 is stationary, and the factor s by which it lies beyond the teacher.

    Setting the gradient to 0 under sum p = 1 gives p = (A teacher - B reference) / (A - B) with A =
    sigma(-E_teacher[Delta]) and B = sigma(E_reference[Delta]), which is teacher + s (teacher - reference), s
    = B / (A - B), found by halving. B is above 0 at the teacher, so s is too. Both arguments must be
    distributions without zeros, and differ; of outcomes that the teacher never has the infimum is at the
    teacher.
    """
    room = teacher / (reference - teacher).clamp(min=1e-300)
    low, high = 0.0, float(room.min())
    for _ in range(_HALVINGS):
        factor = (low + high) / 2
        ratio = (extrapolated(teacher, reference, factor) / reference).log()
        real, fake = torch.sigmoid(-(teacher * ratio).sum()), torch.sigmoid((reference * ratio).sum())
        if float(fake * (1 + factor) - real * factor) > 0:
            low = factor
        else:
            high = factor
    return extrapolated(teacher, reference, low), low


def flattened(teacher: Float[Tensor, "N"], fake: Float[Tensor, "N"], alpha: float) -> Float[Tensor, "N"]:
    """Where DDO's gradient vanishes at student = reference: (teacher - alpha fake) / (1 - alpha).

    Of fakes from this distribution, whatever the student is. At Delta = 0 both sigmas are 1/2, and the
    gradient by the logits is -beta/2 [(teacher - p) - alpha (fake - p)]. With fakes from the student itself
    fake = p, and the solution is the teacher. An entry below 0 says that there is none.
    """
    return (teacher - alpha * fake) / (1 - alpha)
