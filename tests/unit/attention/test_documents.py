"""Attention document by document equals SDPA under the dense mask."""

import pytest
import torch
from grid_helpers import MASK, PAD, examples_of
from hypothesis import given, settings
from hypothesis import strategies as st
from packing_helpers import loss_logits

from t3d.attention.document_plan import plan_documents
from t3d.training.block_grid import lay_on_grid
from t3d.training.packing import pack_copies

LENGTHS = st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=6)


def packed(lengths, block_size, max_length=None):
    grid = lay_on_grid(examples_of(lengths), block_size, PAD)
    noisy_ids = grid.ids_RKS.masked_fill(grid.valid_RKS, MASK)
    return pack_copies(grid, noisy_ids, grid.valid_RKS, max_length=max_length)


def gradients(model, batch, attention):
    model.zero_grad()
    logits = loss_logits(model, batch, attention)
    logits.logsumexp(-1).sum().backward()
    return logits.detach(), torch.cat([weight.grad.flatten() for weight in model.parameters()])


@settings(max_examples=30)
@given(LENGTHS, st.sampled_from([1, 4, 8]), st.sampled_from([None, 80]), st.sampled_from([1, 2, 4]))
def test_logits_and_gradients_equal_those_of_the_dense_mask(make_model, lengths, block_size, max_length, kv):
    """Ragged groups, single documents, any sharing of heads, rows with padding; no gradient is NaN."""
    model = make_model(num_key_value_heads=kv)
    batch = packed(lengths, block_size, max_length)
    for ours, theirs in zip(
        gradients(model, batch, "documents"), gradients(model, batch, "dense"), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-9)


def test_gradient_checkpointing_runs_the_same_attention_again(make_model):
    model = make_model()
    batch = packed([(5, 9), (12, 3)], 4)
    _, expected = gradients(model, batch, "documents")
    model.train()
    model.activation_checkpointing_enable()
    _, recomputed = gradients(model, batch, "documents")
    torch.testing.assert_close(recomputed, expected)


def test_documents_of_similar_lengths_share_a_call_and_others_do_not():
    batch = packed([(8, 100), (9, 99), (8, 8), (7, 9)], 4)
    plan = plan_documents(batch["documents"], batch["document_ids"], batch["block_ids"], 4)
    assert [group.num_documents for group in plan.groups] == [2, 2]
    padded = sum(group.num_documents * (group.num_clean + group.num_noisy) for group in plan.groups)
    assert padded <= 1.15 * batch["documents"][:, 1:].sum()


def test_one_document_is_read_in_place():
    batch = packed([(8, 100)], 4)
    plan = plan_documents(batch["documents"], batch["document_ids"], batch["block_ids"], 4)
    assert isinstance(plan.groups[0].tokens, slice)
    assert plan.place_T is None


@pytest.mark.parametrize("attention", ["dense", "documents"])
def test_layers_run_again_by_a_late_backward_use_their_forwards_attention(make_model, attention):
    """Its own and its own plan, though a forward with another attention over another batch came between."""
    model, batch, other = make_model(), packed([(5, 9), (12, 3)], 4), packed([(8, 8)], 4)
    _, expected = gradients(model, batch, attention)
    model.zero_grad()
    model.train()
    model.activation_checkpointing_enable()
    total = loss_logits(model, batch, attention).logsumexp(-1).sum()
    loss_logits(model, other, "documents" if attention == "dense" else "dense")
    total.backward()
    recomputed = torch.cat([weight.grad.flatten() for weight in model.parameters()])
    torch.testing.assert_close(recomputed, expected)


def test_bfloat16_scores_are_reduced_in_float32(make_model):
    model = make_model(dtype=torch.bfloat16)
    batch = packed([(8, 20), (9, 18)], 4)
    logits = {name: loss_logits(model, batch, name) for name in ("documents", "dense")}
    assert logits["documents"].dtype == torch.bfloat16
    torch.testing.assert_close(logits["documents"], logits["dense"], atol=0.15, rtol=0.1)
