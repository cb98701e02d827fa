"""Tiny random autoregressive checkpoints to adopt, and tokenizers without a mask token."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
