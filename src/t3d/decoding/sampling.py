"""Logits at masked positions to candidate tokens, their confidence and what is known about them.

M masked positions, V vocabulary. Reductions run in float32, or in float64 if the logits are.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from t3d.decoding.params import DecodeParams
from t3d.decoding.transfer import NEEDS_ENTROPY

TOKEN_STREAM, ORDER_STREAM = 101, 102
"""Names of the random streams of decoding: the drawn token, and the order of ``random``."""


class Candidates(NamedTuple):
    """One drawn token for each masked position."""

    token_M: Int[Tensor, "M"]
    confidence_M: Float[Tensor, "M"]
    """Its probability: under the model itself, or as sampled (``DecodeParams.confidence``)."""
    logprob_M: Float[Tensor, "M"]
    """Its log-probability under the model itself, at temperature 1, the mask token excluded."""
    entropy_M: Float[Tensor, "M"] | None
    """Entropy of the model's own distribution in nats; only where the strategy asks for it."""


def _keep_top_k(logits_MV: Tensor, top_k: int) -> Tensor:
    """Minus infinity outside the k largest logits (the lower token id wins a tie)."""
    place = logits_MV.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
    return logits_MV.masked_fill(place >= min(top_k, place.shape[-1]), -torch.inf)


def _keep_top_p(logits_MV: Tensor, top_p: float) -> Tensor:
    """Minus infinity outside the smallest set of likeliest tokens whose probability reaches top_p: one at
    least, also for a top_p that is 0 in this dtype."""
    sorted_logits, order = logits_MV.sort(dim=-1, descending=True, stable=True)
    probability = sorted_logits.softmax(-1)
    before = probability.cumsum(-1) - probability
    dropped = torch.zeros_like(before, dtype=torch.bool).scatter(-1, order, (before >= top_p) & (before > 0))
    return logits_MV.masked_fill(dropped, -torch.inf)


def sampled_distribution(logits_MV: Float[Tensor, "M V"], params: DecodeParams) -> Float[Tensor, "M V"]:
    """What is drawn from, at a temperature above 0: probabilities, tempered and filtered."""
    tempered_MV = logits_MV / params.temperature
    if params.top_k:
        tempered_MV = _keep_top_k(tempered_MV, params.top_k)
    if params.top_p < 1:
        tempered_MV = _keep_top_p(tempered_MV, params.top_p)
    return tempered_MV.softmax(-1)


def _draw(
    logits_MV: Tensor, uniform_M: Float[Tensor, "M"], params: DecodeParams
) -> tuple[Int[Tensor, "M"], Float[Tensor, "M"]]:
    """Tokens drawn through the inverse CDF of the sampled distribution, and their probability.

    That is NaN where there is nothing to draw from (logits that are not numbers).
    """
    sampled_prob_MV = sampled_distribution(logits_MV, params)
    cumulative_MV = sampled_prob_MV.cumsum(-1)
    if cumulative_MV.device.type != "cpu":
        # A parallel sum may rise, or fall, by rounding where the probability is zero: nothing to draw there.
        cumulative_MV = cumulative_MV.masked_fill(sampled_prob_MV == 0, 0).cummax(-1).values
    target_M1 = uniform_M.to(cumulative_MV.dtype)[:, None] * cumulative_MV[:, -1:]
    found_M = torch.searchsorted(cumulative_MV, target_M1)[:, 0]
    token_M = found_M.clamp(max=cumulative_MV.shape[1] - 1)
    prob_M = sampled_prob_MV.gather(-1, token_M[:, None])[:, 0]
    return token_M, prob_M.masked_fill(found_M > token_M, torch.nan)


def candidate_tokens(
    logits_MV: Float[Tensor, "M V"],
    uniform_M: Float[Tensor, "M"] | None,
    params: DecodeParams,
    mask_token_id: int,
) -> Candidates:
    """Draw one token for each masked position and measure its confidence.

    The draw goes through the inverse CDF with one uniform per position; the mask token is never
    drawn. Temperature 0 takes the likeliest token (the lowest id among equals) and needs no uniform.
    Where the logits are not numbers, the log-probability is not a finite number and the token is any.
    """
    logits_MV = logits_MV if logits_MV.dtype == torch.float64 else logits_MV.float()
    logits_MV = logits_MV.clone()  # the caller's stay as they are, in float32 too
    if params.predicts == "self":  # an autoregressive model has none
        logits_MV[:, mask_token_id] = -torch.inf
    log_normaliser_M1 = logits_MV.logsumexp(-1, keepdim=True)
    sampled_prob_M = None
    if params.temperature == 0:
        token_M = logits_MV.argmax(-1)
    else:
        assert uniform_M is not None, "a draw needs its uniforms"
        token_M, sampled_prob_M = _draw(logits_MV, uniform_M, params)
    logprob_M = (logits_MV.gather(-1, token_M[:, None]) - log_normaliser_M1)[:, 0]
    if sampled_prob_M is not None:
        logprob_M = logprob_M.masked_fill(sampled_prob_M.isnan(), torch.nan)
    by_model = params.confidence == "model" or sampled_prob_M is None
    entropy_M = None
    if params.remasking in NEEDS_ENTROPY:
        entropy_M = torch.special.entr((logits_MV - log_normaliser_M1).exp()).sum(-1)
    return Candidates(token_M, logprob_M.exp() if by_model else sampled_prob_M, logprob_M, entropy_M)
