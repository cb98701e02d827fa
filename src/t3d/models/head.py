"""The language-model head of training: scores of tokens without a tensor of positions x vocabulary.

The vocabulary is taken tile by tile, for all positions at once. Nothing of a tile is kept: the backward
pass computes its logits again.

Shape letters: M loss positions, K targets at each, D hidden width, V vocabulary, N ids of one tile,
I tiles, R some of the positions.
"""

from dataclasses import dataclass
from typing import Any, no_type_check

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from transformers.modeling_outputs import ModelOutput

from t3d.models.divergence import OtherHead, Tiles, add_reverse_grad, minus_kl, minus_reverse_kl
from t3d.models.packed import PackableLinear
from t3d.models.token_pick import Chooser, TokenPick

_TILE_ELEMENTS = 2**26
_TILE_ELEMENTS_CPU = 2**20  # a few MB of float32: the passes over a tile stay in the cache
_TILE_MULTIPLE = 128


@no_type_check  # accelerate rebuilds a model's output from one dict, in the place of log_probs
@dataclass
class HeadScores(ModelOutput):
    """What the head says of the tokens at the loss positions, float32 (float64 if the hidden states are)."""

    log_probs: Float[Tensor, "K M"] | None = None
    """log p(target)."""
    entropy: Float[Tensor, "M"] | None = None
    """Of the whole distribution, at the temperature asked for, in nats; None unless asked for."""
    picked: Int[Tensor, "M"] | None = None
    """The token that the :class:`TokenPick` chose; None without one."""
    picked_log_probs: Float[Tensor, "M"] | None = None
    """log p(picked) under the whole distribution, the excluded token included; without gradient."""
    minus_kl: Float[Tensor, "M"] | None = None
    """sum_v q(v) log(p(v) / q(v)), q another head's distribution, or sum_v p(v) log(q(v) / p(v)) if that
    says so; None without one."""
    hidden: Float[Tensor, "M D"] | None = None
    """The hidden states themselves, without gradient, where they were asked for."""


class ScoringHead(PackableLinear):
    """The head of a language model, which scores targets when it is given some.

    Scoring is a call of the module, so that hooks that gather a sharded weight (FSDP2, ZeRO-3) run.
    """

    def forward(
        self,
        input: Tensor,
        target_KM: Int[Tensor, "K M"] | None = None,
        **options: Any,
    ) -> Any:
        """Logits of ``input``, or with targets the :func:`head_scores` of hidden states ``[M, D]``."""
        if target_KM is None:
            return super().forward(input)
        return head_scores(input, self.weight, target_KM, **options)


def head_scores(
    hidden_MD: Float[Tensor, "M D"],
    weight_VD: Float[Tensor, "V D"],
    target_KM: Int[Tensor, "K M"],
    *,
    entropy_temperature: float | None = None,
    pick: TokenPick | None = None,
    against: OtherHead | None = None,
    keeps_hidden: bool = False,
    tile_size: int | None = None,
) -> HeadScores:
    """Scores of the logits ``hidden @ weight.T``, differentiable through log_probs, entropy and minus_kl.

    The entropy is that of softmax(logits / ``entropy_temperature``); all else is at temperature 1. None: no
    entropy. ``against``: the head with which the divergence is, from it or to it.

    Products are in the autocast dtype where autocast is on, and in that of ``hidden`` elsewhere; sums
    over the vocabulary are in float32 (float64 if ``hidden`` is). A target outside the vocabulary
    scores NaN. ``tile_size``: ids of one tile; None fits it to the memory of the device.
    """
    device_type, dtype = hidden_MD.device.type, hidden_MD.dtype
    if torch.is_autocast_enabled(device_type) and dtype != torch.float64:  # autocast leaves float64 as it is
        dtype = torch.get_autocast_dtype(device_type)
    if tile_size is None:
        tile_size = fit_tile(len(hidden_MD), len(weight_VD), device_type)
    scores = _HeadScoresFunction.apply(
        hidden_MD, weight_VD, target_KM, entropy_temperature, pick, tile_size, dtype, against
    )
    return HeadScores(*scores, hidden=hidden_MD.detach() if keeps_hidden else None)


