"""From token lists to responses cut into blocks, ready for noise.

Shape letters: R examples, K blocks of the noisy copy, S tokens per block, C clean length.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from t3d.trajectory import GridOrigin


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingExample:
    """One response to learn from.

    ``sample_key`` (int64) and ``epoch`` key its noise; ``step_map`` holds the denoising step of
    each response token (all ones where there is no trajectory) and ``token_weight`` its weight in
    weighted losses; the first ``num_loss_tokens`` response tokens may take loss. ``is_cut``: what followed
    in the last block was not recorded. Of the response the last ``num_filler_tokens`` are behind its end.
    """

    sample_key: int
    epoch: int
    prompt_ids: Sequence[int]
    response_ids: Sequence[int]
    step_map: Sequence[int]
    token_weight: Sequence[float]
    num_loss_tokens: int
    is_cut: bool = False
    num_filler_tokens: int = 0

    def __post_init__(self) -> None:
        counts = (len(self.response_ids), len(self.step_map), len(self.token_weight))
        if len(set(counts)) > 1 or counts[0] == 0:
            raise ValueError(
                f"sample {self.sample_key}: (response ids, steps, weights) count {counts}; "
                "the three counts must be equal and positive"
            )


class BlockGrid(NamedTuple):
    """Prompts and responses of a batch, the responses cut into blocks for the noisy copy.

    On the absolute grid the noisy copy starts at floor(P / S) * S: the prompt's tail sits in its
    first block, visible, never valid, never a target.
    """

    clean_ids_RC: Int[Tensor, "R C"]
    """Prompt and response without the last block, which no noisy token may see; right-padded."""
    clean_block_RC: Int[Tensor, "R C"]
    num_clean_R: Int[Tensor, "R"]
    ids_RKS: Int[Tensor, "R K S"]
    label_RKS: Int[Tensor, "R K S"]
    """The tokens that the logits are about; their own, but of :func:`about_next_tokens`."""
    position_RKS: Int[Tensor, "R K S"]
    """Absolute positions."""
    block_RKS: Int[Tensor, "R K S"]
    step_RKS: Int[Tensor, "R K S"]
    weight_RKS: Float[Tensor, "R K S"]
    is_real_RKS: Bool[Tensor, "R K S"]
    """Prompt tail, response, and the rest of a last block that was cut."""
    is_open_RKS: Bool[Tensor, "R K S"]
    """That rest: tokens nobody knows, which are masks in every state, as before their commit in decoding."""
    valid_RKS: Bool[Tensor, "R K S"]
    """Response tokens, which the noise may mask."""
    takes_loss_RKS: Bool[Tensor, "R K S"]
    """Where a label may take loss."""
    sample_key_R: Int[Tensor, "R"]
    epoch_R: Int[Tensor, "R"]


def lay_on_grid(
    examples: Sequence[TrainingExample],
    block_size: int,
    pad_token_id: int,
    origin: GridOrigin = "prompt",
    num_before_R: Int[Tensor, "R"] | None = None,
) -> BlockGrid:
    """Cut responses into blocks of ``block_size``.

    ``origin="prompt"``: the absolute grid of decoding. ``origin="response"`` (released code): blocks
    count from the first response token, and those of the prompt backwards from its end. ``num_before_R``,
    less than a block: instead, the prompt tokens in a response's first block.
    """
    prompt_length_R = torch.tensor([len(example.prompt_ids) for example in examples])
    end_R = prompt_length_R + torch.tensor([len(example.response_ids) for example in examples])
    if num_before_R is None:
        num_before_R = prompt_length_R % block_size if origin == "prompt" else torch.zeros_like(end_R)
    shift_R = (num_before_R - prompt_length_R) % block_size
    start_R = (prompt_length_R + shift_R) // block_size * block_size - shift_R
    num_clean_R = start_R + (end_R - start_R - 1) // block_size * block_size
    rows, num_blocks = len(examples), int((-(-(end_R - start_R) // block_size)).max())
    position_RL = start_R[:, None] + torch.arange(num_blocks * block_size)
    clean_position_RC = torch.arange(int(num_clean_R.max())).expand(rows, -1)
    ids_RL = torch.full_like(position_RL, pad_token_id)
    step_RL = torch.ones_like(position_RL)
    weight_RL = torch.zeros(position_RL.shape)
    clean_RC = torch.full(clean_position_RC.shape, pad_token_id, dtype=torch.int64)
    for row, example in enumerate(examples):
        tokens = torch.tensor([*example.prompt_ids, *example.response_ids])
        start, first, end = int(start_R[row]), int(prompt_length_R[row]), int(end_R[row])
        ids_RL[row, : end - start] = tokens[start:]
        step_RL[row, first - start : end - start] = torch.tensor(example.step_map)
        weight_RL[row, first - start : end - start] = torch.tensor(example.token_weight)
        clean_RC[row, : int(num_clean_R[row])] = tokens[: int(num_clean_R[row])]
    num_loss_R = torch.tensor([example.num_loss_tokens for example in examples])
    within_RL = position_RL < end_R[:, None]
    is_cut_R = torch.tensor([example.is_cut for example in examples])
    filled_R = start_R + -(-(end_R - start_R) // block_size) * block_size
    is_open_RL = is_cut_R[:, None] & ~within_RL & (position_RL < filled_R[:, None])
    valid_RL = within_RL & (position_RL >= prompt_length_R[:, None])
    takes_loss_RL = valid_RL & (position_RL < (prompt_length_R + num_loss_R)[:, None])
    blocks = (rows, num_blocks, block_size)
    return BlockGrid(
        clean_ids_RC=clean_RC,
        clean_block_RC=(clean_position_RC + shift_R[:, None]) // block_size,
        num_clean_R=num_clean_R,
        ids_RKS=ids_RL.view(blocks),
        label_RKS=ids_RL.view(blocks),
        position_RKS=position_RL.view(blocks),
        block_RKS=((position_RL + shift_R[:, None]) // block_size).view(blocks),
        step_RKS=step_RL.view(blocks),
        weight_RKS=weight_RL.view(blocks),
        is_real_RKS=(within_RL | is_open_RL).view(blocks),
        is_open_RKS=is_open_RL.view(blocks),
        valid_RKS=valid_RL.view(blocks),
        takes_loss_RKS=takes_loss_RL.view(blocks),
        sample_key_R=torch.tensor([example.sample_key for example in examples]),
        epoch_R=torch.tensor([example.epoch for example in examples]),
    )


def about_next_tokens(grid: BlockGrid) -> BlockGrid:
    """The grid of a model whose logits are about the token behind each, and which reads token by token.

    Blocks count positions: a clean token's is its own, a noisy block's is that of its first token, so that
    the block sees all clean tokens before it, and a clean token those up to itself. A label is the next
    token, of response tokens only: what is behind the last prompt token the model itself says.
    """
    rows, *_ = blocks = grid.ids_RKS.shape

    def of_next(values_RKS: Tensor) -> Tensor:
        values_RL = values_RKS.flatten(1)
        return torch.cat([values_RL[:, 1:], torch.zeros_like(values_RL[:, :1])], 1).view(blocks)

    return grid._replace(
        clean_block_RC=torch.arange(grid.clean_ids_RC.shape[1]).expand(rows, -1),
        block_RKS=grid.position_RKS[:, :, :1].expand(blocks),
        label_RKS=of_next(grid.label_RKS),
        takes_loss_RKS=of_next(grid.takes_loss_RKS) & grid.valid_RKS,
    )
