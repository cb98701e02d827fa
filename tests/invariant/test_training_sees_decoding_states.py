"""The strongest test of the training sequence: it computes what decoding computes.

Logits of block b in the noisy copy equal those of real block decoding with cached keys and values, at
the same state, whatever the prompt's remainder.
"""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from packing_helpers import loss_logits
from slot_helpers import extend

from t3d.attention.slots import SlotCache
from t3d.training.block_grid import TrainingExample, lay_on_grid
from t3d.training.packing import pack_copies

MASK, VOCAB = 37, 40


def example_of(prompt_ids, response_ids, key=0):
    return TrainingExample(
        sample_key=key,
        epoch=0,
        prompt_ids=prompt_ids,
        response_ids=response_ids,
        step_map=[1] * len(response_ids),
        token_weight=[1.0] * len(response_ids),
        num_loss_tokens=len(response_ids),
    )


def cached_decoding_logits(model, clean, noisy, prompt_length, block_size):
    """Logits of all response tokens: prefill the prompt's whole blocks, then for each block in turn
    forward its noisy ids, read the logits, forward its clean ids to commit it."""
    cache = SlotCache(1, len(clean))

    def forward(ids, first):
        return extend(model, cache, [(0, first, ids)], block_size)[0]

    first_block = prompt_length // block_size * block_size
    if first_block:
        forward(clean[:first_block], 0)
    logits = []
    for start in range(first_block, len(clean), block_size):
        logits.append(forward(noisy[start : start + block_size], start))
        forward(clean[start : start + block_size], start)
    return torch.cat(logits)[prompt_length - first_block :]


@st.composite
def rows(draw):
    """Block size, and for each row its prompt length, response length and a seed of ids and state."""
    block_size = draw(st.sampled_from([1, 2, 4, 8]))
    lengths = st.tuples(
        st.integers(1, 3 * block_size), st.integers(1, 2 * block_size + 3), st.integers(0, 999)
    )
    return block_size, draw(st.lists(lengths, min_size=1, max_size=3))


@settings(max_examples=60)
@given(rows(), st.sampled_from(["dense", "documents"]))
def test_noisy_copy_logits_equal_those_of_cached_block_decoding(tiny_model, case, attention):
    """States are random: any token masked, replaced by a random token or left alone, in ragged batches."""
    block_size, batch = case
    examples, states = [], []
    for key, (prompt_length, response_length, seed) in enumerate(batch):
        generator = torch.Generator().manual_seed(seed)
        clean = torch.randint(VOCAB, (prompt_length + response_length,), generator=generator)
        noisy = clean.clone()
        kind = torch.randint(4, clean.shape, generator=generator)
        kind[:prompt_length] = 3
        noisy[kind <= 1] = MASK
        noisy[kind == 2] = torch.randint(VOCAB, clean.shape, generator=generator)[kind == 2]
        examples.append(example_of(clean[:prompt_length].tolist(), clean[prompt_length:].tolist(), key))
        states.append(noisy)
    grid = lay_on_grid(examples, block_size, 0)
    noisy_ids = grid.ids_RKS.clone()
    for row, (noisy, (prompt_length, _, _)) in enumerate(zip(states, batch, strict=True)):
        noisy_ids[row][grid.valid_RKS[row]] = noisy[prompt_length:]
    joined = pack_copies(grid, noisy_ids, grid.valid_RKS)
    with torch.no_grad():
        trained = loss_logits(tiny_model, joined, attention)
    for row, (example, noisy) in enumerate(zip(examples, states, strict=True)):
        clean = [*example.prompt_ids, *example.response_ids]
        decoded = cached_decoding_logits(
            tiny_model, clean, noisy.tolist(), len(example.prompt_ids), block_size
        )
        torch.testing.assert_close(trained[joined["loss_example"] == row], decoded, atol=1e-6, rtol=0)


def test_the_equality_is_sharp(tiny_model):
    """One different visible token in the noisy block changes the block's logits by far more than 1e-6."""
    clean = list(range(1, 17))
    noisy = clean.copy()
    noisy[8:12] = [MASK, 10, MASK, MASK]
    changed = noisy.copy()
    changed[9] = 30
    same = cached_decoding_logits(tiny_model, clean, noisy, 6, 4)
    other = cached_decoding_logits(tiny_model, clean, changed, 6, 4)
    difference = (same - other).abs().amax(-1)
    assert (difference[2:6] > 1e-2).all()  # positions 8-11
    assert (difference[:2] == 0).all() and (difference[6:] == 0).all()
