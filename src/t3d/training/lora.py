"""Low-rank adapters by the PEFT library: train a small addition to frozen weights."""

import copy
import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.utils import is_peft_available

from t3d.errors import InputError
from t3d.models.gated import ALPHA, GatedAdapter, refuse_gated
from t3d.models.linear_layers import TARGET_MODULES, linear_layers


def is_adapted(model: Any) -> bool:
    """Whether a model is a ``peft.PeftModel``."""
    return is_peft_available() and isinstance(model, _import_peft().PeftModel)


def base_of(model: Any) -> PreTrainedModel:
    """The transformers model inside a PEFT model or under a gated adapter, or the model itself."""
    if isinstance(model, GatedAdapter):
        return model.base
    return model.get_base_model() if is_adapted(model) else model


def student_adapter(model: Any) -> str:
    """Name of the adapter that is being trained. Raises InputError unless exactly one is active."""
    if len(model.active_adapters) != 1:
        problem = "not one active adapter"
        raise InputError("adapters", model.active_adapters, problem, "call set_adapter with the one to train")
    return model.active_adapters[0]


def add_adapter(
    model: nn.Module,
    rank: int,
    *,
    alpha: float = ALPHA,
    dropout: float = 0.0,
    target_modules: Sequence[str] = TARGET_MODULES,
) -> nn.Module:
    """A ``peft.PeftModel`` with a new adapter that changes nothing yet; only the adapter is trainable.

    The layers of ``model`` are wrapped in place; :func:`merge_adapter` gives a plain model again. Raises
    InputError without PEFT, for a model that has an adapter, and for layers that the model does not have
    (the experts of a mixture are no layers of their own).
    """
    peft = _import_peft()
    refuse_gated(model, "adapted once more")
    if is_adapted(model) or any(".lora_" in name for name, _ in model.named_parameters()):
        raise InputError(
            "model", type(model).__name__, "has an adapter already", "train that, or merge it first"
        )
    linear_layers(model, target_modules)
    config = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=list(target_modules),
    )
    return peft.get_peft_model(model, config)


def merge_adapter(model: nn.Module) -> PreTrainedModel:
    """A plain model, in CPU memory, whose weights contain the student's adapter: what an export holds.

    Other adapters are dropped. ``model`` stays as it is and shares nothing with the result. Raises
    InputError for a model without an adapter, and for a gated one.
    """
    refuse_gated(model, "merged")
    if not is_adapted(model):
        raise InputError("model", type(model).__name__, "has no adapter to merge", "export it as it is")
    on_cpu: dict[int, Any] = {
        id(weight): nn.Parameter(weight.detach().cpu().clone()) for weight in model.parameters()
    }
    on_cpu |= {id(buffer): buffer.detach().cpu().clone() for buffer in model.buffers()}
    wrapped: Any = copy.deepcopy(model, on_cpu)  # deepcopy takes the tensors from here
    return wrapped.merge_and_unload(adapter_names=[student_adapter(model)]).eval()


def merge_in_place(model: Any) -> PreTrainedModel:
    """The same for a model that processes share, which cannot be copied: each merges its part of what
    :func:`add_adapter` was given, in place. To be called on every process."""
    return model.merge_and_unload(adapter_names=[student_adapter(model)]).requires_grad_(True)


def remove_adapter(model: Any) -> PreTrainedModel:
    """The model that :func:`add_adapter` was given, in place, as it was before."""
    return model.unload().requires_grad_(True)


def _import_peft() -> ModuleType:
    try:
        return importlib.import_module("peft")
    except ImportError as error:
        problem = f"an adapter needs this package ({error})"
        raise InputError("peft", "absent", problem, "pip install t3d[peft]") from error
