"""What the engine did and how close that was to what the machine can do."""

from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedModel

from t3d.attention.slots import Spans
from t3d.decoding.completion import Completion


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
    _last_wrote_prompt: bool = field(default=False, repr=False)

    @classmethod
    def of_model(cls, model: PreTrainedModel, max_batch_size: int) -> "EngineStats":
        """Empty sums for a model."""
        return cls(shape=ModelShape.of_model(model), max_batch_size=max_batch_size)

    def count_forward(
        self, spans: Spans, *, num_logits: int, num_steps: int, num_commits: int, writes_prompt: bool
    ) -> None:
        """Add one forward, with the arithmetic and the memory traffic that it cannot do without."""
        self._last_wrote_prompt = writes_prompt
        self.prefill_forwards += writes_prompt
        shape, tokens = self.shape, int(spans.length_R.sum())
        pairs = _attended_pairs(spans)
        self.forwards += 1
        self.row_steps += num_steps
        self.row_commits += num_commits
        self.query_tokens += tokens
        self.logit_rows += num_logits
        self.attended_pairs += pairs
        self.key_positions += int(spans.end_R.sum())
        self.flops += 2 * (tokens * shape.body_parameters + num_logits * shape.head_parameters)
        self.flops += 4 * pairs * shape.attention_width
        weights = shape.body_parameters + (shape.head_parameters if num_logits else 0)
        keys = (int(spans.end_R.sum()) + tokens) * shape.key_value_width  # read, and written
        self.bytes_moved += shape.bytes_per_weight * (weights + keys)

    def count_seconds(self, seconds: float) -> None:
        """Add the time of the forward counted last, with all that the host did for it."""
        self.seconds += seconds
        self.prefill_seconds += seconds if self._last_wrote_prompt else 0.0

    def count_completion(self, completion: Completion) -> None:
        """Add a finished request."""
        self.requests += 1
        self.visible_tokens += completion.visible_length
        self.committed_tokens += len(completion.response_ids)

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
