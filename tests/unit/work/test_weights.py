"""Which weights are numbers."""

import math

import pytest
import torch

from t3d.work.weights import first_not_finite


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_first_weight_that_is_not_finite_is_named(dtype, value):
    weights = {name: torch.ones(3, 5, dtype=dtype) for name in ("a", "b", "c")}
    assert first_not_finite(weights.items()) is None
    for name in ("c", "b"):
        weights[name][1, 4] = value
        assert first_not_finite(weights.items()) == name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_large_weights_are_finite_though_their_sum_is_not(dtype):
    large = torch.full((8,), torch.finfo(dtype).max, dtype=dtype)
    assert (
        first_not_finite(
            [
                ("large", large),
                ("negative", -large),
                ("empty", large[:0]),
                ("quantized", torch.ones(2, dtype=torch.uint8)),
            ]
        )
        is None
    )
