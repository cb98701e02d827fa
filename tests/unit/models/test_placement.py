"""Devices: training takes the first GPU and says so of any other."""

import pytest
import torch

from t3d.errors import InputError
from t3d.model_choice import require_training_device
from t3d.models import placement
from t3d.models.placement import fast_dtype


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:0"])
def test_training_takes_the_cpu_and_the_first_gpu(device):
    require_training_device(device)


def test_training_on_another_gpu_is_refused_with_the_way_to_have_it():
    with pytest.raises(InputError, match="use device=cuda with CUDA_VISIBLE_DEVICES=3"):
        require_training_device("cuda:3")


@pytest.mark.parametrize(("has_bfloat16", "dtype"), [(True, "bfloat16"), (False, "float32")])
def test_the_fast_dtype_is_bfloat16_where_the_processor_multiplies_it(monkeypatch, has_bfloat16, dtype):
    monkeypatch.setattr(placement, "cpu_has_bfloat16", lambda: has_bfloat16)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **how: has_bfloat16)
    assert fast_dtype(torch.device("cpu")) == fast_dtype(torch.device("cuda")) == dtype
    assert fast_dtype(torch.device("mps")) == "float32"
