"""The ``[clean | noisy]`` training sequence."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from t3d.data.collate import TrainingExample, join_copies, lay_on_grid, loss_logits
from t3d.models.forward import block_forward
from t3d.models.masks import training_mask

MASK, PAD = 37, 0

BATCHES = st.lists(st.tuples(st.integers(1, 13), st.integers(1, 13)), min_size=1, max_size=4)
"""(prompt length, response length) of each row."""
BLOCK_SIZES = st.sampled_from([1, 2, 3, 4, 8])
ORIGINS = st.sampled_from(["prompt", "response"])


def examples_of(batch, seed=0):
    """Random ids; steps, weights and keys that tell every token of every row apart."""
    generator = torch.Generator().manual_seed(seed)
    return [
        TrainingExample(
            sample_key=100 + row,
            epoch=row,
            prompt_ids=torch.randint(1, 40, (prompt,), generator=generator).tolist(),
            response_ids=torch.randint(1, 40, (response,), generator=generator).tolist(),
            step_map=[1000 * row + index + 1 for index in range(response)],
            token_weight=[row + index / 32 for index in range(response)],
            num_loss_tokens=max(1, response - row),
        )
        for row, (prompt, response) in enumerate(batch)
    ]


def random_loss_mask(grid, seed):
    """Some of the response tokens, at least one of the batch."""
    generator = torch.Generator().manual_seed(seed)
    chosen = grid.valid_RKS & (torch.rand(grid.valid_RKS.shape, generator=generator) < 0.6)
    return chosen if chosen.any() else grid.valid_RKS


def written_sequence(prompt, response, block_size, origin):
    """The rule in words: (position, block, is noisy) of each real token of one row.

    Absolute grid: blocks count from the first prompt token. Response grid: from the first response
    token, so that those of the prompt count backwards from its end. The noisy copy holds the blocks
    with response tokens, the clean copy everything but the last block.
    """
    first = prompt if origin == "response" else 0
    block = [(position - first) // block_size for position in range(prompt + response)]
    clean = [
        (position, block[position], False)
        for position in range(prompt + response)
        if block[position] < block[-1]
    ]
    noisy = [
        (position, block[position], True)
        for position in range(prompt + response)
        if block[position] >= block[prompt]
    ]
    return clean + noisy


# --- the grid ---------------------------------------------------------------------------------------


def test_grid_by_hand():
    """Prompt of 5, response of 6, blocks of 4: the prompt's tail (token 5) opens the first noisy block.

    Clean: the prompt and the first response block up to position 7; the last block (positions 8-10) is
    in the noisy copy only. Position 11 is padding.
    """
    example = TrainingExample(
        sample_key=7,
        epoch=2,
        prompt_ids=[1, 2, 3, 4, 5],
        response_ids=[11, 12, 13, 14, 15, 16],
        step_map=[3, 1, 2, 4, 5, 6],
        token_weight=[0.5, 1.0, 0.75, 1.0, 1.0, 1.0],
        num_loss_tokens=4,
    )
    grid = lay_on_grid([example], 4, PAD)
    assert grid.clean_ids_RC.tolist() == [[1, 2, 3, 4, 5, 11, 12, 13]]
    assert grid.clean_block_RC.tolist() == [[0, 0, 0, 0, 1, 1, 1, 1]]
    assert grid.ids_RKS.tolist() == [[[5, 11, 12, 13], [14, 15, 16, PAD]]]
    assert grid.position_RKS.tolist() == [[[4, 5, 6, 7], [8, 9, 10, 11]]]
    assert grid.block_RKS.tolist() == [[[1, 1, 1, 1], [2, 2, 2, 2]]]
    assert grid.step_RKS[grid.valid_RKS].tolist() == [3, 1, 2, 4, 5, 6]
    assert grid.weight_RKS[grid.valid_RKS].tolist() == [0.5, 1.0, 0.75, 1.0, 1.0, 1.0]
    assert grid.is_real_RKS.int().tolist() == [[[1, 1, 1, 1], [1, 1, 1, 0]]]
    assert grid.valid_RKS.int().tolist() == [[[0, 1, 1, 1], [1, 1, 1, 0]]]
    assert grid.takes_loss_RKS.int().tolist() == [[[0, 1, 1, 1], [1, 0, 0, 0]]]
    assert (grid.sample_key_R.tolist(), grid.epoch_R.tolist()) == ([7], [2])


def test_response_grid_by_hand():
    """The same on the released code's grid: blocks 11-14 | 15 16, the prompt's {2 3 4 5} and {1}."""
    example = examples_of([(5, 6)])[0]
    grid = lay_on_grid([example], 4, PAD, "response")
    assert grid.clean_ids_RC.tolist() == [[*example.prompt_ids, *example.response_ids[:4]]]
    assert grid.clean_block_RC.tolist() == [[0, 1, 1, 1, 1, 2, 2, 2, 2]]
    assert grid.position_RKS.tolist() == [[[5, 6, 7, 8], [9, 10, 11, 12]]]
    assert grid.block_RKS.tolist() == [[[2, 2, 2, 2], [3, 3, 3, 3]]]
    assert grid.valid_RKS.int().tolist() == [[[1, 1, 1, 1], [1, 1, 0, 0]]]


@given(BATCHES, BLOCK_SIZES, ORIGINS)
def test_every_response_token_lies_on_the_grid_exactly_once(batch, block_size, origin):
    """With its id, position, step and weight, in order."""
    examples = examples_of(batch)
    grid = lay_on_grid(examples, block_size, PAD, origin)
    for row, example in enumerate(examples):
        valid = grid.valid_RKS[row]
        prompt, response = len(example.prompt_ids), len(example.response_ids)
        assert grid.ids_RKS[row][valid].tolist() == example.response_ids
        assert grid.position_RKS[row][valid].tolist() == list(range(prompt, prompt + response))
        assert grid.step_RKS[row][valid].tolist() == example.step_map
        assert grid.weight_RKS[row][valid].tolist() == example.token_weight
        takes_loss = grid.takes_loss_RKS[row]
        assert grid.position_RKS[row][takes_loss].tolist() == list(
            range(prompt, prompt + example.num_loss_tokens)
        )
    assert grid.sample_key_R.tolist() == [example.sample_key for example in examples]
    assert grid.epoch_R.tolist() == [example.epoch for example in examples]


@given(BATCHES, BLOCK_SIZES, ORIGINS)
def test_the_prompts_tail_is_visible_and_never_a_target(batch, block_size, origin):
    """Even if all that may be masked is masked. On the response grid no prompt token is in the noisy copy."""
    examples = examples_of(batch)
    grid = lay_on_grid(examples, block_size, PAD, origin)
    noisy = grid.ids_RKS.masked_fill(grid.valid_RKS, MASK)
    for row, example in enumerate(examples):
        prompt = len(example.prompt_ids)
        tail = prompt % block_size if origin == "prompt" else 0
        is_tail = grid.position_RKS[row] < prompt
        assert noisy[row][is_tail].tolist() == list(example.prompt_ids[prompt - tail :])
        assert grid.is_real_RKS[row][is_tail].all()
        assert not grid.valid_RKS[row][is_tail].any()
        assert not grid.takes_loss_RKS[row][is_tail].any()


@given(BATCHES, BLOCK_SIZES, ORIGINS)
def test_the_clean_copy_is_all_but_the_last_block(batch, block_size, origin):
    examples = examples_of(batch)
    grid = lay_on_grid(examples, block_size, PAD, origin)
    for row, example in enumerate(examples):
        ids = [*example.prompt_ids, *example.response_ids]
        written = written_sequence(len(example.prompt_ids), len(example.response_ids), block_size, origin)
        clean = [token for token in written if not token[2]]
        count = int(grid.num_clean_R[row])
        assert count == len(clean)
        assert grid.clean_ids_RC[row, :count].tolist() == ids[:count]
        assert (grid.clean_ids_RC[row, count:] == PAD).all()


# --- the joined sequence ------------------------------------------------------------------------------


@given(BATCHES, BLOCK_SIZES, ORIGINS, st.integers(0, 9))
def test_the_attention_mask_equals_the_written_rule(batch, block_size, origin, seed):
    """Brute force over all pairs of real tokens, whatever the padding; padding sees only itself."""
    grid = lay_on_grid(examples_of(batch), block_size, PAD, origin)
    joined = join_copies(grid, grid.ids_RKS, random_loss_mask(grid, seed))
    mask = training_mask(joined["block_ids"], joined["is_noisy"], joined["is_real"])
    assert mask.any(-1).all()
    for row, (prompt, response) in enumerate(batch):
        real = joined["is_real"][row]
        written = written_sequence(prompt, response, block_size, origin)
        positions, noisy = joined["position_ids"][row][real], joined["is_noisy"][row][real]
        assert list(zip(positions.tolist(), noisy.tolist(), strict=True)) == [(p, n) for p, _, n in written]
        expected = [
            [
                (key_block < block or (key_block == block and is_noisy == key_noisy))
                and (is_noisy or not key_noisy)
                and not (is_noisy and key_noisy and key_block != block)
                for _, key_block, key_noisy in written
            ]
            for _, block, is_noisy in written
        ]
        assert mask[row][real][:, real].tolist() == expected
        assert not mask[row][real][:, ~real].any()
        assert torch.equal(mask[row][~real], torch.eye(len(real), dtype=torch.bool)[~real])


@given(BATCHES, BLOCK_SIZES, ORIGINS, st.integers(0, 9))
def test_labels_are_the_response_ids_at_the_loss_positions(batch, block_size, origin, seed):
    examples = examples_of(batch)
    grid = lay_on_grid(examples, block_size, PAD, origin)
    loss_mask = random_loss_mask(grid, seed)
    joined = join_copies(grid, grid.ids_RKS.masked_fill(loss_mask, MASK), loss_mask)
    rows = joined["loss_row"].tolist()
    position = joined["position_ids"].flatten()[joined["loss_positions"]].tolist()
    index = [place - len(examples[row].prompt_ids) for row, place in zip(rows, position, strict=True)]
    assert joined["labels"].tolist() == [
        examples[row].response_ids[i] for row, i in zip(rows, index, strict=True)
    ]
    weights = [examples[row].token_weight[i] for row, i in zip(rows, index, strict=True)]
    assert joined["token_weight"].tolist() == weights
    assert joined["is_noisy"].flatten()[joined["loss_positions"]].all()
    assert joined["is_real"].flatten()[joined["loss_positions"]].all()
    assert (joined["input_ids"].flatten()[joined["loss_positions"]] == MASK).all()
    assert len(rows) == loss_mask.sum()
    assert rows == sorted(rows)


def logits_of(model, examples, block_size, origin, seed):
    """Loss logits of each row of a batch, in which about 60% of each row's tokens are masked."""
    grid = lay_on_grid(examples, block_size, PAD, origin)
    key = (grid.position_RKS * 7 + grid.sample_key_R[:, None, None] * 13 + seed * 31) % 10
    loss_mask = grid.valid_RKS & ((key < 6) | (grid.step_RKS % 1000 == 1))
    joined = join_copies(grid, grid.ids_RKS.masked_fill(loss_mask, MASK), loss_mask)
    with torch.no_grad():
        logits = loss_logits(model, joined)
    return [logits[joined["loss_row"] == row] for row in range(len(examples))]


