"""States of a drafter: what its masks and the base's check masks see, against forwards written out."""

from dataclasses import replace

import pytest
import torch
from grid_helpers import MASK, PAD, examples_of
from hypothesis import given, settings
from hypothesis import strategies as st
from packing_helpers import assert_block_mask_is_dense, loss_logits

from t3d.attention import flex
from t3d.attention.forward import block_forward
from t3d.training.block_grid import lay_on_grid
from t3d.training.config import T3DConfig
from t3d.training.drafts import draft_noise_mask, draft_order, pack_checks
from t3d.training.noising import NoiseSource
from t3d.training.packing import pack_copies
from t3d.training.presets import preset_fields
from t3d.training.states import TrajectoryCollator

LENGTHS = st.lists(st.tuples(st.integers(1, 13), st.integers(1, 13)), min_size=1, max_size=4)
SIZES = st.sampled_from([1, 2, 4, 8])


def states(lengths, block_size, open_prob=0.7, seed=0):
    grid = lay_on_grid(examples_of(lengths, seed), block_size, PAD)
    noise = NoiseSource(seed=seed, epoch_R=grid.epoch_R, sample_key_R=grid.sample_key_R)
    return grid, draft_noise_mask(grid, noise, open_prob)


def batches(lengths, block_size, *, max_length=None, row_multiple=1, **options):
    """(grid, drafted masks, batch of drafts, batch of checks)."""
    grid, noise_mask = states(lengths, block_size, **options)
    rows = {"max_length": max_length, "row_multiple": row_multiple}
    loss_mask = noise_mask & grid.takes_loss_RKS
    drafts = pack_copies(
        grid,
        grid.ids_RKS.masked_fill(noise_mask, MASK),
        loss_mask,
        **rows,
        further_EKS=draft_order(noise_mask),
    )
    return grid, noise_mask, drafts, pack_checks(grid, loss_mask, MASK, **rows)


@given(LENGTHS, SIZES, st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 9))
def test_a_draft_is_the_end_of_a_block_and_has_a_token_to_learn(lengths, block_size, open_prob, seed):
    grid, noise_mask = states(lengths, block_size, open_prob, seed)
    assert not (noise_mask & ~grid.valid_RKS).any()
    within = torch.arange(block_size)
    for valid, takes_loss, masked in zip(
        grid.valid_RKS.flatten(0, 1), grid.takes_loss_RKS.flatten(0, 1), noise_mask.flatten(0, 1), strict=True
    ):
        assert (masked & takes_loss).any() == takes_loss.any()
        if masked.any():
            start = int(masked.int().argmax())
            assert torch.equal(masked, valid & (within >= start))
            assert open_prob > 0 or start == int(takes_loss.int().argmax())


def test_open_tokens_are_drawn_equally_often():
    """A block of four: open with 3/5, then up to 0, 1, 2 or 3 tokens, each as often."""
    _, noise_mask = states([(4, 4000)], 4, open_prob=0.6)
    shown = 4 - noise_mask[0].sum(-1)
    share = torch.bincount(shown[:-1], minlength=4) / (len(shown) - 1)
    torch.testing.assert_close(share, torch.tensor([0.55, 0.15, 0.15, 0.15]), atol=0.04, rtol=0)


def forward_at(model, tokens, sees, place):
    """Logits at one place of a sequence of (id, position) under a written-out mask."""
    ids, positions = (torch.tensor([column]) for column in zip(*tokens, strict=True))
    return block_forward(model, ids, positions, torch.tensor([sees]))[0, place]


