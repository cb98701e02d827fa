"""Packed ``[clean | noisy]`` documents."""

import pytest
import torch
from grid_helpers import (
    BATCHES,
    BLOCK_SIZES,
    MASK,
    ORIGINS,
    PAD,
    examples_of,
    random_loss_mask,
    written_sequence,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from packing_helpers import loss_logits

from t3d.attention.forward import block_forward
from t3d.attention.masks import training_mask
from t3d.training.block_grid import lay_on_grid
from t3d.training.packing import assign_rows, cut_response, pack_copies


def packed(batch, block_size, origin, seed=0, **options):
    """A packed batch of random examples, some tokens of each masked."""
    grid = lay_on_grid(examples_of(batch), block_size, PAD, origin)
    loss_mask = random_loss_mask(grid, seed)
    return pack_copies(grid, grid.ids_RKS.masked_fill(loss_mask, MASK), loss_mask, **options)


def written_blocks(batch, block_size, origin):
    """Block of each (position, is noisy) of each example, by the rule in words."""
    return [
        {
            (position, noisy): block
            for position, block, noisy in written_sequence(prompt, response, block_size, origin)
        }
        for prompt, response in batch
    ]


def examples_of_tokens(joined):
    """Which example each token of a row belongs to, found by the loss positions of its document."""
    rows, length = joined["document_ids"].shape
    owner = torch.full((rows * length,), -1)
    document = joined["document_ids"].flatten()
    for place, example in zip(
        joined["loss_positions"].tolist(), joined["loss_example"].tolist(), strict=True
    ):
        owner[document == document[place]] = example
    return owner.view(rows, length)


@given(BATCHES, BLOCK_SIZES, ORIGINS, st.integers(0, 9), st.sampled_from([None, 40, 64]))
def test_the_attention_mask_equals_the_written_rule(batch, block_size, origin, seed, max_length):
    """Brute force over all pairs of tokens of a row, however they are packed; padding sees only itself."""
    grid = lay_on_grid(examples_of(batch), block_size, PAD, origin)
    joined = pack_copies(grid, grid.ids_RKS, grid.valid_RKS, max_length=max_length)
    mask = training_mask(joined["document_ids"], joined["block_ids"], joined["is_noisy"])
    assert mask.any(-1).all()
    block_of = written_blocks(batch, block_size, origin)
    for row, documents in enumerate(joined["document_ids"]):
        columns = documents, joined["position_ids"][row], joined["is_noisy"][row]
        tokens = list(zip(*(column.tolist() for column in columns), strict=True))
        owner = dict(zip(documents.tolist(), examples_of_tokens(joined)[row].tolist(), strict=True))

        def sees(query, key, owner=owner):
            (document, position, is_noisy), (other, key_position, key_noisy) = query, key
            if document != other:
                return False
            block, key_block = (
                block_of[owner[document]][place]
                for place in ((position, is_noisy), (key_position, key_noisy))
            )
            return (not key_noisy and key_block < block) or (key_block == block and is_noisy == key_noisy)

        expected = [[sees(query, key) for key in tokens] if query[0] >= 0 else None for query in tokens]
        is_real = documents >= 0
        assert mask[row][is_real].tolist() == [line for line in expected if line is not None]
        assert torch.equal(mask[row][~is_real], torch.eye(len(is_real), dtype=torch.bool)[~is_real])


@given(BATCHES, BLOCK_SIZES, ORIGINS)
def test_whole_documents_hold_exactly_the_written_sequence(batch, block_size, origin):
    joined = packed(batch, block_size, origin)
    assert len(joined["input_ids"]) == 1
    for document, (prompt, response) in enumerate(batch):
        chosen = joined["document_ids"] == document
        columns = [joined[name][chosen] for name in ("position_ids", "block_ids", "is_noisy")]
        written = written_sequence(prompt, response, block_size, origin)
        columns[1] = columns[1] - columns[1][0] + written[0][1]  # only differences of blocks matter
        assert list(zip(*(column.tolist() for column in columns), strict=True)) == written


@given(BATCHES, BLOCK_SIZES, ORIGINS, st.integers(0, 9), st.sampled_from([None, 64]))
def test_labels_are_the_response_ids_at_the_loss_positions(batch, block_size, origin, seed, max_length):
    examples = examples_of(batch)
    joined = packed(batch, block_size, origin, seed, max_length=max_length)
    owner = joined["loss_example"].tolist()
    position = joined["position_ids"].flatten()[joined["loss_positions"]].tolist()
    index = [place - len(examples[row].prompt_ids) for row, place in zip(owner, position, strict=True)]
    pairs = list(zip(owner, index, strict=True))
    assert joined["labels"].tolist() == [examples[row].response_ids[i] for row, i in pairs]
    assert joined["token_weight"].tolist() == [examples[row].token_weight[i] for row, i in pairs]
    assert joined["is_noisy"].flatten()[joined["loss_positions"]].all()
    assert (joined["document_ids"].flatten()[joined["loss_positions"]] >= 0).all()
    assert (joined["input_ids"].flatten()[joined["loss_positions"]] == MASK).all()
    assert len(set(joined["loss_positions"].tolist())) == len(pairs)
    assert owner == sorted(owner)


def logits_of(model, examples, block_size, origin, seed, attention="dense", **options):
    """Loss logits of each example of a batch, in which about 60% of each one's tokens are masked."""
    grid = lay_on_grid(examples, block_size, PAD, origin)
    key = (grid.position_RKS * 7 + grid.sample_key_R[:, None, None] * 13 + seed * 31) % 10
    loss_mask = grid.valid_RKS & ((key < 6) | (grid.step_RKS % 1000 == 1))
    joined = pack_copies(grid, grid.ids_RKS.masked_fill(loss_mask, MASK), loss_mask, **options)
    with torch.no_grad():
        logits = loss_logits(model, joined, attention)
    return [logits[joined["loss_example"] == row] for row in range(len(examples))]


@settings(max_examples=40)
@given(
    BATCHES,
    BLOCK_SIZES,
    ORIGINS,
    st.integers(0, 9),
    st.sampled_from(["dense", "documents"]),
    st.sampled_from([None, 48, 64, 100]),
    st.sampled_from([1, 16]),
)
def test_packing_gives_each_examples_own_logits(
    tiny_model, batch, block_size, origin, seed, attention, max_length, row_multiple
):
    """Neighbours, padding, rows and cuts of the noisy copy change nothing."""
    examples = examples_of(batch)
    options = {"max_length": max_length, "row_multiple": row_multiple}
    try:
        together = logits_of(tiny_model, examples, block_size, origin, seed, attention, **options)
    except ValueError:
        assert max_length == 48
        return
    for example, logits in zip(examples, together, strict=True):
        alone = logits_of(tiny_model, [example], block_size, origin, seed)[0]
        torch.testing.assert_close(logits, alone, atol=1e-6, rtol=0)


def test_the_pad_id_does_not_matter(tiny_model):
    examples = examples_of([(5, 3), (9, 10)])
    results = []
    for pad in (PAD, 39):
        grid = lay_on_grid(examples, 4, pad)
        joined = pack_copies(grid, grid.ids_RKS.masked_fill(grid.valid_RKS, MASK), grid.valid_RKS)
        with torch.no_grad():
            results.append(loss_logits(tiny_model, joined))
    assert torch.equal(*results)


def test_loss_logits_are_the_full_logits_at_the_loss_positions(tiny_model):
    joined = packed([(5, 3), (9, 10)], 4, "prompt")
    mask = training_mask(joined["document_ids"], joined["block_ids"], joined["is_noisy"])
    with torch.no_grad():
        full = block_forward(tiny_model, joined["input_ids"], joined["position_ids"], mask)
        torch.testing.assert_close(
            loss_logits(tiny_model, joined), full.flatten(0, 1)[joined["loss_positions"]]
        )


@given(st.integers(0, 40), st.integers(1, 12), st.sampled_from([1, 2, 4, 8]), st.integers(1, 120))
def test_pieces_cover_every_block_once_with_all_clean_tokens_before_their_last(
    prompt, num_blocks, block_size, max_length
):
    before_first = prompt // block_size * block_size
    num_clean = before_first + (num_blocks - 1) * block_size
    pieces = cut_response(3, num_clean, num_blocks, block_size, max_length)
    if num_clean + block_size > max_length:
        assert pieces == []
        return
    covered = [block for p in pieces for block in range(p.first_block, p.first_block + p.num_blocks)]
    assert covered == list(range(num_blocks))
    for piece in pieces:
        assert piece.example == 3
        assert piece.num_clean == before_first + (piece.first_block + piece.num_blocks - 1) * block_size
        assert piece.num_noisy == piece.num_blocks * block_size
        assert piece.length == piece.num_clean + piece.num_noisy <= max_length
    for piece in pieces[:-1]:  # no piece could have held one block more
        assert piece.length + 2 * block_size > max_length
    assert cut_response(3, num_clean, num_blocks, block_size, None)[0].num_blocks == num_blocks


@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.integers(30, 60))
def test_rows_hold_every_document_once_and_no_more_than_fits(lengths, max_length):
    rows = assign_rows(lengths, max_length)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in row) <= max_length for row in rows)
    # First fit: at most one row is half empty.
    assert sum(sum(lengths[index] for index in row) <= max_length / 2 for row in rows) <= 1
    assert assign_rows(lengths, None) == [list(range(len(lengths)))]


def test_a_response_that_cannot_fit_is_refused_here_and_not_cut():
    with pytest.raises(ValueError, match="max_length=10"):
        packed([(9, 10)], 4, "prompt", max_length=10)


def test_rows_of_a_fixed_length_are_the_same_for_all_batches():
    shapes = {
        packed(batch, 4, "prompt", max_length=100, row_multiple=16)["input_ids"].shape[1]
        for batch in ([(5, 3)], [(9, 10), (3, 3)], [(13, 13)] * 4)
    }
    assert shapes == {112}
