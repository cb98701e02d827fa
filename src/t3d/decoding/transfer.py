"""Which masked positions a denoising step commits. The only place that decides it."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from t3d.decoding.params import DecodeParams


def transfer_mask(
    confidence_RS: Float[Tensor, "R S"],
    noise_mask_RS: Bool[Tensor, "R S"],
    num_planned_R: Int[Tensor, "R"],
    order_uniform_RS: Float[Tensor, "R S"],
    params: DecodeParams,
) -> Bool[Tensor, "R S"]:
    """Positions to commit now: always masked ones, min(planned, masked) of them or, if dynamic, more.

    - ``low_confidence_static``: the most confident;
    - ``low_confidence_dynamic``: all above the threshold (strictly) and at least the static choice;
    - ``sequential``: the leftmost;
    - ``random``: uniformly at random.

    The lower position wins a tie.
    """
    if params.remasking == "sequential":
        columns = torch.arange(noise_mask_RS.shape[1], device=noise_mask_RS.device)
        score_RS = -columns.expand_as(noise_mask_RS).to(confidence_RS.dtype)
    elif params.remasking == "random":
        score_RS = order_uniform_RS
    else:
        score_RS = confidence_RS
    score_RS = score_RS.masked_fill(~noise_mask_RS, -torch.inf)
    place_RS = score_RS.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
    chosen_RS = place_RS < num_planned_R[:, None]
    if params.remasking == "low_confidence_dynamic":
        chosen_RS = chosen_RS | (confidence_RS > params.confidence_threshold)
    return chosen_RS & noise_mask_RS