def closed_sees(num_closed, size, block_size):
    """Rows of the mask of a prefix of whole blocks, ``size`` columns wide."""
    return [
        [key < num_closed and key // block_size <= query // block_size for key in range(size)]
        for query in range(num_closed)
    ]


@settings(max_examples=15)
@given(LENGTHS, SIZES, st.integers(0, 3))
def test_drafts_see_what_a_draft_of_decoding_sees(make_model, lengths, block_size, seed):
    """Closed blocks whole, the open tokens causally, and each other: one forward for every block."""
    model = make_model()
    grid, noise_mask, batch, _ = batches(lengths, block_size, seed=seed)
    found = loss_logits(model, batch)
    at = 0
    for row, block, _ in (noise_mask & grid.takes_loss_RKS).any(-1)[..., None].nonzero().tolist():
        first = int(grid.position_RKS[row, block, 0])
        shown = block_size - int(noise_mask[row, block].sum())
        if not grid.is_real_RKS[row, block].all():
            shown = int(noise_mask[row, block].int().argmax())
        masks = int(noise_mask[row, block].sum())
        ids = grid.clean_ids_RC[row, :first].tolist() + grid.ids_RKS[row, block, :shown].tolist()
        ids += [MASK] * masks
        size = len(ids)
        sees = closed_sees(first, size, block_size)
        sees += [[key <= first + index for key in range(size)] for index in range(shown)]
        sees += [[True] * size] * masks
        tokens = list(zip(ids, range(size), strict=True))
        for index in (noise_mask & grid.takes_loss_RKS)[row, block].nonzero()[:, 0].tolist():
            expected = forward_at(model, tokens, sees, first + index)
            torch.testing.assert_close(found[at], expected, atol=1e-6, rtol=1e-6)
            at += 1
    assert at == len(found)


@settings(max_examples=15)
@given(LENGTHS, SIZES, st.integers(0, 3))
def test_check_masks_see_what_left_to_right_reads(make_model, lengths, block_size, seed):
    """One forward for every token: closed blocks whole, tokens of its block before it causally, a mask."""
    model = make_model()
    grid, noise_mask, drafts, batch = batches(lengths, block_size, seed=seed)
    found = loss_logits(model, batch)
    assert torch.equal(batch["labels"], drafts["labels"])
    for at, (row, block, index) in enumerate((noise_mask & grid.takes_loss_RKS).nonzero().tolist()):
        first = int(grid.position_RKS[row, block, 0])
        ids = grid.clean_ids_RC[row, :first].tolist() + grid.ids_RKS[row, block, :index].tolist() + [MASK]
        size = len(ids)
        sees = closed_sees(first, size, block_size)
        sees += [[key <= query for key in range(size)] for query in range(first, size)]
        expected = forward_at(model, list(zip(ids, range(size), strict=True)), sees, size - 1)
        torch.testing.assert_close(found[at], expected, atol=1e-6, rtol=1e-6)
    assert len(found) == int((noise_mask & grid.takes_loss_RKS).sum())


@settings(max_examples=20)
@given(LENGTHS, st.sampled_from([2, 4, 8]), st.sampled_from([None, 64]))
def test_document_attention_keeps_the_order_of_a_block(make_model, lengths, block_size, max_length):
    model = make_model()
    for batch in batches(lengths, block_size, max_length=max_length)[2:]:
        results = []
        for attention in ("dense", "documents"):
            model.zero_grad()
            logits = loss_logits(model, batch, attention)
            logits.logsumexp(-1).sum().backward()
            results.append((logits.detach(), model.model.embed_tokens.weight.grad.clone()))
        for ours, theirs in zip(*results, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-9)


@settings(max_examples=20)
@given(LENGTHS, st.sampled_from([2, 8, 16]))
def test_the_block_mask_keeps_the_order_of_a_block(lengths, block_size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flex, "TILE", 8)
        for batch in batches(lengths, block_size, row_multiple=8)[2:]:
            assert_block_mask_is_dense(batch, 8)


def test_the_gate_is_on_the_drafts_masks_and_nowhere_else(tmp_path):
    """Those of a last block that was cut are drafts, too: in decoding masks stand there."""
    config = T3DConfig(output_dir=str(tmp_path), use_cpu=True, **preset_fields("drafter"), block_size=4)
    examples = [replace(example, is_cut=True) for example in examples_of([(5, 10), (8, 7), (3, 9)])]
    collator = TrajectoryCollator(config=config, pad_token_id=PAD, mask_token_id=39, vocab_size=40)
    batch = collator(examples)
    gated = torch.zeros(batch["input_ids"].numel(), dtype=torch.bool)
    gated[batch["gated_positions"]] = True
    assert torch.equal(gated, (batch["input_ids"].flatten() == 39) & batch["is_noisy"].flatten())
    assert gated[batch["loss_positions"]].all()
    assert torch.equal(batch["checks"]["labels"], batch["labels"])
    assert torch.equal(
        batch["checks"]["position_ids"].flatten()[batch["checks"]["loss_positions"]],
        batch["position_ids"].flatten()[batch["loss_positions"]],
    )
