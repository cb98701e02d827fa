"""Running a model under an explicit mask."""

import pytest
import torch

from t3d.attention.forward import block_forward
from t3d.attention.masks import block_causal_mask


def block_causal(rows, length, block_size):
    position = torch.arange(length).expand(rows, -1)
    return position, block_causal_mask(
        position, position, torch.ones(rows, length, dtype=torch.bool), block_size
    )


def test_block_size_one_is_ordinary_causal_attention(tiny_model):
    ids = torch.randint(0, 40, (2, 7))
    position, mask = block_causal(2, 7, 1)
    with torch.no_grad():
        causal = tiny_model(input_ids=ids).logits
        torch.testing.assert_close(block_forward(tiny_model, ids, position, mask), causal)


@pytest.mark.parametrize("positions", [[0], [13, 2, 2, 5], [], list(range(14))])
def test_logit_positions_gather_from_the_full_logits(tiny_model, positions):
    """Indices into the flattened rows x positions, in the given order, repeats allowed."""
    ids = torch.randint(0, 40, (2, 7))
    position, mask = block_causal(2, 7, 4)
    index = torch.tensor(positions, dtype=torch.int64)
    with torch.no_grad():
        full = block_forward(tiny_model, ids, position, mask)
        chosen = block_forward(tiny_model, ids, position, mask, logit_positions=index)
    assert full.shape == (2, 7, 40) and chosen.shape == (len(positions), 40)
    torch.testing.assert_close(chosen, full.flatten(0, 1)[index])


def test_the_mask_decides_what_a_token_sees(tiny_model):
    """Changing a token changes exactly the logits of its own and later blocks."""
    ids = torch.randint(0, 40, (1, 12))
    position, mask = block_causal(1, 12, 4)
    changed = ids.clone()
    changed[0, 6] = (ids[0, 6] + 1) % 40
    with torch.no_grad():
        before = block_forward(tiny_model, ids, position, mask)
        difference = (before - block_forward(tiny_model, changed, position, mask)).abs().amax(-1)[0]
    assert (difference[:4] == 0).all()
    assert (difference[4:] > 1e-3).all()


def test_logits_are_peaked_and_differ_between_positions(tiny_model):
    """What makes the other tests sharp."""
    ids = torch.randint(0, 40, (1, 12))
    position, mask = block_causal(1, 12, 4)
    with torch.no_grad():
        logits = block_forward(tiny_model, ids, position, mask)[0]
    assert logits.softmax(-1).amax(-1).mean() > 0.15
    assert len(set(logits.argmax(-1).tolist())) > 3


def test_gradients_reach_every_weight(make_model):
    model = make_model()
    ids = torch.randint(0, 40, (2, 8))
    position, mask = block_causal(2, 8, 4)
    block_forward(model, ids, position, mask, logit_positions=torch.arange(16)).logsumexp(-1).sum().backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in model.parameters())
