"""The parts of a checkpoint, each read on its own: config, generation config, tokenizer, weights."""

from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from t3d.errors import InputError
from t3d.models.adopted import ARCHITECTURES, MODEL_TYPES
from t3d.models.checkpoint import Checkpoint
from t3d.models.config_fields import check_fields
from t3d.models.own_settings import KEY, tell

_UNTRUE = (
    *(ValueError, TypeError, AttributeError, LookupError, ArithmeticError, AssertionError),
    StrictDataclassError,
)
"""What transformers raises at an untrue config: wrong types, unknown names, sizes that are none."""


def load_weights(network: Any, source: str, **options: Any) -> Any:
    """``network.from_pretrained`` of a source whose weights are all there and no others.

    Raises InputError if they are not, or if transformers cannot load them.
    """
    try:
        model, report = network.from_pretrained(source, output_loading_info=True, **options)
    except (OSError, RuntimeError, ImportError, SafetensorError, *_UNTRUE) as error:
        problem = f"cannot be loaded ({_said(error)})"
        fix = "give a complete checkpoint folder, its config.json as it was saved, its weights as safetensors"
        raise InputError("model", source, problem, fix) from error
    unfit = sorted(report["missing_keys"]) + sorted(report["unexpected_keys"])
    if unfit:
        problem = f"its weights do not fit the network: {', '.join(unfit[:4])}"
        raise InputError("model", source, problem, "give a complete checkpoint of that architecture")
    declare_head(model)
    return model


def declare_head(model: PreTrainedModel) -> None:
    """Say in the config whether the head is the embedding: transformers does not tie weights that differ,
    whatever the config says, but its version 4 would drop the head of a model saved like that."""
    if (model._tp_size or 1) > 1:
        return  # each process has parts of its own of a matrix that is one
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    model.config.tie_word_embeddings = head.weight is embedding.weight


def read_tokenizer(checkpoint: Checkpoint) -> PreTrainedTokenizerBase:
    """The tokenizer alone. Raises InputError if there is none to load."""
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint.source, **checkpoint.options)
    except (OSError, ValueError, RuntimeError) as error:
        problem = f"its tokenizer cannot be loaded ({str(error).splitlines()[0]})"
        fix = "give a folder with a fast tokenizer"
        raise InputError("model", checkpoint.source, problem, fix) from error
    return tokenizer


def read_config(checkpoint: Checkpoint) -> PreTrainedConfig:
    """Its config, checked where the architecture is known here. Raises InputError for what cannot be."""
    if checkpoint.fields.get("model_type") in (*MODEL_TYPES, *ARCHITECTURES):
        check_fields(checkpoint.source, checkpoint.fields)
    try:
        return checkpoint.config()
    except (OSError, *_UNTRUE) as error:
        problem = f"its config cannot be read ({_said(error)})"
        fix = "give a checkpoint folder, or a hub id such as org/name"
        raise InputError("model", checkpoint.source, problem, fix) from error


def _said(error: Exception) -> str:
    """The error in one line; those of few words have their kind, too (``KeyError: 'nope'``)."""
    text = " ".join(str(error).split())[:200]
    return (
        text if isinstance(error, OSError | ValueError | RuntimeError) else f"{type(error).__name__}: {text}"
    )


def read_generation_config(checkpoint: Checkpoint) -> GenerationConfig | None:
    """Its generation config, if it has one."""
    try:
        found = GenerationConfig.from_pretrained(checkpoint.source, **checkpoint.options)
    except OSError:
        return None
    raw = checkpoint.json_file("generation_config.json") or {}
    if KEY in raw:
        tell(found, raw[KEY])
    return found
