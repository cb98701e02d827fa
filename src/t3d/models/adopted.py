"""Which autoregressive architectures have a block-diffusion class here: an explicit table.

Qwen3 and Qwen3-MoE become SDAR, whose weights have their names exactly. Llama and Qwen2 have classes of their
own, under model types that nobody else uses. The layers are transformers' in all of them, so weights go over
as they are; attention and head are ours (:class:`~t3d.models.sdar.AttentionAndHead`).
"""

from dataclasses import dataclass
from typing import Any

from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3ForCausalLM,
    Qwen3MoeForCausalLM,
)

from t3d.models.sdar import (
    AttentionAndHead,
    SDARConfig,
    SDARForCausalLM,
    SDARMoeConfig,
    SDARMoeForCausalLM,
    register,
)


class T3DLlamaConfig(LlamaConfig):
    """Llama's configuration, the native diffusion block size and the id of the mask token."""

    model_type = "t3d_llama"

    block_size: int = 4
    mask_token_id: int | None = None


class T3DQwen2Config(Qwen2Config):
    """Qwen2's configuration, the native diffusion block size and the id of the mask token.

    It names the head dimension, which Qwen2's own leaves to be worked out.
    """

    model_type = "t3d_qwen2"

    block_size: int = 4
    mask_token_id: int | None = None
    head_dim: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """As in Llama's: its own, else the hidden width's share of a head."""
        if self.head_dim is None:
            self.head_dim = self.hidden_size // self.num_attention_heads
        super().__post_init__(**kwargs)


class T3DLlamaForCausalLM(AttentionAndHead, LlamaForCausalLM):  # pyright: ignore[reportIncompatibleMethodOverride]
    """Llama's network used as a block-diffusion model; see :class:`~t3d.models.sdar.SDARForCausalLM`."""

    config_class = T3DLlamaConfig


class T3DQwen2ForCausalLM(AttentionAndHead, Qwen2ForCausalLM):  # pyright: ignore[reportIncompatibleMethodOverride]
    """Qwen2's network used as a block-diffusion model; see :class:`~t3d.models.sdar.SDARForCausalLM`."""

    config_class = T3DQwen2Config


register(T3DLlamaConfig, T3DLlamaForCausalLM)
register(T3DQwen2Config, T3DQwen2ForCausalLM)

BlockDiffusionModel = SDARForCausalLM | SDARMoeForCausalLM | T3DLlamaForCausalLM | T3DQwen2ForCausalLM
"""A model of ours, of any architecture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """An autoregressive architecture of transformers and what it is here."""

    source: type[PreTrainedModel]
    config: type[PreTrainedConfig]
    model: type[Any]


ARCHITECTURES = {
    "llama": Architecture(source=LlamaForCausalLM, config=T3DLlamaConfig, model=T3DLlamaForCausalLM),
    "qwen2": Architecture(source=Qwen2ForCausalLM, config=T3DQwen2Config, model=T3DQwen2ForCausalLM),
    "qwen3": Architecture(source=Qwen3ForCausalLM, config=SDARConfig, model=SDARForCausalLM),
    "qwen3_moe": Architecture(source=Qwen3MoeForCausalLM, config=SDARMoeConfig, model=SDARMoeForCausalLM),
}
"""By the ``model_type`` of the autoregressive checkpoint. No other is adopted: a network with anything more
in its attention or at its head (windows, caps, scaled logits) would be another model here."""
MODEL_TYPES = tuple(architecture.config.model_type for architecture in ARCHITECTURES.values())
"""Of the checkpoints that :func:`~t3d.models.loading.load_model` loads."""
