"""FlexAttention's block mask of packed documents."""

import pytest
import torch
from grid_helpers import MASK, PAD, examples_of
from hypothesis import given, settings
from hypothesis import strategies as st
from packing_helpers import loss_logits
from torch.nn.attention.flex_attention import create_mask

from t3d.attention import flex
from t3d.attention.flex import packed_block_mask
from t3d.attention.masks import training_mask
from t3d.training.block_grid import lay_on_grid
from t3d.training.packing import pack_copies

LENGTHS = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 90)), min_size=1, max_size=6)


def packed(lengths, block_size, tile, max_length=None):
    grid = lay_on_grid(examples_of(lengths), block_size, PAD)
    noisy_ids = grid.ids_RKS.masked_fill(grid.valid_RKS, MASK)
    return pack_copies(grid, noisy_ids, grid.valid_RKS, max_length=max_length, row_multiple=tile)


def keys_of(batch):
    return batch["document_ids"], batch["block_ids"], batch["is_noisy"]


def tiles_of(count, index):
    """The dense form of an ordered list of tiles."""
    tiles = torch.zeros(*index.shape, dtype=torch.bool)
    taken = torch.arange(index.shape[-1]) < count[..., None]
    return tiles.scatter(-1, index.long(), taken)[:, 0]


@pytest.mark.many_inputs
@settings(max_examples=60)
@given(LENGTHS, st.sampled_from([1, 4, 8]), st.sampled_from([8, 16, 32]), st.sampled_from([None, 320]))
def test_the_block_mask_is_the_dense_mask(lengths, block_size, tile, max_length):
    """Token by token in partial tiles; a full one has no hidden pair, a skipped one no visible pair."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flex, "TILE", tile)
        batch = packed(lengths, block_size, tile, max_length)
        dense = training_mask(*keys_of(batch))
        mask = packed_block_mask(*keys_of(batch))
    rows, length = batch["input_ids"].shape
    assert torch.equal(create_mask(mask.mask_mod, rows, 1, length, length, "cpu")[:, 0], dense)
    by_tile = dense.unflatten(1, (-1, tile)).unflatten(3, (-1, tile))
    partial = tiles_of(mask.kv_num_blocks, mask.kv_indices)
    full = tiles_of(mask.full_kv_num_blocks, mask.full_kv_indices)
    assert not (partial & full).any()
    assert not (full & ~by_tile.all(2).all(-1)).any()
    assert not (by_tile.any(2).any(-1) & ~(partial | full)).any()


def test_tiles_that_hold_nothing_are_skipped_and_whole_ones_found():
    """Two documents of 512 + 448 tokens: no tile of the other document, and the rule's triangles inside."""
    batch = packed([(64, 448)] * 2, 8, 64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flex, "TILE", 64)
        mask = packed_block_mask(*keys_of(batch))
    dense = training_mask(*keys_of(batch)).unflatten(1, (-1, 64)).unflatten(3, (-1, 64))
    taken = tiles_of(mask.kv_num_blocks, mask.kv_indices) | tiles_of(
        mask.full_kv_num_blocks, mask.full_kv_indices
    )
    assert taken.sum() <= 1.2 * dense.any(2).any(-1).sum()
    assert mask.full_kv_num_blocks.sum() >= 0.8 * dense.all(2).all(-1).sum()


def test_rows_that_are_no_multiple_of_a_tile_are_refused():
    with pytest.raises(ValueError, match="multiple of 128"):
        packed_block_mask(*keys_of(packed([(5, 9)], 4, 1)))


@pytest.mark.slow  # compiles
@pytest.mark.filterwarnings("ignore")
def test_flex_attention_gives_the_logits_of_the_dense_mask(make_model):
    """Forward only: FlexAttention has no backward on a CPU."""
    model = make_model(dtype=torch.float32, head_dim=16, max_position_embeddings=256)
    batch = packed([(60, 90), (9, 40), (33, 7)], 4, 128)
    with torch.no_grad():
        torch.testing.assert_close(
            loss_logits(model, batch, "flex"), loss_logits(model, batch, "dense"), atol=2e-4, rtol=1e-4
        )
