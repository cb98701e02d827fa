"""State source of a drafter: blocks open up to some token, and masks from there to the block's end.

That is what a drafter is asked in self-speculative decoding: earlier blocks are closed, and read whole; of
the open block the committed tokens are read causally, each sees those up to itself; the masks of the draft
see all of these and each other. The base, which the draft has to agree with, is asked at *check masks* in
a forward of its own: behind every token of the block, causally read, one mask that sees the tokens before
its position and itself. That is also how ``left_to_right`` decoding asks a model, and what
``left_to_right_weight`` trains it for.

Of an autoregressive base, whose logits are about the token behind each, a draft may begin behind every
token: a *group* of masks there sees all tokens before it, and itself. It has no blocks, so a response is cut
into groups from another token on in every epoch; the base is asked at the tokens themselves.

Shape letters: R rows, K blocks, S tokens per block, W noisy tokens per block (S of a draft, 2 S of checks),
T tokens of a packed row.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from t3d.training.block_grid import BlockGrid, TrainingExample, about_next_tokens, lay_on_grid
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


def lay_in_groups(
    examples: Sequence[TrainingExample], group_size: int, pad_token_id: int, seed: int
) -> BlockGrid:
    """Responses cut into groups of masks of a base that predicts the next token (:func:`about_next_tokens`).

    The first begins at one of the last ``group_size`` - 1 prompt tokens or at the response, each as often (in
    a shorter prompt not before its first token); its masks begin at the response. The last is as wide as the
    others: the end of a response is not known when it is drafted.
    """
    examples = [replace(example, is_cut=True) for example in examples]
    key_R = torch.tensor([example.sample_key for example in examples])
    noise = NoiseSource(
        seed=seed, epoch_R=torch.tensor([example.epoch for example in examples]), sample_key_R=key_R
    )
    num_before_R = (noise.uniform(Stream.GROUP_SHIFT, torch.zeros_like(key_R)) * group_size).long()
    length_R = torch.tensor([len(example.prompt_ids) for example in examples])
    num_before_R = torch.minimum(num_before_R, length_R)
    return about_next_tokens(lay_on_grid(examples, group_size, pad_token_id, num_before_R=num_before_R))


def pack_reading(grid: BlockGrid, loss_mask_RKS: Bool[Tensor, "R K S"], **rows: Any) -> dict[str, Any]:
    """The batch that a base that predicts the next token is asked with: the groups unmasked, read causally.

    Its loss positions are the tokens themselves, in the order of a batch with the same loss mask; ``rows`` as
    of :func:`~t3d.training.packing.pack_copies`.
    """
    within_RKS = torch.arange(grid.ids_RKS.shape[2]).expand(grid.ids_RKS.shape)
    order = {"place": within_RKS, "reads": within_RKS}
    return pack_copies(grid, grid.ids_RKS, loss_mask_RKS, **rows, further_EKS=order)


def pack_checks(
    grid: BlockGrid,
    loss_mask_RKS: Bool[Tensor, "R K S"],
    mask_token_id: int,
    *,
    max_length: int | None = None,
    row_multiple: int = 1,
) -> dict[str, Any]:
    """The batch that a model is asked with: blocks of ``[tokens | check masks]`` behind the clean copy.

    Its loss positions are check masks, in the order of a batch with the same loss mask. A block with its
    clean tokens is longer by the check masks than that of such a batch.
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
        max_length=max_length,
        row_multiple=row_multiple,
        clean_block_size=block_size,
        further_EKS=order,
    )
