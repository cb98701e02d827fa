"""What the ``config.json`` of a block-diffusion model may say, checked before transformers builds from it.

transformers takes some untrue values as they come (no positions, blocks of no tokens, heads in odd groups, an
attention that ours is not) and refuses others in its own words, which do not name the field.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedConfig, Qwen3MoeConfig
from transformers.activations import ACT2FN
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

from t3d.errors import InputError
from t3d.models.sdar import SDARMoeConfig

_COUNTS = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
_COUNTS += ("num_key_value_heads", "head_dim", "max_position_embeddings", "block_size")
_COUNTS += ("num_experts", "num_local_experts", "num_experts_per_tok", "moe_intermediate_size")
_SWITCHES = ("tie_word_embeddings", "use_sliding_window", "attention_bias", "use_cache", "norm_topk_prob")
_ROPE_TYPES = ("default", "linear", "dynamic", "yarn", "llama3")
"""Those whose frequencies no other request of a batch changes."""
_MIXTURES = (SDARMoeConfig.model_type, Qwen3MoeConfig.model_type)
"""In a mixture of experts every layer has the window."""
_ROPE_SCALED = _ROPE_TYPES[1:]
_CORRECT = "correct it, or copy config.json from where the weights are from"
_FIRST_LAYER, _EMBEDDING = "model.layers.0.", "model.embed_tokens.weight"
_AXIS_OF_SIZE = {
    "vocab_size": (_EMBEDDING, 0),
    "hidden_size": (_EMBEDDING, 1),
    "head_dim": (f"{_FIRST_LAYER}self_attn.q_norm.weight", 0),
    "intermediate_size": (f"{_FIRST_LAYER}mlp.gate_proj.weight", 0),
}
"""The weight, and its axis, that has the size of a field."""
_HEADS = {"num_attention_heads": "q_proj", "num_key_value_heads": "k_proj"}


def check_fields(source: str, fields: Mapping[str, Any]) -> None:
    """Raise InputError for the first field whose value cannot be; what is null or missing passes."""
    given = {name: value for name, value in fields.items() if value is not None}
    for name in _COUNTS:
        _require(source, given, name, _is_count, "not a whole number of 1 or more", _CORRECT)
    for name in _SWITCHES:
        fix = "write true or false, without quotes"
        _require(source, given, name, lambda value: isinstance(value, bool), "neither true nor false", fix)
    _require(source, given, "rms_norm_eps", _is_above_zero, "not a number above 0", "write for example 1e-06")
    _require(source, given, "attention_dropout", _is_share, "not a number in [0, 1)", _CORRECT)
    _require(
        source, given, "return_dict", lambda value: value is True, "outputs have names here", "delete it"
    )
    _check_names(source, given)
    _check_heads_and_blocks(source, given)
    _check_rope(source, given)
    _check_windows(source, given)


def check_sizes(source: str, config: PreTrainedConfig, shapes: Mapping[str, Sequence[int]]) -> None:
    """Raise InputError for a size that the weights, whose shapes go by name, do not have."""
    told = vars(config)
    head_dim = told.get("head_dim") or told["hidden_size"] // told["num_attention_heads"]
    for name, size in _sizes(shapes, head_dim).items():
        value = head_dim if name == "head_dim" else told.get(name)
        if value != size:
            fix = f"write {size}, or give the weights that belong to this config"
            raise _untrue(source, name, value, f"its weights have {size}", fix)
    kinds, depth = told.get("layer_types"), told["num_hidden_layers"]
    if kinds is not None and len(kinds) != depth:
        problem = f"{len(kinds)} names for {depth} layers"
        raise _untrue(source, "layer_types", kinds, problem, "leave it out")


def _sizes(shapes: Mapping[str, Sequence[int]], head_dim: int) -> dict[str, int]:
    """The sizes of the network that weights are of; those of unknown names or fewer axes tell nothing.

    Of heads without norms (Llama, Qwen2) weights tell all widths together: their number goes by ``head_dim``.
    """
    found = {
        name: shapes[weight][axis]
        for name, (weight, axis) in _AXIS_OF_SIZE.items()
        if len(shapes.get(weight, ())) > axis
    }
    layers = [int(match[1]) for match in map(re.compile(r"model\.layers\.(\d+)\.").match, shapes) if match]
    if layers:
        found["num_hidden_layers"] = max(layers) + 1
    for name, projection in _HEADS.items():
        weight = f"{_FIRST_LAYER}self_attn.{projection}.weight"
        if len(shapes.get(weight, ())) == 2:
            found[name] = shapes[weight][0] // found.get("head_dim", head_dim)
    return found


def _check_names(source: str, given: Mapping[str, Any]) -> None:
    is_list = "not a list of names"
    _require(source, given, "architectures", _is_names, is_list, 'write ["SDARForCausalLM"]')
    _require(source, given, "layer_types", _is_names, is_list, "leave it out")
    problem, fix = "no activation that transformers has", "write silu, as Qwen3 and SDAR have"
    _require(source, given, "hidden_act", lambda value: _is_one_of(value, ACT2FN), problem, fix)
    for name in ("dtype", "torch_dtype"):
        fix = "write float32, bfloat16 or float16"
        _require(source, given, name, _is_dtype, "no floating-point type of PyTorch", fix)
    match given.get("quantization_config"):
        case None | {"load_in_4bit": True} | {"load_in_8bit": True}:
            pass
        case {"quant_method": str() as method} if method in AUTO_QUANTIZATION_CONFIG_MAPPING:
            pass
        case other:
            problem = "names no quant_method that transformers knows, so that the weights cannot be read"
            fix = "delete it if the weights are not quantized, else give weights that are not"
            raise _untrue(source, "quantization_config", other, problem, fix)


def _check_heads_and_blocks(source: str, given: Mapping[str, Any]) -> None:
    match given:
        case {"num_attention_heads": heads, "num_key_value_heads": shared} if heads % shared:
            problem = f"does not divide num_attention_heads={heads}"
            raise _untrue(source, "num_key_value_heads", shared, problem, _CORRECT)
    match given:
        case {"block_size": size, "max_position_embeddings": positions} if size > positions:
            problem = f"more tokens than max_position_embeddings={positions}"
            raise _untrue(source, "block_size", size, problem, "write the block size of its training")


def _check_rope(source: str, given: Mapping[str, Any]) -> None:
    not_above_zero = "not a number above 0"
    _require(source, given, "rope_theta", _is_above_zero, not_above_zero, _CORRECT)
    for name in ("rope_parameters", "rope_scaling"):
        rope = given.get(name, {})
        if not isinstance(rope, dict):
            raise _untrue(source, name, rope, "no object", _CORRECT)
        inside = {f"{name}.{key}": value for key, value in rope.items() if value is not None}
        kind = f"{name}.rope_type" if f"{name}.rope_type" in inside else f"{name}.type"
        fix = f"use one of {', '.join(_ROPE_TYPES)}, as in training"
        _require(source, inside, kind, lambda value: _is_one_of(value, _ROPE_TYPES), "not known here", fix)
        if inside.get(kind) in _ROPE_SCALED and f"{name}.factor" not in inside:
            raise _untrue(source, f"{name}.factor", None, f"{inside[kind]} needs it", _CORRECT)
        for key in ("rope_theta", "factor"):
            _require(source, inside, f"{name}.{key}", _is_above_zero, not_above_zero, _CORRECT)


def _check_windows(source: str, given: Mapping[str, Any]) -> None:
    """Sliding windows, which the attention by blocks has not: its positions see all earlier blocks."""
    problem = "its attention is not full, but every block sees all earlier ones here"
    fix = "give a model of full attention"
    _require(source, given, "layer_types", lambda kinds: {*kinds} <= {"full_attention"}, problem, fix)
    no_number = "no whole number"
    _require(source, given, "max_window_layers", lambda value: type(value) is int, no_number, _CORRECT)
    is_dense = given["model_type"] not in _MIXTURES
    first, depth = given.get("max_window_layers", 28), given.get("num_hidden_layers", math.inf)
    if given.get("use_sliding_window", False) and (depth > first or not is_dense):
        fix = "write false if it was trained without, else give a model of full attention"
        raise _untrue(source, "use_sliding_window", True, problem, fix)


def _require(
    source: str, given: Mapping[str, Any], name: str, holds: Callable[[Any], bool], problem: str, fix: str
) -> None:
    if name in given and not holds(given[name]):
        raise _untrue(source, name, given[name], problem, fix)


def _untrue(source: str, name: str, value: object, problem: str, fix: str) -> InputError:
    return InputError(name, value, f"in config.json of model {source!r}: {problem}", fix)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_above_zero(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_one_of(value: object, known: Any) -> bool:
    return isinstance(value, str) and value in known


def _is_dtype(value: object) -> bool:
    found = getattr(torch, value, None) if isinstance(value, str) else None
    return isinstance(found, torch.dtype) and found.is_floating_point
