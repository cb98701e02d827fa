"""The engine on a GPU equals the reference on the CPU, in float64."""

import copy

import pytest

from t3d.decoding.completion import DecodeRequest, completions_of
from t3d.decoding.engine import Engine, EngineConfig
from t3d.decoding.jobs import Job
from t3d.decoding.params import DecodeParams
from t3d.decoding.specification import decode_as_specified


@pytest.mark.gpu
@pytest.mark.parametrize("eager", [False, True])
def test_gpu_decoding_equals_the_cpu_reference(tiny_model, eager):
    """With CUDA graphs and without; more requests than slots, so that graphs of several shapes replay."""
    requests = [DecodeRequest(id=str(n), prompt_ids=tuple(range(1, n + 1))) for n in range(1, 10)]
    params = DecodeParams(steps_per_block=2, max_new_tokens=12, temperature=1.0)
    ids = {"mask_token_id": 37, "stop_token_ids": (0,)}
    config = EngineConfig(max_batch_size=4, enforce_eager=eager)
    engine = Engine(copy.deepcopy(tiny_model).to("cuda"), config=config, **ids)
    on_gpu = completions_of(requests, engine.decode([Job(request, params) for request in requests]))
    assert on_gpu == [decode_as_specified(tiny_model, request, params, **ids) for request in requests]
