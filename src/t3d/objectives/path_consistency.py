"""Path consistency: cross-entropy that weighs early commits more (paper Eq. 8 and 9)."""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from t3d.objectives.logprobs import ObjectiveOutput

PathWeighting = Literal["linear", "nested_prefix"]


def linear_path_weights(local_step_L: Int[Tensor, "L"], budget: int) -> Float[Tensor, "L"]:
    """w = (B - pi + 1) / B (Eq. 9); pi in 1..B is the step that committed the token, B the budget."""
    return (budget - local_step_L + 1).float() / budget


def nested_prefix_weights(
    local_step_L: Int[Tensor, "L"], counted_L: Bool[Tensor, "L"], block_size: int, tokens_per_level: int
) -> Float[Tensor, "L"]:
    """Weights that turn a plain sum over one response into the released code's path loss.

    That loss is the mean over S = ceil(block_size / k) levels of the mean cross-entropy of the
    tokens with local step <= (s + 1) k. So a token weighs sum_{s >= g} 1 / |D_s| / S, with
    g = floor((pi - 1) / k) and |D_s| the counted tokens of level s; tokens not counted (pads and the filler
    after the stop in the released code) weigh 0.
    """
    num_levels = -(-block_size // tokens_per_level)
    level = torch.arange(1, num_levels + 1, device=local_step_L.device)
    in_level_LS = (local_step_L[:, None] <= level * tokens_per_level) & counted_L[:, None]
    size_S = in_level_LS.sum(0)
    num_nonempty = (size_S > 0).sum().clamp(min=1)
    return (in_level_LS / size_S.clamp(min=1)).sum(1) / num_nonempty


def path_loss(
    *, student_real_M: Float[Tensor, "M"], weight_M: Float[Tensor, "M"], normaliser: float | Tensor
) -> ObjectiveOutput:
    """Eq. 8: - sum_i w_i log p(x0_i | x_t), divided by ``normaliser``.

    The normaliser is a global count over the accumulated batch: its loss tokens (a token mean), or
    its trajectories (the sum that Eq. 8 prints).
    """
    loss = -(weight_M * student_real_M).sum() / normaliser
    return ObjectiveOutput(loss=loss, metrics={"loss/path": loss.detach()})
