"""Tiny random autoregressive checkpoints to adopt, and tokenizers without a mask token."""

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from t3d.models.adopted import ARCHITECTURES
from t3d.tasks.mini.tokenizer import CHAT_TEMPLATE

END, START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT = (END, START, TURN_END)
"""Special tokens of a chat model without any to spare; ids 256, 257, 258."""


def plain_tokenizer(specials: Sequence[str] = CHAT, **roles: str) -> PreTrainedTokenizerFast:
    """Bytes and special tokens; ``<|im_end|>`` is its end and its pad, unless ``roles`` say otherwise."""
    pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    vocab = {byte: index for index, byte in enumerate(sorted(pre_tokenizer.alphabet()))}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer, backend.decoder = pre_tokenizer, decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    named = {"eos_token": TURN_END, "pad_token": TURN_END} | roles
    named = {role: token for role, token in named.items() if token}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **named)
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def save_source(
    folder: Path,
    kind: str,
    tokenizer: PreTrainedTokenizerFast | None,
    *,
    rows: int = 264,
    dtype: torch.dtype = torch.float32,
    **overrides: Any,
) -> PreTrainedModel:
    """A tiny random model of an architecture of the table, saved with its tokenizer."""
    source = ARCHITECTURES[kind].source
    fields: dict[str, Any] = {"vocab_size": rows, "hidden_size": 32, "intermediate_size": 48}
    fields |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    fields |= {"max_position_embeddings": 128, "initializer_range": 0.3}
    fields |= {"bos_token_id": None, "eos_token_id": 258, "pad_token_id": 258}
    if kind.startswith("qwen3"):
        fields["head_dim"] = 16
    if kind == "qwen3_moe":
        fields |= {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
    config: Any = source.config_class
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model: Any = source(config(**(fields | overrides)))
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(weight)  # Qwen2's begin at 0, which would hide a lost one
    model = model.to(dtype).eval()
    model.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return model


def edit_json(path: Path, **fields: Any) -> None:
    """Change fields of a JSON file; None takes one out."""
    content = (json.loads(path.read_text()) if path.is_file() else {}) | fields
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


def save_gguf(path: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, **told: float) -> None:
    """A Llama in llama.cpp's layout, not quantized; ``told`` are further numbers by name."""
    gguf = importlib.import_module("gguf")
    config: Any = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    for name, value in told.items():
        writer.add_float32(f"llama.{name}", value)
    names = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    names += ["ab", *(f"[free {row}]" for row in range(len(names) + 1, config.vocab_size))]
    special = {token.content for token in tokenizer.added_tokens_decoder.values()}
    kinds = [gguf.TokenType.CONTROL if name in special else gguf.TokenType.NORMAL for name in names]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(names)
    writer.add_token_types(kinds)
    writer.add_token_merges(["a b"])  # there must be one
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_chat_template(tokenizer.chat_template)
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for name, weight in model.state_dict().items():
        new = _gguf_name(name)
        values = weight.float().numpy()
        count = next((heads[part] for part in heads if f".{part}." in new), None)
        if count is not None:  # pairs of rotary positions lie side by side there
            halves = values.reshape(count, 2, -1, values.shape[1])
            values = halves.swapaxes(1, 2).reshape(values.shape)
        writer.add_tensor(new, np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _gguf_name(name: str) -> str:
    parts = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        "model.layers": "blk",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    for ours, theirs in parts.items():
        name = name.replace(ours, theirs)
    return name
