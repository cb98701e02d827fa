"""t3d: few-step diffusion language models by trajectory self-distillation.

Importing it registers the SDAR classes with transformers' Auto classes and does nothing else.
"""

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
