"""Key and value slots."""

import pytest
import torch

from t3d.decoding.cache import SlotCache
from t3d.models.forward import block_forward
from t3d.models.masks import block_causal_mask


def forward(model, cache, ids, position, key_length, block_size=4):
    keys = torch.arange(key_length).expand(len(ids), -1)
    mask = block_causal_mask(position, keys, torch.ones_like(keys, dtype=torch.bool), block_size)
    cache.place(position, key_length)
    with torch.no_grad():
        return block_forward(model, ids, position, mask, cache=cache)


def new_cache(model, rows, slots):
    return SlotCache(model.config, rows, slots, torch.float64, torch.device("cpu"))


def uncached(model, ids, block_size=4):
    position = torch.arange(ids.shape[1]).expand_as(ids)
    mask = block_causal_mask(position, position, torch.ones_like(ids, dtype=torch.bool), block_size)
    with torch.no_grad():
        return block_forward(model, ids, position, mask)


@pytest.mark.parametrize("pieces", [[12], [4, 4, 4], [8, 4], [4, 8]])
def test_forwards_of_whole_blocks_equal_one_forward(tiny_model, pieces):
    ids = torch.randint(0, 40, (3, 12))
    cache = new_cache(tiny_model, 3, 16)
    logits, start = [], 0
    for piece in pieces:
        position = torch.arange(start, start + piece).expand(3, -1)
        logits.append(forward(tiny_model, cache, ids[:, start : start + piece], position, start + piece))
        start += piece
    torch.testing.assert_close(torch.cat(logits, 1), uncached(tiny_model, ids), atol=1e-6, rtol=0)


def test_rewriting_a_block_replaces_it(tiny_model):
    """Denoising forwards leave no trace once the clean block is written."""
    ids = torch.randint(0, 40, (2, 12))
    cache = new_cache(tiny_model, 2, 12)
    position = torch.arange(12).expand(2, -1)
    forward(tiny_model, cache, ids[:, :4], position[:, :4], 4)
    for _ in range(3):
        forward(tiny_model, cache, torch.randint(0, 40, (2, 4)), position[:, 4:8], 8)
    forward(tiny_model, cache, ids[:, 4:8], position[:, 4:8], 8)
    last = forward(tiny_model, cache, ids[:, 8:], position[:, 8:], 12)
    torch.testing.assert_close(last, uncached(tiny_model, ids)[:, 8:], atol=1e-6, rtol=0)


def test_rows_may_be_at_different_positions(tiny_model):
    """Row 0 decodes its second block while row 1 decodes its third; keys past a row's own are masked."""
    ids = torch.randint(0, 40, (2, 12))
    cache = new_cache(tiny_model, 2, 12)
    forward(tiny_model, cache, ids[:, :8], torch.arange(8).expand(2, -1), 8)
    position = torch.tensor([[4, 5, 6, 7], [8, 9, 10, 11]])
    logits = forward(tiny_model, cache, ids.gather(1, position), position, 12)
    full = uncached(tiny_model, ids)
    torch.testing.assert_close(logits[0], full[0, 4:8], atol=1e-6, rtol=0)
    torch.testing.assert_close(logits[1], full[1, 8:12], atol=1e-6, rtol=0)


def test_masked_slots_do_not_matter(tiny_model):
    """Whatever an earlier tenant left there."""
    ids = torch.randint(0, 40, (1, 8))
    clean, dirty = new_cache(tiny_model, 1, 16), new_cache(tiny_model, 1, 16)
    dirty.keys = [torch.full_like(slots, 1e3) for slots in dirty.keys]
    dirty.values = [torch.full_like(slots, -1e3) for slots in dirty.values]
    position = torch.arange(8)[None]
    for cache in (clean, dirty):
        forward(tiny_model, cache, ids[:, :4], position[:, :4], 4)
    keys_seen = 16  # slots 8 to 15 hold garbage; their blocks are later ones
    logits = [forward(tiny_model, cache, ids[:, 4:], position[:, 4:], keys_seen) for cache in (clean, dirty)]
    torch.testing.assert_close(*logits)


def test_dropping_rows_keeps_the_others(tiny_model):
    ids = torch.randint(0, 40, (3, 8))
    cache = new_cache(tiny_model, 3, 8)
    position = torch.arange(8).expand(3, -1)
    forward(tiny_model, cache, ids[:, :4], position[:, :4], 4)
    cache.keep_rows(torch.tensor([0, 2]))
    kept = ids[[0, 2]]
    logits = forward(tiny_model, cache, kept[:, 4:], position[:2, 4:], 8)
    torch.testing.assert_close(logits, uncached(tiny_model, kept)[:, 4:], atol=1e-6, rtol=0)


def test_the_length_is_what_the_last_forward_saw(tiny_model):
    cache = new_cache(tiny_model, 1, 8)
    assert cache.get_seq_length() == 0
    forward(tiny_model, cache, torch.zeros(1, 4, dtype=torch.int64), torch.arange(4)[None], 4)
    assert cache.get_seq_length() == 4
