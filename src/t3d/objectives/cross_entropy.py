"""Cross-entropy on noisy states: one formula, whose meaning is set by where the states come from.

On states of teacher trajectories it is naive trajectory distillation (paper Eq. 5); on randomly
masked states it is the masked-diffusion loss (Eq. 3), which on real solutions is supervised
fine-tuning and on a teacher's responses ReDi's rectification (Eq. 16).
"""

from jaxtyping import Float
from torch import Tensor

from t3d.objectives.logprobs import ObjectiveOutput


def cross_entropy_loss(
    *,
    student_real_M: Float[Tensor, "M"],
    num_tokens: float | Tensor,
    weight_M: Float[Tensor, "M"] | None = None,
) -> ObjectiveOutput:
    """- sum_i w_i log p(x0_i | x_t), divided by a global number of tokens; without weights w = 1.

    With w = 1 / p of the masking probability and all response tokens as the number, it is the
    continuous-time ELBO per token, which SDAR is trained with.
    """
    weighted_M = student_real_M if weight_M is None else weight_M * student_real_M
    loss = -weighted_M.sum() / num_tokens
    return ObjectiveOutput(loss=loss, metrics={"loss/cross_entropy": loss.detach()})
