"""SDAR block-diffusion language models as transformers classes.

SDAR (arXiv 2510.06303) keeps the network and the weight names of Qwen3, and of Qwen3-MoE for its
mixtures of experts; only the attention mask and the training differ. Logits are not shifted: the logit
at a position predicts the token at it.
"""

from typing import Any

from jaxtyping import Int
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)
from transformers.conversion_mapping import (
    get_checkpoint_conversion_mapping,
    register_checkpoint_conversion_mapping,
)
from transformers.modeling_outputs import CausalLMOutputWithPast, ModelOutput


class SDARConfig(Qwen3Config):
    """Qwen3's configuration, the native diffusion block size and the id of the mask token."""

    model_type = "sdar"

    block_size: int = 4
    mask_token_id: int | None = None


class SDARMoeConfig(Qwen3MoeConfig):
    """Qwen3-MoE's configuration, the native diffusion block size and the id of the mask token."""

    model_type = "sdar_moe"

    block_size: int = 4
    mask_token_id: int | None = None


class _LogitsAtPositions:
    """Adds ``logit_positions`` to a causal language model of transformers."""

    def forward(self, *args, logit_positions: Int[Tensor, "N"] | None = None, **kwargs) -> ModelOutput:
        """The base's forward, plus ``logit_positions``.

        With ``logit_positions`` (indices into the flattened rows x positions) the head runs at
        these positions only and ``logits`` is ``[N, V]``: the head stays inside the wrapped
        module, where sharded training needs it.
        """
        base: Any = super()
        if logit_positions is None:
            return base.forward(*args, **kwargs)
        model: Any = self
        hidden_RTD = model.model(*args, **kwargs).last_hidden_state
        return CausalLMOutputWithPast(logits=model.lm_head(hidden_RTD.flatten(0, 1)[logit_positions]))


class SDARForCausalLM(_LogitsAtPositions, Qwen3ForCausalLM):  # pyright: ignore[reportIncompatibleMethodOverride]
    """Qwen3 network used as a block-diffusion model.

    Call it through :mod:`t3d.models.forward`, which supplies the mask; the inherited causal
    ``forward`` stays available for tools that know only Qwen3.
    """

    config_class = SDARConfig


class SDARMoeForCausalLM(_LogitsAtPositions, Qwen3MoeForCausalLM):  # pyright: ignore[reportIncompatibleMethodOverride]
    """Qwen3-MoE network used as a block-diffusion model; see :class:`SDARForCausalLM`."""

    config_class = SDARMoeConfig


for _config, _model in ((SDARConfig, SDARForCausalLM), (SDARMoeConfig, SDARMoeForCausalLM)):
    AutoConfig.register(_config.model_type, _config)
    AutoModelForCausalLM.register(_config, _model)
# Checkpoints hold one matrix per expert, transformers' network one tensor of all: as for Qwen3-MoE.
register_checkpoint_conversion_mapping(
    SDARMoeConfig.model_type, get_checkpoint_conversion_mapping("qwen3_moe"), overwrite=True
)
