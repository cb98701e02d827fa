"""From logits to decided tokens, for rows that share their sampling settings.

R rows, S block size, M masked positions (row by row), V vocabulary.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from t3d.attention.slots import to_device
from t3d.counter_rng import counter_uniform
from t3d.decoding.params import DecodeParams
from t3d.decoding.sampling import ORDER_STREAM, TOKEN_STREAM, Candidates, candidate_tokens
from t3d.decoding.transfer import transfer_mask


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedPositions:
    """The masked positions of active blocks before a denoising step (host side)."""

    noise_mask_RS: np.ndarray
    num_planned_R: np.ndarray
    counter_M: tuple[np.ndarray, ...]
    """Seed, request key, position and denoising step of each masked position: they key its noise."""


@dataclass(frozen=True, slots=True)
class Decisions:
    """What a step made of each masked position (host side)."""

    is_committed_M: np.ndarray
    token_M: np.ndarray
    logprob_M: np.ndarray


def sampling_key(params: DecodeParams) -> tuple[object, ...]:
    """What :func:`decide` depends on: rows with equal keys are decided in one call."""
    adaptive = (params.remasking, params.confidence_threshold, params.entropy_bound)
    return (params.temperature, params.top_k, params.top_p, params.confidence, *adaptive)


def decide(
    logits_MV: Float[Tensor, "M V"], masked: MaskedPositions, params: DecodeParams, mask_token_id: int
) -> Decisions:
    """Draw a token for every masked position and choose which are committed; one read from the device."""
    device = logits_MV.device
    num_masked_R = masked.noise_mask_RS.sum(1)
    commits_all = bool((masked.num_planned_R >= num_masked_R).all())  # under any strategy
    counter_M = None
    if params.temperature > 0 or params.remasking == "random":
        counter_M = [to_device(counter, device) for counter in masked.counter_M]
    uniform_M = (
        None if params.temperature == 0 or counter_M is None else counter_uniform(*counter_M, TOKEN_STREAM)
    )
    candidates = candidate_tokens(logits_MV, uniform_M, params, mask_token_id)
    if commits_all:
        transfer_M = torch.ones_like(candidates.token_M)
    else:
        transfer_M = _transfer(candidates, masked, params, counter_M, device)
    # Token ids are exact in float64, so one tensor carries all three.
    rows = [transfer_M.double(), candidates.token_M.double(), candidates.logprob_M.double()]
    is_committed_M, token_M, logprob_M = torch.stack(rows).cpu().numpy()
    if np.isnan(logprob_M).any():
        raise FloatingPointError("the model's logits are not numbers (NaN)")
    return Decisions(is_committed_M > 0, token_M.astype(np.int64), logprob_M)


def _transfer(
    candidates: Candidates,
    masked: MaskedPositions,
    params: DecodeParams,
    counter_M: list[Tensor] | None,
    device: torch.device,
) -> Bool[Tensor, "M"]:
    """Which masked positions are committed."""
    noise_mask_RS = to_device(masked.noise_mask_RS, device)

    def on_grid(values_M: Tensor) -> Tensor:
        return values_M.new_zeros(noise_mask_RS.shape).masked_scatter_(noise_mask_RS, values_M)

    order_RS = None
    if params.remasking == "random" and counter_M is not None:
        order_RS = on_grid(counter_uniform(*counter_M, ORDER_STREAM))
    entropy_M = candidates.entropy_M
    transfer_RS = transfer_mask(
        on_grid(candidates.confidence_M),
        noise_mask_RS,
        to_device(masked.num_planned_R, device),
        params,
        order_uniform_RS=order_RS,
        entropy_RS=None if entropy_M is None else on_grid(entropy_M),
    )
    return transfer_RS[noise_mask_RS]
