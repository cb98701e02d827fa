"""What the engine did and how close that was to what the machine can do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from t3d.attention.slots import Spans
from t3d.decoding.completion import Completion
from t3d.decoding.sequences import Forward


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """What a forward's cost depends on."""

    body_parameters: int
    """Weights that every token is multiplied with: all but embedding and head."""
    head_parameters: int
    bytes_per_weight: int
    attention_width: int
    """Query heads x head dimension, summed over the layers."""
    key_value_width: int
    """Keys and values of one position, numbers in all layers."""

    @classmethod
    def of_model(cls, model: PreTrainedModel) -> "ModelShape":
        """The shape of a model; of a mixture of experts, the weights that a token visits."""
        config = model.config
        head = config.vocab_size * config.hidden_size
        body = sum(p.numel() for p in model.parameters()) - head * (1 if config.tie_word_embeddings else 2)
        experts = sum(p.numel() for name, p in model.named_parameters() if ".experts." in name)
        share = getattr(config, "num_experts_per_tok", 1) / max(1, getattr(config, "num_experts", 1))
        layers, head_dim = config.num_hidden_layers, config.head_dim
        return cls(
            body_parameters=body - round(experts * (1 - share)),
            head_parameters=head,
            bytes_per_weight=next(model.parameters()).element_size(),
            attention_width=layers * config.num_attention_heads * head_dim,
            key_value_width=2 * layers * config.num_key_value_heads * head_dim,
        )


@dataclass(kw_only=True)
class EngineStats:
    """Sums over an engine's forwards. ``summary`` has the measures that are made of them."""

    shape: ModelShape
    max_batch_size: int
    forwards: int = 0
    prefill_forwards: int = 0
    """Forwards in which a prompt was written."""
    row_steps: int = 0
    """Denoising steps, summed over the requests."""
    row_commits: int = 0
    """Separate commit forwards of requests."""
    committed_tokens: int = 0
    visible_tokens: int = 0
    blocks: int = 0
    requests: int = 0
    query_tokens: int = 0
    logit_rows: int = 0
    attended_pairs: int = 0
    """Pairs of a query and a key that it may see."""
    key_positions: int = 0
    """Positions whose keys and values were read."""
    kv_bytes: int = 0
    """Most memory that keys and values took."""
    seconds: float = 0.0
    prefill_seconds: float = 0.0
    """Time of the forwards in which a prompt was written; decode time is the rest."""
    flops: float = 0.0
    bytes_moved: float = 0.0

    @classmethod
    def of_model(cls, model: PreTrainedModel, max_batch_size: int) -> "EngineStats":
        """Empty sums for a model."""
        return cls(shape=ModelShape.of_model(model), max_batch_size=max_batch_size)

    def count_forward(
        self, forward: Forward, *, num_blocks: int, completions: Sequence[Completion], seconds: float
    ) -> None:
        """Add a forward: the arithmetic and the memory traffic that it cannot do without, the blocks
        and requests that it finished, and its time with all that the host did.
        """
        shape, tokens, num_logits = self.shape, int(forward.spans.length_R.sum()), len(forward.row_M)
        pairs, num_keys = _attended_pairs(forward.spans), int(forward.spans.end_R.sum())
        self.forwards += 1
        self.prefill_forwards += forward.writes_prompt
        self.row_steps += int(forward.denoises_R.sum())
        self.row_commits += int(forward.is_commit_R.sum())
        self.query_tokens += tokens
        self.logit_rows += num_logits
        self.attended_pairs += pairs
        self.key_positions += num_keys
        self.flops += 2 * (tokens * shape.body_parameters + num_logits * shape.head_parameters)
        self.flops += 4 * pairs * shape.attention_width
        weights = shape.body_parameters + (shape.head_parameters if num_logits else 0)
        keys = (num_keys + tokens) * shape.key_value_width  # read, and written
        self.bytes_moved += shape.bytes_per_weight * (weights + keys)
        self.blocks += num_blocks
        self.requests += len(completions)
        self.visible_tokens += sum(completion.visible_length for completion in completions)
        self.committed_tokens += sum(len(completion.response_ids) for completion in completions)
        self.seconds += seconds
        self.prefill_seconds += seconds if forward.writes_prompt else 0.0

    def roofline_fraction(self, flops_per_second: float, bytes_per_second: float) -> float:
        """Share of the time that a machine with these peaks needs at least for the same forwards."""
        least = max(self.flops / flops_per_second, self.bytes_moved / bytes_per_second)
        return least / self.seconds if self.seconds else 0.0

    def summary(self) -> dict[str, Any]:
        """The measures, JSON-ready."""
        row_forwards = self.row_steps + self.row_commits
        return {
            "requests": self.requests,
            "visible_tokens": self.visible_tokens,
            "seconds": self.seconds,
            "prefill_seconds": self.prefill_seconds,
            "decode_seconds": self.seconds - self.prefill_seconds,
            "visible_tokens_per_second": self.visible_tokens / max(self.seconds, 1e-9),
            "forwards": self.forwards,
            "tokens_per_forward": self.committed_tokens / max(1, row_forwards),
            "forwards_per_block": row_forwards / max(1, self.blocks),
            "row_utilisation": row_forwards / max(1, self.forwards * self.max_batch_size),
            "kv_bytes": self.kv_bytes,
            "flops": self.flops,
            "bytes_moved": self.bytes_moved,
        }


def _attended_pairs(spans: Spans) -> int:
    """Sum over all queries of the keys they see: up to the end of their own block."""
    # Blocks of a row end at start + B, ..., end; a block has B queries that see all up to its end.
    size_R, start_R, end_R = spans.block_size_R, spans.start_R, spans.end_R
    num_blocks_R = (end_R - start_R) // size_R
    # sum_{k=1..n} B * (start + k B) = B * (n start + B n (n + 1) / 2)
    pairs_R = size_R * (num_blocks_R * start_R + size_R * num_blocks_R * (num_blocks_R + 1) // 2)
    return int(pairs_R.sum())
