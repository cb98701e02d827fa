"""Training examples of random ids, and the rule of the training sequence in words."""

import torch
from hypothesis import strategies as st

from t3d.training.block_grid import TrainingExample

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
