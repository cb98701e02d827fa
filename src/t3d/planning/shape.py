"""What memory and time depend on of a network, counted on the meta device: no weight is made or read."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig

import t3d.models.adopted  # noqa: F401  (registers the classes)
from t3d.errors import InputError
from t3d.models.linear_layers import linear_layers


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A network's widths and its exact numbers of parameters."""

    num_layers: int
    hidden_size: int
    mlp_width: int
    """Of what a token visits: of a mixture, the widths of its experts together."""
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    is_tied: bool
    """The head is the embedding."""
    num_parameters: int
    num_tensors: int
    """Of parameters: an optimizer keeps a count for each."""
    layer_parameters: int
    """Of one layer."""
    visited_parameters: int
    """Of all layers and the last norm, those that a token is multiplied with; without embedding and head."""
    experts_per_token: int
    """0 without a mixture."""
    adapter_widths: tuple[tuple[str, int], ...]
    """Inputs plus outputs of the linear layers by the end of their names, over all layers: an adapter has as
    many parameters per rank."""

    @property
    def query_width(self) -> int:
        """Of all query heads of a layer."""
        return self.num_heads * self.head_dim

    @property
    def key_width(self) -> int:
        """Of all key heads of a layer, and of all value heads."""
        return self.num_kv_heads * self.head_dim

    @property
    def table_parameters(self) -> int:
        """Of the embedding, and of the head."""
        return self.vocab_size * self.hidden_size

    def adapter_parameters(self, rank: int, modules: Sequence[str]) -> int:
        """Of a low-rank adapter. Raises InputError for a layer that is not there."""
        widths = dict(self.adapter_widths)
        unknown = [name for name in modules if name not in widths]
        if unknown:
            problem = f"the model has no linear layer {', '.join(unknown)}"
            raise InputError("lora_target_modules", modules, problem, f"choose from {', '.join(widths)}")
        return rank * sum(widths[name] for name in modules)


def shape_of(config: PreTrainedConfig) -> Shape:
    """The shape of a config of a model of ours, which is built without its weights."""
    with torch.device("meta"):
        return shape_of_model(AutoModelForCausalLM.from_config(config))


def shape_of_model(model: Any) -> Shape:
    """The shape of a model, on whatever device."""
    config, layers = model.config, model.model.layers
    counts = {name: weight.numel() for name, weight in model.named_parameters()}
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    tables = embedding.numel() + (0 if head is embedding else head.numel())
    num_experts = getattr(config, "num_experts", 0)
    chosen = config.num_experts_per_tok if num_experts else 0
    experts = sum(count for name, count in counts.items() if ".experts." in name)
    unvisited = round(experts * (1 - chosen / num_experts)) if num_experts else 0
    total = sum(counts.values())
    width = chosen * config.moe_intermediate_size if num_experts else config.intermediate_size
    return Shape(
        num_layers=len(layers),
        hidden_size=config.hidden_size,
        mlp_width=width,
        num_heads=config.num_attention_heads,
        num_kv_heads=config.num_key_value_heads,
        head_dim=config.head_dim,
        vocab_size=config.vocab_size,
        is_tied=head is embedding,
        num_parameters=total,
        num_tensors=len(counts),
        layer_parameters=max(sum(weight.numel() for weight in layer.parameters()) for layer in layers),
        visited_parameters=total - tables - unvisited,
        experts_per_token=chosen,
        adapter_widths=_adapter_widths(model),
    )


def _adapter_widths(model: nn.Module) -> tuple[tuple[str, int], ...]:
    names = {name.rpartition(".")[2] for name, part in model.named_modules() if isinstance(part, nn.Linear)}
    widths: Counter[str] = Counter()
    for name, layer in linear_layers(model, sorted(names - {"lm_head"})).items():
        widths[name.rpartition(".")[2]] += layer.in_features + layer.out_features
    return tuple(sorted(widths.items()))
