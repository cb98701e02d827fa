"""Responses cut into blocks."""

import pytest
from grid_helpers import BATCHES, BLOCK_SIZES, MASK, ORIGINS, PAD, examples_of, written_sequence
from hypothesis import given

from t3d.training.block_grid import TrainingExample, lay_on_grid

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
