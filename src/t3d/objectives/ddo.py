"""Direct Discriminative Optimization on trajectory states (paper Eq. 4 and 7).

N samples: states x_t (Eq. 6-7) or whole responses. Every argument is a sequence log-probability l(y) of one:
the sum (paper) or the mean (released code) of log p(y_i | x_t) over its loss positions.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from t3d.objectives.logprobs import ObjectiveOutput


def ddo_loss(
    *,
    student_real_N: Float[Tensor, "N"],
    reference_real_N: Float[Tensor, "N"],
    student_fake_N: Float[Tensor, "N"],
    reference_fake_N: Float[Tensor, "N"],
    beta: float,
    alpha: float,
    num_samples: float | Tensor,
) -> ObjectiveOutput:
    """Eq. 7 summed over the given samples and divided by ``num_samples``.

    -log sigma(beta (l_theta(real) - l_ref(real)))
    - alpha log(1 - sigma(beta (l_theta(fake) - l_ref(fake))))

    ``real`` is the teacher's response, ``fake`` the reference's own guess at the same state, or, with
    -KL(p_ref || p_theta) for ``student_fake_N`` and 0 for ``reference_fake_N``, the expectation over all its
    guesses, which Eq. 7 prints inside sigma; one guess in its place is the bound of Eq. 23. The paper prints
    alpha = beta = 1; appendix C.2 has beta, the released code both. At theta = ref the value is
    (1 + alpha) ln 2. ``num_samples`` is the global number of samples of the accumulated batch, so that
    accumulation does not change the loss.
    """
    real_margin_N = beta * (student_real_N - reference_real_N.detach())
    fake_margin_N = beta * (student_fake_N - reference_fake_N.detach())
    real_N = -logsigmoid(real_margin_N)
    fake_N = -logsigmoid(-fake_margin_N)  # log(1 - sigma(x)) = logsigmoid(-x), stable
    real, fake = real_N.sum() / num_samples, alpha * fake_N.sum() / num_samples
    saturated_N = torch.maximum(real_margin_N.abs(), fake_margin_N.abs()) > 4.0
    metrics = {
        "loss/ddo_real": real,
        "loss/ddo_fake": fake,
        "margin/real": real_margin_N.sum() / num_samples,
        "margin/fake": fake_margin_N.sum() / num_samples,
        "margin/saturated": saturated_N.sum() / num_samples,
    }
    return ObjectiveOutput(
        loss=real + fake, metrics={name: value.detach() for name, value in metrics.items()}
    )
