"""State source of a drafter: blocks open up to some token, and masks from there to the block's end.

That is what a drafter is asked in self-speculative decoding: earlier blocks are closed, and read whole; of
the open block the committed tokens are read causally, each sees those up to itself; the masks of the draft
see all of these and each other. The base, which the draft has to agree with, is asked at *check masks* in
a forward of its own: behind every token of the block, causally read, one mask that sees the tokens before
its position and itself.

Shape letters: R rows, K blocks, S tokens per block, W noisy tokens per block (S of a draft, 2 S of checks),
T tokens of a packed row.
"""

from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from t3d.training.block_grid import BlockGrid
from t3d.training.noising import NoiseSource, Stream
from t3d.training.packing import pack_copies


def draft_noise_mask(grid: BlockGrid, noise: NoiseSource, open_prob: float) -> Bool[Tensor, "R K S"]:
    """Mask each block's response tokens from some place to its end.

    With probability ``open_prob`` the place is drawn among the block's tokens that take loss, each equally
    often (the first of them: all is masked); else it is the first. A prompt's tail is never masked, and in a
    block without a token that takes loss nothing is.
    """
    within_S = torch.arange(grid.ids_RKS.shape[2], device=grid.ids_RKS.device)
    takes_loss = grid.takes_loss_RKS
    count_RK = takes_loss.sum(-1)
    first_RK = torch.where(count_RK > 0, takes_loss.int().argmax(-1), len(within_S))
    block_RK = torch.arange(takes_loss.shape[1], device=within_S.device).expand(len(takes_loss), -1)
    is_open_RK = noise.uniform(Stream.OPEN_BLOCK, block_RK) < open_prob
    shown_RK = (noise.uniform(Stream.OPEN_TOKENS, block_RK) * count_RK).long().clamp(max=count_RK - 1)
    start_RK = first_RK + torch.where(is_open_RK & (count_RK > 0), shown_RK, 0)
    return grid.valid_RKS & (within_S >= start_RK[..., None])


def draft_order(is_draft_RKS: Bool[Tensor, "R K S"]) -> dict[str, Int[Tensor, "R K S"]]:
    """``place`` and ``reads`` (:class:`~t3d.attention.masks.BlockOrder`) of states with these drafted masks.

    Committed tokens have a place each, and read up to it; the draft is one group, and reads all of them.
    """
    block_size = is_draft_RKS.shape[2]
    within_RKS = torch.arange(block_size, device=is_draft_RKS.device).expand(is_draft_RKS.shape)
    last_shown_RK1 = (~is_draft_RKS).sum(-1, keepdim=True) - 1
    return {
        "place": torch.where(is_draft_RKS, block_size, within_RKS),
        "reads": torch.where(is_draft_RKS, last_shown_RK1, within_RKS),
    }


def pack_checks(
    grid: BlockGrid,
    loss_mask_RKS: Bool[Tensor, "R K S"],
    mask_token_id: int,
    *,
    max_length: int | None = None,
    row_multiple: int = 1,
) -> dict[str, Any]:
    """The batch that the base is asked with: blocks of ``[tokens | check masks]`` behind the clean copy.

    Its loss positions are check masks, in the order of a batch with the same loss mask. A row holds up to
    twice ``max_length``: there is no backward pass, and a document is longer by the check masks.
    """
    block_size = grid.ids_RKS.shape[2]
    within_RKS = torch.arange(block_size, device=grid.ids_RKS.device).expand(grid.ids_RKS.shape)
    order = {
        "place": torch.cat([within_RKS, block_size + within_RKS], 2),  # a check mask is a group of its own
        "reads": torch.cat([within_RKS, within_RKS - 1], 2),
    }
    twice = {
        name: torch.cat([value, value], 2)
        for name, value in grid._asdict().items()
        if name.endswith("_RKS") and name != "is_open_RKS"
    }
    wide = grid._replace(**twice, is_open_RKS=torch.zeros_like(twice["is_real_RKS"]))
    masks = torch.full_like(grid.ids_RKS, mask_token_id)
    return pack_copies(
        wide,
        torch.cat([grid.ids_RKS, masks], 2),
        torch.cat([torch.zeros_like(loss_mask_RKS), loss_mask_RKS], 2),
        max_length=None if max_length is None else 2 * max_length,
        row_multiple=row_multiple,
        clean_block_size=block_size,
        further_EKS=order,
    )
