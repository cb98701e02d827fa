"""The time that a machine needs at least for what the engine counted: its arithmetic and memory traffic."""

from dataclasses import dataclass

from transformers import PreTrainedModel

from t3d.decoding.stats import EngineStats


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

    def flops(self, stats: EngineStats) -> int:
        """The arithmetic that these forwards cannot do without."""
        products = stats.query_tokens * self.body_parameters + stats.logit_rows * self.head_parameters
        return 2 * products + 4 * stats.attended_pairs * self.attention_width

    def bytes_moved(self, stats: EngineStats) -> int:
        """The memory traffic that they cannot do without: weights, keys and values, read and written."""
        weights = stats.forwards * self.body_parameters + stats.head_forwards * self.head_parameters
        keys = (stats.key_positions + stats.query_tokens) * self.key_value_width
        return self.bytes_per_weight * (weights + keys)

    def roofline_fraction(
        self, stats: EngineStats, *, flops_per_second: float, bytes_per_second: float
    ) -> float:
        """Share of the time that a machine with these peaks needs at least for the same forwards."""
        least = max(self.flops(stats) / flops_per_second, self.bytes_moved(stats) / bytes_per_second)
        return least / stats.seconds
