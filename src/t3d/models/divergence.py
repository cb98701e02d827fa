"""What a head says is compared with another head's distributions, tile by tile of the vocabulary.

Shape letters as in :mod:`t3d.models.head`.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

_ELEMENTS = 2**22
"""Of the logits that are whole at once."""


class OtherHead:
    """Hidden states [M, D] and head [V, D] of another model, frozen: distributions not written out.

    Their width is their own. A head with fewer rows than the one it is compared with never says the tokens
    beyond them. ``is_reverse``: the divergence is from the head that is compared to this one, which must have
    as many rows; else from this one to it. Not a dataclass, for the reason of
    :class:`~t3d.models.token_pick.TokenPick`.
    """

    def __init__(self, hidden_MD: Tensor, weight_VD: Tensor, *, is_reverse: bool = False) -> None:
        self.hidden_MD, self.weight_VD = hidden_MD.detach(), weight_VD.detach()
        self.is_reverse = is_reverse


@dataclass(frozen=True, slots=True)
class Tiles:
    """The logits of hidden states, one tile of the vocabulary at a time."""

    hidden_MD: Tensor
    """In the dtype of the products."""
    weight_VD: Tensor
    size: int

    @property
    def starts(self) -> range:
        """The first id of each tile."""
        return range(0, len(self.weight_VD), self.size)

    @property
    def sum_dtype(self) -> torch.dtype:
        """Of sums over the vocabulary."""
        return torch.float64 if self.hidden_MD.dtype == torch.float64 else torch.float32

    def weight(self, start: int) -> Tensor:
        """[N, D] in the dtype of the products: the whole matrix is never cast at once."""
        return self.weight_VD[start : start + self.size].to(self.hidden_MD.dtype)

    def logits(self, start: int, row_R: Tensor | None = None) -> Tensor:
        """[M, N], or [R, N] at some of the positions; a new tensor."""
        hidden_RD = self.hidden_MD if row_R is None else self.hidden_MD[row_R]
        return (hidden_RD @ self.weight(start).T).to(self.sum_dtype)


def minus_kl(tiles: Tiles, other: Tiles, lse_M: Tensor) -> tuple[Tensor, Tensor]:
    """(sum_v q(v) (log p(v) - log q(v)), the other head's log-sum-exp), tile by tile; q is the other's."""
    lse_IM, ratio_IM = [], []
    for start in other.starts:
        other_MN = other.logits(start)
        lse_IM.append(other_MN.logsumexp(-1))
        ratio_MN = tiles.logits(start)[:, : other_MN.shape[1]].sub_(other_MN)
        ratio_IM.append((other_MN.sub_(lse_IM[-1][:, None]).exp_() * ratio_MN).sum(-1))
    other_lse_M = torch.stack(lse_IM).logsumexp(0)
    mass_IM = (torch.stack(lse_IM) - other_lse_M).exp()
    return (mass_IM * torch.stack(ratio_IM)).sum(0) - lse_M + other_lse_M, other_lse_M


def minus_reverse_kl(tiles: Tiles, other: Tiles, lse_M: Tensor) -> tuple[Tensor, Tensor]:
    """(sum_v p(v) (log q(v) - log p(v)), the other head's log-sum-exp), tile by tile; q is the other's."""
    assert len(tiles.weight_VD) == len(other.weight_VD), "an infinite divergence"
    lse_IM, ratio_M = [], torch.zeros_like(lse_M)
    for start in other.starts:
        logits_MN, other_MN = tiles.logits(start), other.logits(start)
        lse_IM.append(other_MN.logsumexp(-1))
        ratio_MN = other_MN.sub_(logits_MN)
        ratio_M += (logits_MN.sub_(lse_M[:, None]).exp_() * ratio_MN).sum(-1)
    other_lse_M = torch.stack(lse_IM).logsumexp(0)
    return ratio_M + lse_M - other_lse_M, other_lse_M


def add_reverse_grad(
    grad_MN: Tensor, log_p_MN: Tensor, log_q_MN: Tensor, minus_kl_M: Tensor, slope_M: Tensor
) -> None:
    """Add ``slope`` p (log q - log p + KL), the gradient of minus the reverse divergence by p's logits, on a
    tile; uses up both distributions."""
    ratio_MN = log_q_MN.sub_(log_p_MN).sub_(minus_kl_M[:, None])
    grad_MN += log_p_MN.exp_().mul_(ratio_MN).mul_(slope_M[:, None])


@torch.no_grad()
def likeliest(other: OtherHead, count: int) -> tuple[Int[Tensor, "k M"], Float[Tensor, "k M"]]:
    """(the ``count`` likeliest tokens at each position, their log-probabilities), the likeliest first."""
    weight_VD = other.weight_VD.to(other.hidden_MD.dtype)
    num_rows = max(1, _ELEMENTS // len(weight_VD))
    found = []
    for hidden_RD in other.hidden_MD.split(num_rows):
        tiles = Tiles(hidden_RD, weight_VD, len(weight_VD))
        found.append(tiles.logits(0).log_softmax(-1).topk(count))
    return torch.cat([one.indices for one in found]).T, torch.cat([one.values for one in found]).T
