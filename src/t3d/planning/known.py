"""Shapes of published SDAR checkpoints, so that a plan needs no download.

SDAR keeps the network of the Qwen3 of the same size: layers and widths are those of Qwen3's config.json. That
the head of the 4B model is not tied to the embedding is said by its config.json; of the 1.7B model that is
taken over, and has not been checked (tied, it has 0.31 billion parameters less).
"""

from functools import cache
from typing import Any

from t3d.models.sdar import SDARConfig
from t3d.planning.shape import Shape, shape_of

_COMMON = {"num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151_936}
PUBLISHED: dict[str, dict[str, int]] = {
    "JetLM/SDAR-1.7B-Chat": {
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        **_COMMON,
    },
    "JetLM/SDAR-4B-Chat": {
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        **_COMMON,
    },
    "JetLM/SDAR-8B-Chat": {
        "hidden_size": 4096,
        "intermediate_size": 12_288,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        **_COMMON,
    },
}
"""Fields of the config by hub id."""


@cache
def published_shape(name: str) -> Shape:
    """The shape of one of them."""
    fields: dict[str, Any] = PUBLISHED[name]
    return shape_of(SDARConfig(**fields, tie_word_embeddings=False))
