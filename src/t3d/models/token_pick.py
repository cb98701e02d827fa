"""Choosing one token at each position while the head passes over the vocabulary, tile by tile.

Shape letters: M positions, N ids of one tile, I tiles, R some of the positions.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

TileLogits = Callable[[int, Tensor], Tensor]
"""Logits [R, N] of the tile that begins at an id, at some of the positions; a new tensor."""


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


class Chooser:
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

    def choose(self, starts: Sequence[int], logits: TileLogits) -> tuple[Tensor, Tensor]:
        """(token id, its logit), of the tiles that begin at ``starts``."""
        if self.pick.uniform_M is not None:
            return self._sample(starts, logits, self.pick.uniform_M)
        logit_IM, id_IM = (torch.stack(parts) for parts in zip(*self.best_IM, strict=True))
        logit_M, tile_M = logit_IM.max(0)  # the first of equals, among tiles as in each
        return id_IM.gather(0, tile_M[None])[0], logit_M

    def _sample(self, starts: Sequence[int], logits: TileLogits, uniform_M: Tensor) -> tuple[Tensor, Tensor]:
        """The tile by the mass of the tiles, then the place in it, its logits computed again."""
        mass_MI = torch.stack(self.lse_IM, 1).softmax(-1)
        tile_M, within_M = _invert_cumulative(mass_MI, uniform_M.to(mass_MI.dtype))
        id_M, logit_M = torch.empty_like(tile_M), torch.empty_like(within_M)
        for tile in tile_M.unique().tolist():
            start, row_R = starts[tile], (tile_M == tile).nonzero()[:, 0]
            logits_RN = logits(start, row_R)
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
