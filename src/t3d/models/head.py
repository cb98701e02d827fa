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
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers.modeling_outputs import ModelOutput

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
    """Of the whole distribution, in nats; None unless asked for."""
    picked: Int[Tensor, "M"] | None = None
    """The token that the :class:`TokenPick` chose; None without one."""
    picked_log_probs: Float[Tensor, "M"] | None = None
    """log p(picked) under the whole distribution, the excluded token included; without gradient."""


class TokenPick:
    """How to choose one token at each position: the likeliest, or by uniforms in (0, 1) a sample.

    The excluded token is never chosen and stays part of the distribution whose log-probabilities are
    reported. Samples are at temperature 1, by the inverse of the cumulative distribution over token ids.

    Not a dataclass: FSDP2 looks into those, and would round the uniforms to its bfloat16.
    """

    def __init__(
        self, *, excluded_token_id: int | None = None, uniform_M: Float[Tensor, "M"] | None = None
    ) -> None:
        self.excluded_token_id = excluded_token_id
        self.uniform_M = uniform_M


class ScoringHead(nn.Linear):
    """The head of a language model, which scores targets when it is given some.

    Scoring is a call of the module, so that hooks that gather a sharded weight (FSDP2, ZeRO-3) run.
    """

    def forward(
        self,
        input: Tensor,
        target_KM: Int[Tensor, "K M"] | None = None,
        *,
        with_entropy: bool = False,
        pick: TokenPick | None = None,
    ) -> Any:
        """Logits of ``input``, or with targets the :class:`HeadScores` of hidden states ``[M, D]``."""
        if target_KM is None:
            return super().forward(input)
        return head_scores(input, self.weight, target_KM, with_entropy=with_entropy, pick=pick)


def head_scores(
    hidden_MD: Float[Tensor, "M D"],
    weight_VD: Float[Tensor, "V D"],
    target_KM: Int[Tensor, "K M"],
    *,
    with_entropy: bool = False,
    pick: TokenPick | None = None,
    tile_size: int | None = None,
) -> HeadScores:
    """Scores of the logits ``hidden @ weight.T``, differentiable through log_probs and entropy.

    Products are in the autocast dtype where autocast is on, and in that of ``hidden`` elsewhere; sums
    over the vocabulary are in float32 (float64 if ``hidden`` is). A target outside the vocabulary
    scores NaN. ``tile_size``: ids of one tile; None fits it to the memory of the device.
    """
    device_type, dtype = hidden_MD.device.type, hidden_MD.dtype
    if torch.is_autocast_enabled(device_type) and dtype != torch.float64:  # autocast leaves float64 as it is
        dtype = torch.get_autocast_dtype(device_type)
    if tile_size is None:
        tile_size = _fit_tile(len(hidden_MD), len(weight_VD), device_type)
    scores = _HeadScoresFunction.apply(hidden_MD, weight_VD, target_KM, with_entropy, pick, tile_size, dtype)
    return HeadScores(*scores)


