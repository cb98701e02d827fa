"""The grouped matmul attention equals SDPA, in values and gradients, for grouped and single heads."""

import pytest
import torch

from t3d.models.attention import GROUPED_MATMUL
from t3d.models.forward import block_forward
from t3d.models.masks import block_causal_mask


@pytest.mark.parametrize("num_key_value_heads", [1, 2, 4])
def test_grouped_matmul_equals_sdpa_in_logits_and_gradients(make_model, num_key_value_heads):
    position = torch.arange(14).expand(3, -1)
    ids = (position * torch.tensor([[1], [5], [7]])) % 30
    is_real = position < torch.tensor([[14], [9], [5]])
    mask = block_causal_mask(position, position, is_real, 4)
    outcomes = []
    for name in ("sdpa", GROUPED_MATMUL):
        model = make_model(num_key_value_heads=num_key_value_heads)
        model.set_attn_implementation(name)
        logits = block_forward(model, ids, position, mask)
        logits[is_real].pow(2).sum().backward()
        outcomes.append([logits.detach(), *(parameter.grad for parameter in model.parameters())])
    for expected, found in zip(*outcomes, strict=True):
        torch.testing.assert_close(found, expected)


def test_bfloat16_scores_are_reduced_in_float32(make_model):
    position = torch.arange(12)[None]
    mask = block_causal_mask(position, position, torch.ones_like(position, dtype=torch.bool), 4)
    logits = {}
    for name in ("sdpa", GROUPED_MATMUL):
        model = make_model(dtype=torch.bfloat16)
        model.set_attn_implementation(name)
        logits[name] = block_forward(model, position % 30, position, mask)
        assert logits[name].dtype == torch.bfloat16
    torch.testing.assert_close(logits["sdpa"], logits[GROUPED_MATMUL], atol=0.15, rtol=0.1)
