"""Devices: training takes the first GPU and says so of any other."""

import pytest

from t3d.errors import InputError
from t3d.models.placement import require_training_device


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:0"])
def test_training_takes_the_cpu_and_the_first_gpu(device):
    require_training_device(device)


def test_training_on_another_gpu_is_refused_with_the_way_to_have_it():
    with pytest.raises(InputError, match="use device=cuda with CUDA_VISIBLE_DEVICES=3"):
        require_training_device("cuda:3")
