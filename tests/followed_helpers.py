"""A process that shares a model with another one, of which one does not do as the other does.

``python tests/followed_helpers.py CHECKPOINT RANK [HOW]`` decodes two prompts; its last line is
never reached.
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


def load(folder: str, rank: str, how: str = "raises") -> LoadedModel:
    """Load a share of the model. The process of this rank raises in every forward behind the first, or
    sees other logits than the others, or cannot load."""
    is_the_one = os.environ["RANK"] == rank
    loaded = load_model(folder, device="cpu", dtype="float64", tp_plan="auto")
    if is_the_one and how == "cannot load":
        raise RuntimeError("no weights here")
    real, calls = Engine._step, list[int]()

    def step(self, *given):
        calls.append(1)
        if len(calls) > 1 and is_the_one:
            raise RuntimeError("raised by one")
        return real(self, *given)

    if how == "raises":
        Engine._step = step
    elif is_the_one:
        loaded.model.lm_head.register_forward_hook(lambda _module, _given, logits: -logits)
    return loaded


if __name__ == "__main__":
    from followed_helpers import load as load_here  # so that another process can import it

    followers.SECONDS_TO_AGREE = 5.0
    llm = LLM(followers.load_shared(partial(load_here, *sys.argv[1:]), 2, 1))
    print("loaded", flush=True)
    llm.generate(["how many apples", "now?"], DecodeParams(max_new_tokens=12), progress=False)
    print("decoded", flush=True)
