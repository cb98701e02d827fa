"""t3d: few-step diffusion language models by trajectory self-distillation.

A name is imported when it is first used: ``t3d --help`` needs no torch. So ``import t3d`` alone does not
register the SDAR classes with transformers' Auto classes; ``import t3d.models`` does.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from t3d.decoding.completion import Completion, DecodingError
    from t3d.decoding.llm import LLM
    from t3d.decoding.params import DecodeParams
    from t3d.errors import InputError
    from t3d.models.loading import LoadedModel, load_model
    from t3d.models.sdar import SDARConfig, SDARForCausalLM
    from t3d.trajectory import Trajectory, read_trajectories, write_trajectories

__all__ = [
    "LLM",
    "Completion",
    "DecodeParams",
    "DecodingError",
    "InputError",
    "LoadedModel",
    "SDARConfig",
    "SDARForCausalLM",
    "Trajectory",
    "load_model",
    "read_trajectories",
    "write_trajectories",
]
_MODULES = {
    "decoding.completion": ("Completion", "DecodingError"),
    "decoding.llm": ("LLM",),
    "decoding.params": ("DecodeParams",),
    "errors": ("InputError",),
    "models.loading": ("LoadedModel", "load_model"),
    "models.sdar": ("SDARConfig", "SDARForCausalLM"),
    "trajectory": ("Trajectory", "read_trajectories", "write_trajectories"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"t3d.{module}"), name)
    raise AttributeError(f"module 't3d' has no attribute {name!r}")
