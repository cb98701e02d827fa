"""Which masked positions a denoising step commits: the rule of every strategy, and nothing else has it."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from t3d.decoding.params import DecodeParams

NEEDS_ORDER, NEEDS_ENTROPY = ("random",), ("entropy_bounded",)
"""Strategies that look at random numbers, or at entropies, beside the confidence."""


def transfer_mask(
    confidence_RS: Float[Tensor, "R S"],
    noise_mask_RS: Bool[Tensor, "R S"],
    num_planned_R: Int[Tensor, "R"],
    params: DecodeParams,
    *,
    order_uniform_RS: Float[Tensor, "R S"] | None = None,
    entropy_RS: Float[Tensor, "R S"] | None = None,
) -> Bool[Tensor, "R S"]:
    """Positions to commit now: always masked ones, min(planned, masked) of them or, if adaptive, more.

    - ``low_confidence_static``: the most confident;
    - ``low_confidence_dynamic``: all above the threshold (strictly) and at least the static choice;
    - ``entropy_bounded``: the positions of lowest entropy while their entropies add up to less than the
      bound, and at least the planned count of them (needs ``entropy_RS``);
    - ``sequential``: the leftmost;
    - ``random``: uniformly at random (needs ``order_uniform_RS``).

    The lower position wins a tie.
    """
    if params.remasking == "sequential":
        columns = torch.arange(noise_mask_RS.shape[1], device=noise_mask_RS.device)
        score_RS = -columns.expand_as(noise_mask_RS).to(confidence_RS.dtype)
    elif params.remasking == "random":
        assert order_uniform_RS is not None, "the random order needs its uniforms"
        score_RS = order_uniform_RS
    elif params.remasking == "entropy_bounded":
        assert entropy_RS is not None, "the order by entropy needs the entropies"
        score_RS = -entropy_RS
        num_planned_R = torch.maximum(num_planned_R, _num_within_bound(entropy_RS, noise_mask_RS, params))
    else:
        score_RS = confidence_RS
    score_RS = score_RS.masked_fill(~noise_mask_RS, -torch.inf)
    place_RS = score_RS.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
    chosen_RS = place_RS < num_planned_R[:, None]
    if params.remasking == "low_confidence_dynamic":
        chosen_RS = chosen_RS | (confidence_RS > params.confidence_threshold)
    return chosen_RS & noise_mask_RS


def _num_within_bound(
    entropy_RS: Float[Tensor, "R S"], noise_mask_RS: Bool[Tensor, "R S"], params: DecodeParams
) -> Int[Tensor, "R"]:
    """Longest run of masked positions by rising entropy whose sum stays below the bound."""
    rising_RS = entropy_RS.masked_fill(~noise_mask_RS, torch.inf).sort(-1).values
    return (rising_RS.cumsum(-1) < params.entropy_bound).sum(-1)
