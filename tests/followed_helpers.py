"""A process that shares a model with another one, of which one raises where the other goes on.

``python tests/followed_helpers.py CHECKPOINT RANK`` decodes two prompts, and never gets to its last line.
"""

import os
import sys
from functools import partial

import pytest
import torch

from t3d.decoding.engine import Engine
from t3d.decoding.llm import LLM
from t3d.decoding.params import DecodeParams
from t3d.models.loading import LoadedModel, load_model
from t3d.scale import followers

NEEDS_GLOO_ON_CPUS = pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available())
    or torch.accelerator.current_accelerator() is not None,
    reason="needs gloo, and a PyTorch built for CPUs alone",
)


def load(folder: str, failing_rank: str) -> LoadedModel:
    """Load a share of the model; in the process of this rank, let every forward behind the first raise."""
    if os.environ["RANK"] == failing_rank:
        real, calls = Engine._step, list[int]()

        def step(self, *given):
            calls.append(1)
            if len(calls) > 1:
                raise RuntimeError("raised by one")
            return real(self, *given)

        Engine._step = step
    return load_model(folder, device="cpu", dtype="float64", tp_plan="auto")


if __name__ == "__main__":
    from followed_helpers import load as load_here  # so that another process can import it

    followers.SECONDS_TO_AGREE = 5.0
    llm = LLM(followers.load_shared(partial(load_here, *sys.argv[1:]), 2, 1))
    print("loaded", flush=True)
    llm.generate(["how many apples", "now?"], DecodeParams(max_new_tokens=12), progress=False)
    print("decoded", flush=True)
