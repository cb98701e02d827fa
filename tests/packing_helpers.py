"""Packed batches in tests."""

import torch
from torch.nn.attention.flex_attention import create_mask

from t3d.attention.flex import packed_block_mask
from t3d.attention.masks import BlockOrder, training_mask
from t3d.attention.packed_forward import arrange, packed_forward


def loss_logits(model, batch, attention="dense"):
    """Logits ``[M, V]`` at the loss positions of a packed batch."""
    return packed_forward(
        model, batch, arrange(batch, attention), logit_positions=batch["loss_positions"]
    ).logits


def assert_block_mask_is_dense(batch, tile):
    """FlexAttention's mask of a batch with an order is the dense one, and its tiles hide nothing of it."""
    keys = batch["document_ids"], batch["block_ids"], batch["is_noisy"]
    order = BlockOrder(batch["place"], batch["reads"])
    dense, mask = training_mask(*keys, order), packed_block_mask(*keys, order)
    rows, length = batch["input_ids"].shape
    assert torch.equal(create_mask(mask.mask_mod, rows, 1, length, length, "cpu")[:, 0], dense)
    by_tile = dense.unflatten(1, (-1, tile)).unflatten(3, (-1, tile))
    taken = torch.zeros(2, *mask.kv_indices[:, 0].shape, dtype=torch.bool)
    for kind, (count, index) in enumerate(
        ((mask.kv_num_blocks, mask.kv_indices), (mask.full_kv_num_blocks, mask.full_kv_indices))
    ):
        chosen = torch.arange(index.shape[-1]) < count[..., None]
        taken[kind] = torch.zeros_like(chosen).scatter(-1, index.long(), chosen)[:, 0]
    assert not (taken[1] & ~by_tile.all(2).all(-1)).any()
    assert not (by_tile.any(2).any(-1) & ~taken.any(0)).any()
