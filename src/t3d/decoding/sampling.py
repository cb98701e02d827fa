"""Logits at masked positions to candidate tokens and their confidence.

M masked positions, V vocabulary. Reductions run in float32, or in float64 if the logits are.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from t3d.decoding.params import DecodeParams

TOKEN_STREAM, ORDER_STREAM = 101, 102
"""Names of the random streams of decoding: the drawn token, and the order of ``random``."""


def _keep_top_k(logits_MV: Tensor, top_k: int) -> Tensor:
    """Minus infinity outside the k largest logits (the lower token id wins a tie)."""
    place = logits_MV.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
    return logits_MV.masked_fill(place >= top_k, -torch.inf)


def _keep_top_p(logits_MV: Tensor, top_p: float) -> Tensor:
    """Minus infinity outside the smallest set of likeliest tokens whose probability reaches top_p."""
    sorted_logits, order = logits_MV.sort(dim=-1, descending=True, stable=True)
    probability = sorted_logits.softmax(-1)
    before = probability.cumsum(-1) - probability
    dropped = torch.zeros_like(before, dtype=torch.bool).scatter(-1, order, before >= top_p)
    return logits_MV.masked_fill(dropped, -torch.inf)


def candidate_tokens(
    logits_MV: Float[Tensor, "M V"],
    uniform_M: Float[Tensor, "M"],
    params: DecodeParams,
    mask_token_id: int,
) -> tuple[Int[Tensor, "M"], Float[Tensor, "M"]]:
    """Draw one token for each masked position and measure its confidence.

    The draw goes through the inverse CDF with one uniform per position; the mask token is never
    drawn. Temperature 0 takes the likeliest token (the lowest id among equals).
    """
    logits_MV = logits_MV if logits_MV.dtype == torch.float64 else logits_MV.float()
    column = torch.arange(logits_MV.shape[-1], device=logits_MV.device)
    logits_MV = logits_MV.masked_fill(column == mask_token_id, -torch.inf)
    model_prob_MV = logits_MV.softmax(-1)
    if params.temperature == 0:
        token_M = logits_MV.argmax(-1)
        return token_M, model_prob_MV.gather(-1, token_M[:, None])[:, 0]
    tempered_MV = logits_MV / params.temperature
    if params.top_k:
        tempered_MV = _keep_top_k(tempered_MV, params.top_k)
    if params.top_p < 1:
        tempered_MV = _keep_top_p(tempered_MV, params.top_p)
    sampled_prob_MV = tempered_MV.softmax(-1)
    cumulative_MV = sampled_prob_MV.cumsum(-1)
    target_M1 = uniform_M.to(cumulative_MV.dtype)[:, None] * cumulative_MV[:, -1:]
    token_M = torch.searchsorted(cumulative_MV, target_M1)[:, 0]
    chosen_prob_MV = model_prob_MV if params.confidence == "model" else sampled_prob_MV
    return token_M, chosen_prob_MV.gather(-1, token_M[:, None])[:, 0]
