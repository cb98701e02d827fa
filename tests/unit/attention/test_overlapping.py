"""Forwards over one model that overlap in time, as those of several threads do."""

import pytest
import torch
from grid_helpers import MASK, PAD, examples_of
from packing_helpers import loss_logits
from slot_helpers import extend

from t3d.attention.forward import block_forward
from t3d.attention.masks import block_causal_mask
from t3d.attention.slots import SlotCache
from t3d.models.sdar import BY_ARGUMENT
from t3d.training.block_grid import lay_on_grid
from t3d.training.packing import pack_copies


def extended(model):
    return torch.cat(extend(model, SlotCache(2, 8), [(0, 0, [1, 2, 3, 4]), (1, 0, [5, 6, 7, 8])]))


def masked(model):
    ids, position = torch.arange(8)[None], torch.arange(8)[None]
    mask = block_causal_mask(position, position, torch.ones_like(position, dtype=torch.bool), 4)
    return block_forward(model, ids, position, mask)


def packed(attention):
    grid = lay_on_grid(examples_of([(5, 9), (12, 3)]), 4, PAD)
    batch = pack_copies(grid, grid.ids_RKS.masked_fill(grid.valid_RKS, MASK), grid.valid_RKS)
    return lambda model: loss_logits(model, batch, attention)


def causal(model):
    return model(input_ids=torch.arange(8)[None]).logits


FORWARDS = {
    "extended": extended,
    "masked": masked,
    "dense": packed("dense"),
    "documents": packed("documents"),
    "causal": causal,
}


@pytest.mark.parametrize("inner", FORWARDS)
@pytest.mark.parametrize("outer", FORWARDS)
@torch.no_grad()
def test_a_forward_that_begins_and_ends_inside_another_changes_neither(make_model, outer, inner):
    """The inner one runs between the outer one's layers: what any interleaving of two threads comes to."""
    model = make_model()
    expected, expected_inside = FORWARDS[outer](model), FORWARDS[inner](model)
    inside = []

    def interleave(*_):
        if not inside:
            inside.append(None)
            inside[0] = FORWARDS[inner](model)

    hook = model.model.layers[0].register_forward_pre_hook(interleave)
    assert torch.equal(FORWARDS[outer](model), expected)
    assert torch.equal(inside[0], expected_inside)
    hook.remove()


@pytest.mark.parametrize("name", ["eager", "sdpa"])
def test_an_attention_set_on_the_model_is_named_instead_of_used(make_model, name):
    model = make_model()
    model.set_attn_implementation(name)
    with pytest.raises(ValueError, match=rf"was set to '{name}'.*set_attn_implementation\('{BY_ARGUMENT}'\)"):
        masked(model)
    model.set_attn_implementation(BY_ARGUMENT)
    masked(model)
