"""From logits to decided tokens, group by group of rows that share their sampling settings.

R rows of a group, S block size, M masked positions (row by row), V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from t3d.attention.slots import to_device
from t3d.counter_rng import counter_uniform
from t3d.decoding.params import DecodeParams
from t3d.decoding.sampling import ORDER_STREAM, TOKEN_STREAM, Candidates, candidate_tokens
from t3d.decoding.transfer import NEEDS_ORDER, transfer_mask

_OWN_TO_A_ROW = (
    "block_size",
    "steps_per_block",
    "context",
    "draft_groups",
    "max_draft_tokens",
    "max_new_tokens",
    "seed",
    "n",
    "stop",
)

sampling_key = attrgetter(*(field.name for field in fields(DecodeParams) if field.name not in _OWN_TO_A_ROW))
"""What of its DecodeParams :func:`decide` depends on: rows with equal keys are one group."""


class SamplingGroups:
    """The numbers of groups of rows. Where jobs keep coming, those that no row has are forgotten."""

    def __init__(self, max_kept: int) -> None:
        self._max_kept, self._number_of, self._next = max_kept, dict[object, int](), 0

    def number(self, params: DecodeParams, used: np.ndarray) -> int:
        """That of a row's group; ``used`` are those of the rows there are."""
        key = sampling_key(params)
        if key not in self._number_of:
            if len(self._number_of) > self._max_kept:
                kept = set(used.tolist())
                self._number_of = {other: group for other, group in self._number_of.items() if group in kept}
            self._number_of[key] = self._next
            self._next += 1
        return self._number_of[key]


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedPositions:
    """The masked positions of a group's active blocks before a denoising step (host side)."""

    params: DecodeParams
    """Those of any row of the group."""
    index_M: np.ndarray
    """Which of the forward's masked positions these are."""
    noise_mask_RS: np.ndarray
    num_planned_R: np.ndarray
    counter_M: tuple[np.ndarray, ...]
    """Seed, request key, position and denoising step of each masked position: they key its noise."""

    def uniforms(self, stream: int, device: torch.device) -> Float[Tensor, "M"]:
        """A random number for each masked position."""
        return counter_uniform(*(to_device(counter, device) for counter in self.counter_M), stream)


class Decisions(NamedTuple):
    """What a step made of each masked position of a forward (host side)."""

    is_committed_M: np.ndarray
    token_M: np.ndarray
    logprob_M: np.ndarray
    """Not finite where the logits are not numbers."""


def decide(
    logits_MV: Float[Tensor, "M V"], groups: Sequence[MaskedPositions], mask_token_id: int
) -> Decisions:
    """Draw a token for every masked position and choose which are committed; one read from the device."""
    decided = np.zeros((3, len(logits_MV)))
    if groups:
        index_M = np.concatenate([masked.index_M for masked in groups])
        parts = [_decide_group(logits_MV, masked, mask_token_id) for masked in groups]
        decided[:, index_M] = torch.cat(parts, dim=1).cpu().numpy()
    is_committed_M, token_M, logprob_M = decided
    return Decisions(is_committed_M > 0, token_M.astype(np.int64), logprob_M)


def _decide_group(logits_MV: Tensor, masked: MaskedPositions, mask_token_id: int) -> Float[Tensor, "3 M"]:
    """Whether each position is committed, its token (exact in float64) and its log-probability."""
    params, device = masked.params, logits_MV.device
    if len(masked.index_M) < len(logits_MV):
        logits_MV = logits_MV[to_device(masked.index_M, device)]
    uniform_M = masked.uniforms(TOKEN_STREAM, device) if params.temperature > 0 else None
    candidates = candidate_tokens(logits_MV, uniform_M, params, mask_token_id)
    if (masked.num_planned_R >= masked.noise_mask_RS.sum(1)).all():
        transfer_M = torch.ones_like(candidates.token_M)  # under any strategy
    else:
        transfer_M = _transfer(candidates, masked)
    return torch.stack([transfer_M.double(), candidates.token_M.double(), candidates.logprob_M.double()])


def _transfer(candidates: Candidates, masked: MaskedPositions) -> Bool[Tensor, "M"]:
    """Which masked positions are committed."""
    params, device = masked.params, candidates.token_M.device
    noise_mask_RS = to_device(masked.noise_mask_RS, device)

    def on_grid(values_M: Tensor) -> Tensor:
        return values_M.new_zeros(noise_mask_RS.shape).masked_scatter_(noise_mask_RS, values_M)

    order_RS = entropy_RS = None
    if params.remasking in NEEDS_ORDER:
        order_RS = on_grid(masked.uniforms(ORDER_STREAM, device))
    if candidates.entropy_M is not None:
        entropy_RS = on_grid(candidates.entropy_M)
    transfer_RS = transfer_mask(
        on_grid(candidates.confidence_M),
        noise_mask_RS,
        to_device(masked.num_planned_R, device),
        params,
        order_uniform_RS=order_RS,
        entropy_RS=entropy_RS,
    )
    return transfer_RS[noise_mask_RS]
