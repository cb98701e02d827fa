"""Which linear layers of a model low-rank adapters act on, by the end of their names."""

from collections.abc import Sequence

from torch import nn

from t3d.errors import InputError

HEADS = ("lm_head", "embed_tokens")
"""The loss reads their weights, without an adapter."""
ATTENTION_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj")
TARGET_MODULES = (*ATTENTION_MODULES, "gate_proj", "up_proj", "down_proj")


def linear_layers(model: nn.Module, names: Sequence[str]) -> dict[str, nn.Linear]:
    """The linear layers whose names end in one of ``names``, by their whole names.

    Raises InputError for a name that no layer has (the experts of a mixture are no layers of their own).
    """
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    unknown = [one for one in names if not any(f".{name}".endswith(f".{one}") for name in linear)]
    if unknown:
        usable = sorted({name.rpartition(".")[2] for name in linear}.difference(HEADS))
        problem = f"the model has no linear layer {', '.join(unknown)}"
        raise InputError("target_modules", names, problem, f"choose from {', '.join(usable)}")
    ends = tuple(f".{one}" for one in names)
    return {name: module for name, module in linear.items() if f".{name}".endswith(ends)}
