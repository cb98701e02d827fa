"""Cross-entropy on noisy states: one formula, whose meaning is set by where the states come from.

On states of teacher trajectories it is naive trajectory distillation (paper Eq. 5); on randomly
masked states it is the masked-diffusion loss (paper Eq. 3).
"""

from jaxtyping import Float
from torch import Tensor

from t3d.objectives.logprobs import ObjectiveOutput


def cross_entropy_loss(*, student_real_M: Float[Tensor, "M"], num_tokens: float | Tensor) -> ObjectiveOutput:
    """- sum_i log p(x0_i | x_t), divided by the global number of loss tokens."""
    loss = -student_real_M.sum() / num_tokens
    return ObjectiveOutput(loss=loss, metrics={"loss/cross_entropy": loss.detach()})