def _fit_tile(num_positions: int, vocab_size: int, device_type: str) -> int:
    """Even tiles within the memory for one, of a width that suits the matrix units."""
    elements = _TILE_ELEMENTS_CPU if device_type == "cpu" else _TILE_ELEMENTS
    num_tiles = max(1, -(-num_positions * vocab_size // elements))
    num_multiples = -(-vocab_size // (num_tiles * _TILE_MULTIPLE))
    return min(vocab_size, num_multiples * _TILE_MULTIPLE)


@dataclass(frozen=True, slots=True)
class _Tiles:
    """The logits of hidden states, one tile of the vocabulary at a time."""

    hidden_MD: Tensor
    """In the dtype of the products."""
    weight_VD: Tensor
    size: int

    @property
    def starts(self) -> range:
        return range(0, len(self.weight_VD), self.size)

    @property
    def sum_dtype(self) -> torch.dtype:
        return torch.float64 if self.hidden_MD.dtype == torch.float64 else torch.float32

    def weight(self, start: int) -> Tensor:
        """[N, D] in the dtype of the products: the whole matrix is never cast at once."""
        return self.weight_VD[start : start + self.size].to(self.hidden_MD.dtype)

    def logits(self, start: int, row_R: Tensor | None = None) -> Tensor:
        """[M, N], or [R, N] at some of the positions; a new tensor."""
        hidden_RD = self.hidden_MD if row_R is None else self.hidden_MD[row_R]
        return (hidden_RD @ self.weight(start).T).to(self.sum_dtype)


class _HeadScoresFunction(torch.autograd.Function):
    """:func:`head_scores`; its backward pass runs over the tiles once more."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_MD: Tensor,
        weight_VD: Tensor,
        target_KM: Tensor,
        with_entropy: bool,
        pick: TokenPick | None,
        tile_size: int,
        dtype: torch.dtype,
    ) -> tuple[Tensor | None, ...]:
        with torch.autocast(hidden_MD.device.type, enabled=False):
            tiles = _Tiles(hidden_MD.to(dtype), weight_VD, tile_size)
            chooser = None if pick is None else _Chooser(pick)
            log_prob_KM, entropy_M, lse_M, *picked = _score(tiles, target_KM, with_entropy, chooser)
        ctx.save_for_backward(tiles.hidden_MD, weight_VD, target_KM, lse_M, entropy_M)
        ctx.tile_size, ctx.hidden_dtype = tile_size, hidden_MD.dtype
        ctx.set_materialize_grads(False)
        if pick is not None:
            ctx.mark_non_differentiable(*picked)
        return log_prob_KM, entropy_M, *picked

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_KM: Tensor | None, grad_entropy_M: Tensor | None, *_: None
    ) -> tuple[Tensor | None, ...]:
        hidden_MD, weight_VD, target_KM, lse_M, entropy_M = ctx.saved_tensors
        grad_KM = lse_M.new_zeros(target_KM.shape) if grad_KM is None else grad_KM
        tiles = _Tiles(hidden_MD, weight_VD, ctx.tile_size)
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        grad_hidden_MD = torch.zeros_like(hidden_MD, dtype=tiles.sum_dtype) if needs_hidden else None
        grad_weight_VD = torch.empty_like(weight_VD) if needs_weight else None
        with torch.autocast(hidden_MD.device.type, enabled=False):
            for start in tiles.starts:
                log_p_MN = tiles.logits(start).sub_(lse_M[:, None])
                grad_MN = _distribution_grad(log_p_MN, grad_KM.sum(0), grad_entropy_M, entropy_M)
                _add_target_grad(grad_MN, grad_KM, target_KM - start)
                grad_MN = grad_MN.to(hidden_MD.dtype)
                if grad_weight_VD is not None:
                    grad_weight_VD[start : start + tiles.size] = grad_MN.T @ hidden_MD
                if grad_hidden_MD is not None:
                    grad_hidden_MD += grad_MN @ tiles.weight(start)
        grad_hidden_MD = None if grad_hidden_MD is None else grad_hidden_MD.to(ctx.hidden_dtype)
        return grad_hidden_MD, grad_weight_VD, None, None, None, None, None


def _score(
    tiles: _Tiles, target_KM: Tensor, with_entropy: bool, chooser: "_Chooser | None"
) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None, Tensor | None]:
    """(log p(target) or NaN where no tile has it, entropy, log-sum-exp, picked, log p(picked))."""
    target_logit_KM = tiles.hidden_MD.new_full(target_KM.shape, torch.nan, dtype=tiles.sum_dtype)
    lse_IM, entropy_IM = [], []
    for start in tiles.starts:
        logits_MN = tiles.logits(start)
        column_KM, is_here_KM = _columns(target_KM - start, logits_MN.shape[1])
        target_logit_KM = torch.where(is_here_KM, logits_MN.gather(1, column_KM.T).T, target_logit_KM)
        lse_IM.append(logits_MN.logsumexp(-1))
        if with_entropy:
            log_p_MN = logits_MN - lse_IM[-1][:, None]
            entropy_IM.append(-(log_p_MN.exp() * log_p_MN).sum(-1))
        if chooser is not None:
            chooser.add(start, logits_MN, lse_IM[-1])
    lse_by_tile_IM = torch.stack(lse_IM)
    lse_M = lse_by_tile_IM.logsumexp(0)
    entropy_M = None
    if with_entropy:  # chain rule: the entropy of which tile, plus the tiles' own, without cancellation
        log_mass_IM = lse_by_tile_IM - lse_M
        entropy_M = (log_mass_IM.exp() * (torch.stack(entropy_IM) - log_mass_IM)).sum(0)
    if chooser is None:
        return target_logit_KM - lse_M, entropy_M, lse_M, None, None
    picked_M, picked_logit_M = chooser.choose(tiles)
    return target_logit_KM - lse_M, entropy_M, lse_M, picked_M, picked_logit_M - lse_M


def _columns(offset_KM: Tensor, num_columns: int) -> tuple[Tensor, Tensor]:
    """(a valid column of the tile, whether it is the target's), of targets counted from the tile's start."""
    column_KM = offset_KM.clamp(0, num_columns - 1)
    return column_KM, column_KM == offset_KM


def _distribution_grad(
    log_p_MN: Tensor, grad_M: Tensor, grad_entropy_M: Tensor | None, entropy_M: Tensor | None
) -> Tensor:
    """Gradient of a tile's logits, the targets' own part left out; uses up ``log_p_MN``.

    With g the sum of the targets' gradients and h that of the entropy H: -p (g + h (log p + H)).
    """
    if grad_entropy_M is None or entropy_M is None:
        return log_p_MN.exp_().mul_(-grad_M[:, None])
    p_MN = log_p_MN.exp()
    slope_MN = log_p_MN.add_(entropy_M[:, None]).mul_(-grad_entropy_M[:, None]).sub_(grad_M[:, None])
    return p_MN.mul_(slope_MN)


def _add_target_grad(grad_MN: Tensor, grad_KM: Tensor, offset_KM: Tensor) -> None:
    """Add each target's gradient to its logit in this tile; one target at a time is deterministic."""
    column_KM, is_here_KM = _columns(offset_KM, grad_MN.shape[1])
    for column_M, own_M in zip(column_KM, grad_KM * is_here_KM, strict=True):
        grad_MN.scatter_(1, column_M[:, None], grad_MN.gather(1, column_M[:, None]) + own_M[:, None])


class _Chooser:
    """Carries out a :class:`TokenPick`: looks at every tile in turn, then chooses."""

    def __init__(self, pick: TokenPick) -> None:
        self.pick = pick
        self.lse_IM: list[Tensor] = []
        self.best_IM: list[tuple[Tensor, Tensor]] = []

    def add(self, start: int, logits_MN: Tensor, lse_M: Tensor) -> None:
        """Look at the next tile; may overwrite its logits."""
        self.lse_IM.append(logits_MN.logsumexp(-1) if self._exclude(start, logits_MN) else lse_M)
        if self.pick.uniform_M is None:
            logit_M, column_M = logits_MN.max(-1)
            self.best_IM.append((logit_M, start + column_M))

    def choose(self, tiles: _Tiles) -> tuple[Tensor, Tensor]:
        """(token id, its logit)."""
        if self.pick.uniform_M is not None:
            return self._sample(tiles, self.pick.uniform_M)
        logit_IM, id_IM = (torch.stack(parts) for parts in zip(*self.best_IM, strict=True))
        logit_M, tile_M = logit_IM.max(0)  # the first of equals, among tiles as in each
        return id_IM.gather(0, tile_M[None])[0], logit_M

    def _sample(self, tiles: _Tiles, uniform_M: Tensor) -> tuple[Tensor, Tensor]:
        """The tile by the mass of the tiles, then the place in it, its logits computed again."""
        mass_MI = torch.stack(self.lse_IM, 1).softmax(-1)
        tile_M, within_M = _invert_cumulative(mass_MI, uniform_M.to(mass_MI.dtype))
        id_M, logit_M = torch.empty_like(tile_M), torch.empty_like(within_M)
        for tile in tile_M.unique().tolist():
            start, row_R = tiles.starts[tile], (tile_M == tile).nonzero()[:, 0]
            logits_RN = tiles.logits(start, row_R)
            self._exclude(start, logits_RN)
            column_R, _ = _invert_cumulative(logits_RN.softmax(-1), within_M[row_R])
            id_M[row_R] = start + column_R
            logit_M[row_R] = logits_RN.gather(1, column_R[:, None])[:, 0]
        return id_M, logit_M

    def _exclude(self, start: int, logits_RN: Tensor) -> bool:
        """Set the excluded token's logit to -inf in place if this tile has it, and say so."""
        token_id = self.pick.excluded_token_id
        if token_id is None or not start <= token_id < start + logits_RN.shape[1]:
            return False
        logits_RN[:, token_id - start] = -torch.inf
        return True


def _invert_cumulative(mass_RN: Tensor, uniform_R: Tensor) -> tuple[Tensor, Tensor]:
    """(the entry in which this share of the mass lies, how far into it in [0, 1)).

    Never an entry without mass: the cumulative sum must exceed the level, which stays below the total.
    """
    below_one = 1 - torch.finfo(mass_RN.dtype).eps
    cumulative_RN = mass_RN.cumsum(-1)
    level_R = uniform_R.clamp(max=below_one) * cumulative_RN[:, -1]
    entry_R1 = torch.searchsorted(cumulative_RN, level_R[:, None], right=True)
    entry_R1 = entry_R1.clamp(max=mass_RN.shape[1] - 1)  # only NaN gets beyond
    mass_R = mass_RN.gather(1, entry_R1)[:, 0]
    passed_R = cumulative_RN.gather(1, entry_R1)[:, 0] - mass_R
    return entry_R1[:, 0], ((level_R - passed_R) / mass_R).clamp(0, below_one)
