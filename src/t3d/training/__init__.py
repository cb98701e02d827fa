"""Distillation: method = state source x objective, on transformers' Trainer."""

from t3d.training.config import T3DConfig
from t3d.training.trainer import T3DTrainer

__all__ = ["T3DConfig", "T3DTrainer"]