def fit_tile(num_positions: int, vocab_size: int, device_type: str) -> int:
    """Even tiles within the memory for one, of a width that suits the matrix units."""
    elements = _TILE_ELEMENTS_CPU if device_type == "cpu" else _TILE_ELEMENTS
    num_tiles = max(1, -(-num_positions * vocab_size // elements))
    num_multiples = -(-vocab_size // (num_tiles * _TILE_MULTIPLE))
    return min(vocab_size, num_multiples * _TILE_MULTIPLE)


class _HeadScoresFunction(torch.autograd.Function):
    """:func:`head_scores`; its backward pass runs over the tiles once more."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_MD: Tensor,
        weight_VD: Tensor,
        target_KM: Tensor,
        temperature: float | None,
        pick: TokenPick | None,
        tile_size: int,
        dtype: torch.dtype,
        against: OtherHead | None,
    ) -> tuple[Tensor | None, ...]:
        others: tuple[Tensor, ...] = ()
        minus_kl_M = None
        with torch.autocast(hidden_MD.device.type, enabled=False):
            tiles = Tiles(hidden_MD.to(dtype), weight_VD, tile_size)
            chooser = None if pick is None else Chooser(pick)
            log_prob_KM, lse_M, entropy_M, log_norm_M = _score(tiles, target_KM, temperature, chooser)
            picked: list[Tensor | None] = [None, None]
            if chooser is not None:
                picked_M, logit_M = chooser.choose(tiles.starts, tiles.logits)
                picked = [picked_M, logit_M - lse_M]
            if against is not None:
                other = Tiles(against.hidden_MD.to(dtype), against.weight_VD, tile_size)
                diverge = minus_reverse_kl if against.is_reverse else minus_kl
                minus_kl_M, other_lse_M = diverge(tiles, other, lse_M)
                others = (other.hidden_MD, other.weight_VD, other_lse_M, minus_kl_M)
        ctx.save_for_backward(tiles.hidden_MD, weight_VD, target_KM, lse_M, entropy_M, log_norm_M, *others)
        ctx.temperature, ctx.tile_size, ctx.hidden_dtype = temperature, tile_size, hidden_MD.dtype
        ctx.is_reverse = against is not None and against.is_reverse
        ctx.set_materialize_grads(False)
        if pick is not None:
            ctx.mark_non_differentiable(*picked)
        return log_prob_KM, entropy_M, *picked, minus_kl_M

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,
        grad_KM: Tensor | None,
        grad_entropy_M: Tensor | None,
        _picked: None,
        _picked_log_probs: None,
        grad_kl_M: Tensor | None,
    ) -> tuple[Tensor | None, ...]:
        hidden_MD, weight_VD, target_KM, lse_M, entropy_M, log_norm_M, *others = ctx.saved_tensors
        grad_KM = lse_M.new_zeros(target_KM.shape) if grad_KM is None else grad_KM
        tiles = Tiles(hidden_MD, weight_VD, ctx.tile_size)
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        grad_hidden_MD = torch.zeros_like(hidden_MD, dtype=tiles.sum_dtype) if needs_hidden else None
        grad_weight_VD = torch.empty_like(weight_VD) if needs_weight else None
        with torch.autocast(hidden_MD.device.type, enabled=False):
            for start in tiles.starts:
                log_p_MN = tiles.logits(start).sub_(lse_M[:, None])
                of_entropy_MN = None
                if grad_entropy_M is not None:
                    log_q_MN = (log_p_MN / ctx.temperature).sub_(log_norm_M[:, None])
                    of_entropy_MN = _entropy_grad(log_q_MN, entropy_M, grad_entropy_M / ctx.temperature)
                slope_M, forward_M = grad_KM.sum(0), None if ctx.is_reverse else grad_kl_M
                slope_M = slope_M if forward_M is None else slope_M + forward_M
                reverse_MN = log_p_MN.clone() if ctx.is_reverse and grad_kl_M is not None else None
                grad_MN = log_p_MN.exp_().mul_(-slope_M[:, None])
                if grad_kl_M is not None:
                    other_hidden_MD, other_weight_VD, other_lse_M, minus_kl_M = others
                    other = Tiles(other_hidden_MD, other_weight_VD, ctx.tile_size)
                    log_q_MN = other.logits(start).sub_(other_lse_M[:, None])
                    if reverse_MN is not None:
                        add_reverse_grad(grad_MN, reverse_MN, log_q_MN, minus_kl_M, grad_kl_M)
                    else:  # q - p, the gradient of sum q log p
                        grad_MN[:, : log_q_MN.shape[1]] += log_q_MN.exp_().mul_(grad_kl_M[:, None])
                if of_entropy_MN is not None:
                    grad_MN += of_entropy_MN
                _add_target_grad(grad_MN, grad_KM, target_KM - start)
                grad_MN = grad_MN.to(hidden_MD.dtype)
                if grad_weight_VD is not None:
                    grad_weight_VD[start : start + tiles.size] = grad_MN.T @ hidden_MD
                if grad_hidden_MD is not None:
                    grad_hidden_MD += grad_MN @ tiles.weight(start)
        grad_hidden_MD = None if grad_hidden_MD is None else grad_hidden_MD.to(ctx.hidden_dtype)
        return grad_hidden_MD, grad_weight_VD, *(None,) * 6


def _score(
    tiles: Tiles, target_KM: Tensor, temperature: float | None, chooser: Chooser | None
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """(log p(target) or NaN where no tile has it, log-sum-exp, entropy, log sum p^(1 / temperature)).

    The last two with a temperature only. Shows every tile to the ``chooser``.
    """
    target_logit_KM = tiles.hidden_MD.new_full(target_KM.shape, torch.nan, dtype=tiles.sum_dtype)
    lse_IM, tempered_lse_IM, entropy_IM = [], [], []
    for start in tiles.starts:
        logits_MN = tiles.logits(start)
        column_KM, is_here_KM = _columns(target_KM - start, logits_MN.shape[1])
        target_logit_KM = torch.where(is_here_KM, logits_MN.gather(1, column_KM.T).T, target_logit_KM)
        lse_IM.append(logits_MN.logsumexp(-1))
        if temperature is not None:
            is_one = temperature == 1
            tempered_MN = logits_MN if is_one else logits_MN / temperature
            tempered_lse_IM.append(lse_IM[-1] if is_one else tempered_MN.logsumexp(-1))
            log_p_MN = tempered_MN - tempered_lse_IM[-1][:, None]
            entropy_IM.append(-(log_p_MN.exp() * log_p_MN).sum(-1))
        if chooser is not None:
            chooser.add(start, logits_MN, lse_IM[-1])
    lse_M = torch.stack(lse_IM).logsumexp(0)
    if temperature is None:
        return target_logit_KM - lse_M, lse_M, None, None
    # Chain rule: the entropy of which tile, plus the tiles' own, without cancellation.
    tempered_lse_M = torch.stack(tempered_lse_IM).logsumexp(0)
    log_mass_IM = torch.stack(tempered_lse_IM) - tempered_lse_M
    entropy_M = (log_mass_IM.exp() * (torch.stack(entropy_IM) - log_mass_IM)).sum(0)
    return target_logit_KM - lse_M, lse_M, entropy_M, tempered_lse_M - lse_M / temperature


def _columns(offset_KM: Tensor, num_columns: int) -> tuple[Tensor, Tensor]:
    """(a valid column of the tile, whether it is the target's), of targets counted from the tile's start."""
    column_KM = offset_KM.clamp(0, num_columns - 1)
    return column_KM, column_KM == offset_KM


def _entropy_grad(log_q_MN: Tensor, entropy_M: Tensor, grad_M: Tensor) -> Tensor:
    """Gradient by the logits of q through its entropy H: -q (log q + H), on a tile; uses up ``log_q``."""
    q_MN = log_q_MN.exp()
    return log_q_MN.add_(entropy_M[:, None]).mul_(q_MN).mul_(-grad_M[:, None])


def _add_target_grad(grad_MN: Tensor, grad_KM: Tensor, offset_KM: Tensor) -> None:
    """Add each target's gradient to its logit in this tile; one target at a time is deterministic."""
    column_KM, is_here_KM = _columns(offset_KM, grad_MN.shape[1])
    for column_M, own_M in zip(column_KM, grad_KM * is_here_KM, strict=True):
        grad_MN.scatter_(1, column_M[:, None], grad_MN.gather(1, column_M[:, None]) + own_M[:, None])