@settings(max_examples=25)
@given(BATCHES, BLOCK_SIZES, ORIGINS, st.integers(0, 9))
def test_a_ragged_batch_gives_each_samples_own_logits(tiny_model, batch, block_size, origin, seed):
    """Padding and neighbours change nothing."""
    examples = examples_of(batch)
    together = logits_of(tiny_model, examples, block_size, origin, seed)
    for example, logits in zip(examples, together, strict=True):
        alone = logits_of(tiny_model, [example], block_size, origin, seed)[0]
        torch.testing.assert_close(logits, alone, atol=1e-6, rtol=0)


def test_the_pad_id_does_not_matter(tiny_model):
    examples = examples_of([(5, 3), (9, 10)])
    results = []
    for pad in (PAD, 39):
        grid = lay_on_grid(examples, 4, pad)
        joined = join_copies(grid, grid.ids_RKS.masked_fill(grid.valid_RKS, MASK), grid.valid_RKS)
        with torch.no_grad():
            results.append(loss_logits(tiny_model, joined))
    assert torch.equal(*results)


def test_loss_logits_are_the_full_logits_at_the_loss_positions(tiny_model):
    grid = lay_on_grid(examples_of([(5, 3), (9, 10)]), 4, PAD)
    loss_mask = random_loss_mask(grid, 0)
    joined = join_copies(grid, grid.ids_RKS.masked_fill(loss_mask, MASK), loss_mask)
    mask = training_mask(joined["block_ids"], joined["is_noisy"], joined["is_real"])
    with torch.no_grad():
        full = block_forward(tiny_model, joined["input_ids"], joined["position_ids"], mask)
        torch.testing.assert_close(
            loss_logits(tiny_model, joined), full.flatten(0, 1)[joined["loss_positions"]]
        )


def test_a_prompt_without_tokens_is_all_noisy_copy():
    grid = lay_on_grid(examples_of([(0, 3)]), 4, PAD)
    assert grid.clean_ids_RC.shape == (1, 0)
    assert grid.valid_RKS.int().tolist() == [[[1, 1, 1, 0]]]


@pytest.mark.parametrize(
    "changes",
    [{"step_map": [1]}, {"token_weight": [1.0]}, {"response_ids": [], "step_map": [], "token_weight": []}],
)
def test_an_example_whose_parts_do_not_match_is_refused(changes):
    fields = {
        "sample_key": 5,
        "epoch": 0,
        "prompt_ids": [1],
        "response_ids": [2, 3],
        "step_map": [1, 2],
        "token_weight": [1.0, 1.0],
        "num_loss_tokens": 1,
    }
    TrainingExample(**fields)
    with pytest.raises(ValueError, match="sample 5"):
        TrainingExample(**(fields | changes))
