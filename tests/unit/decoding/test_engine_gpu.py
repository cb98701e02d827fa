"""The engine on a GPU equals the reference on the CPU, in float64."""

import copy

import pytest

from t3d.decoding.completion import DecodeRequest
from t3d.decoding.engine import EngineConfig, decode
from t3d.decoding.params import DecodeParams
from t3d.decoding.reference import decode_reference


@pytest.mark.gpu
@pytest.mark.parametrize("eager", [False, True])
def test_gpu_decoding_equals_the_cpu_reference(tiny_model, eager):
    """With CUDA graphs and without; more requests than slots, so that graphs of several shapes replay."""
    requests = [DecodeRequest(id=str(n), prompt_ids=tuple(range(1, n + 1))) for n in range(1, 10)]
    params = DecodeParams(steps_per_block=2, max_new_tokens=12, temperature=1.0)
    ids = {"mask_token_id": 37, "stop_token_ids": (0,)}
    config = EngineConfig(max_batch_size=4, enforce_eager=eager)
    on_gpu = decode(copy.deepcopy(tiny_model).to("cuda"), requests, params, config=config, **ids)
    assert on_gpu == [decode_reference(tiny_model, request, params, **ids) for request in requests]
