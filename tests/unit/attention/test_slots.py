"""Slots of keys and values, and forwards that extend several of them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from slot_helpers import extend

from t3d.attention.forward import block_forward
from t3d.attention.masks import block_causal_mask
from t3d.attention.slots import ScratchSpan, SlotCache


def uncached(model, ids, block_size=4):
    """Logits of one sequence in one forward under the mask."""
    position = torch.arange(len(ids))[None]
    mask = block_causal_mask(position, position, torch.ones_like(position, dtype=torch.bool), block_size)
    with torch.no_grad():
        return block_forward(model, torch.tensor([ids]), position, mask)[0]


def close(actual, expected):
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=0)


def tokens(count, seed=0):
    return torch.randint(0, 40, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


@pytest.fixture(params=["dense", "moe"])
def model(request, make_model, make_moe_model):
    return make_model() if request.param == "dense" else make_moe_model()


@pytest.mark.parametrize("pieces", [[12], [4, 4, 4], [8, 4], [4, 8]])
def test_spans_of_whole_blocks_equal_one_forward(model, pieces):
    ids, cache = tokens(12), SlotCache(1, 16)
    logits, start = [], 0
    for piece in pieces:
        logits += extend(model, cache, [(0, start, ids[start : start + piece])])
        start += piece
    close(torch.cat(logits), uncached(model, ids))


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 4), st.integers(1, 5)), min_size=1, max_size=6),
    st.sampled_from([0, 0, 1, 9]),
)
def test_rows_of_any_start_and_length_go_side_by_side(tiny_model, cases, num_padding):
    """Prompts next to single blocks, some slots left out, padding behind: each row as if it were alone."""
    cache, block_size, rows, sequences = SlotCache(len(cases), 18), 2, [], []
    for slot, (takes_part, num_before, num_blocks) in enumerate(cases):
        before, count = 2 * num_before, 2 * num_blocks
        ids = tokens(before + count, seed=slot)
        if before:
            extend(tiny_model, cache, [(slot, 0, ids[:before])], block_size)
        if takes_part:
            rows.append((slot, before, ids[before:]))
            sequences.append(ids)
    if not rows:
        return
    for (_, start, _), ids, logits in zip(
        rows, sequences, extend(tiny_model, cache, rows, block_size, num_padding=num_padding), strict=True
    ):
        close(logits, uncached(tiny_model, ids, block_size)[start:])


def test_padding_is_written_nowhere(tiny_model):
    plain, padded = SlotCache(2, 8), SlotCache(2, 8)
    rows = [(0, 0, tokens(4)), (1, 0, tokens(8))]
    extend(tiny_model, plain, rows)
    extend(tiny_model, padded, rows, num_padding=5)
    for layer in range(tiny_model.config.num_hidden_layers):
        for ours, theirs in zip(
            padded.layer(layer, torch.empty(0)), plain.layer(layer, torch.empty(0)), strict=True
        ):
            close(ours, theirs)


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 3), st.integers(0, 3), st.integers(0, 5), st.integers(0, 3)),
        min_size=1,
        max_size=5,
    ),
    st.integers(0, 99),
)
def test_scratch_tokens_see_what_they_are_told_and_nobody_sees_them(tiny_model, cases, seed):
    """Rows with and without scratch, with and without blocks before it, some slots left out: logits of one
    dense forward of each row. The columns of earlier scratch tokens are seen, too, where it says so."""
    generator, size = np.random.default_rng(seed), 2
    cache, rows, scratch, sequences = SlotCache(len(cases), 40), [], {}, []
    for slot, (takes_part, num_before, num_blocks, count, num_kept) in enumerate(cases):
        before, end = size * num_before, size * (num_before + num_blocks)
        ids = tokens(end + num_kept + count, seed=seed + slot)
        if before:
            extend(tiny_model, cache, [(slot, 0, ids[:before])], size)
        if not takes_part:
            continue
        columns = generator.permutation(12)[: num_kept + count]
        sees = np.eye(num_kept + count, dtype=bool) | (generator.random((num_kept + count,) * 2) < 0.5)
        sees[:num_kept, num_kept:] = False  # what was read before has not seen what is read now
        positions = generator.integers(0, 60, num_kept + count)
        parts = [slice(0, num_kept), slice(num_kept, num_kept + count)]
        spans = [span_of(positions[part], end + columns[part], sees[part], columns) for part in parts]
        if num_kept:
            extend(tiny_model, cache, [(slot, before, ids[before : end + num_kept])], size, {0: spans[0]})
            before = end
        if before == end and not count:
            continue
        if count:
            scratch[len(rows)] = spans[1]
        rows.append((slot, before, [*ids[before:end], *ids[end + num_kept :]]))
        sequences.append((ids, end, positions, sees, before, num_kept))
    if not rows:
        return
    for (ids, end, positions, sees, before, num_kept), logits in zip(
        sequences, extend(tiny_model, cache, rows, size, scratch), strict=True
    ):
        position = torch.from_numpy(np.concatenate([np.arange(end), positions]))[None]
        mask = torch.zeros(1, len(ids), len(ids), dtype=torch.bool)
        block = torch.arange(end)[None]
        mask[:, :end, :end] = block_causal_mask(block, block, torch.ones_like(block, dtype=torch.bool), size)
        mask[:, end:, :end] = True
        mask[:, end:, end:] = torch.from_numpy(sees)
        with torch.no_grad():
            dense = block_forward(tiny_model, torch.tensor([ids]), position, mask)[0]
        close(logits, torch.cat([dense[before:end], dense[end + num_kept :]]))


def span_of(position, column, sees, columns):
    sees_QN = np.zeros((len(column), 12), dtype=bool)
    sees_QN[:, columns] = sees
    return ScratchSpan(position_Q=position, column_Q=column, sees_QN=sees_QN)


def test_keys_and_values_after_a_fused_commit_equal_a_full_recompute(model):
    """Denoising forwards leave no trace: the clean block rides with the next one and replaces them."""
    ids, cache, fresh = tokens(16), SlotCache(1, 16), SlotCache(1, 16)
    extend(model, cache, [(0, 0, ids[:4] + tokens(4, seed=1))])
    for seed in (2, 3):
        extend(model, cache, [(0, 4, tokens(4, seed=seed))])
    extend(model, cache, [(0, 4, ids[4:8] + tokens(4, seed=4))])
    logits = extend(model, cache, [(0, 8, ids[8:])])[0]
    extend(model, fresh, [(0, 0, ids)])
    like = torch.empty(0)
    for layer in range(model.config.num_hidden_layers):
        for ours, theirs in zip(cache.layer(layer, like), fresh.layer(layer, like), strict=True):
            close(ours[:, :16], theirs[:, :16])
    close(logits, uncached(model, ids)[8:])


def test_what_an_earlier_tenant_left_does_not_matter(tiny_model):
    ids, clean, dirty = tokens(8), SlotCache(1, 16), SlotCache(1, 16)
    extend(tiny_model, dirty, [(0, 0, tokens(16, seed=9))])
    logits = []
    for cache in (clean, dirty):
        extend(tiny_model, cache, [(0, 0, ids[:4])])
        logits += extend(tiny_model, cache, [(0, 4, ids[4:])])
    torch.testing.assert_close(*logits)


def test_a_moved_slot_goes_on_as_before(tiny_model):
    ids, cache = tokens(12), SlotCache(3, 12)
    extend(tiny_model, cache, [(2, 0, ids[:8])])
    cache.move(2, 0, 8)
    close(extend(tiny_model, cache, [(0, 8, ids[8:])])[0], uncached(tiny_model, ids)[8:])


def test_memory_is_reserved_for_every_position_and_counted(tiny_model):
    """2 layers x (keys, values) x 3 slots x 12 positions x 2 heads x 8 numbers of 8 bytes."""
    cache = SlotCache(3, 12)
    assert cache.num_bytes == 0
    extend(tiny_model, cache, [(1, 0, tokens(4))])
    assert cache.num_bytes == 2 * 2 * 3 * 12 * 2 * 8 * 8


def test_nothing_is_set_on_the_model(model):
    """Neither during a forward nor after it, one that fails included."""
    before, seen = dict(vars(model.config)), []
    hook = model.model.layers[0].register_forward_hook(lambda *_: seen.append(dict(vars(model.config))))
    extend(model, SlotCache(1, 4), [(0, 0, [1, 2, 3, 4])])
    hook.remove()
    with pytest.raises(IndexError):
        extend(model, SlotCache(1, 4), [(0, 0, [1, 2, 3, 99])])
    assert seen == [before]
    assert vars(model.config) == before
