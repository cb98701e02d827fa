"""Distillation: method = state source x objective, on transformers' Trainer.

As in :mod:`t3d`, a name is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from t3d.training.config import T3DConfig
    from t3d.training.trainer import T3DTrainer

__all__ = ["T3DConfig", "T3DTrainer"]
_MODULES = {"T3DConfig": "config", "T3DTrainer": "trainer"}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"t3d.training.{_MODULES[name]}"), name)
    raise AttributeError(f"module 't3d.training' has no attribute {name!r}")
