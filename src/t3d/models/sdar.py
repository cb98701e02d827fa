"""SDAR block-diffusion language models as transformers classes.

SDAR (arXiv 2510.06303) keeps Qwen3's network and weight names; only the attention mask and the
training differ. Logits are not shifted: the logit at a position predicts the token at it.
"""

from jaxtyping import Int
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM
from transformers.modeling_outputs import CausalLMOutputWithPast


class SDARConfig(Qwen3Config):
    """Qwen3's configuration, the native diffusion block size and the id of the mask token."""

    model_type = "sdar"

    block_size: int = 4
    mask_token_id: int | None = None


class SDARForCausalLM(Qwen3ForCausalLM):
    """Qwen3 network used as a block-diffusion model.

    Call it through :func:`~t3d.models.forward.block_forward`, which supplies the mask; the inherited
    causal ``forward`` stays available for tools that know only Qwen3.
    """

    config_class = SDARConfig

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, *args, logit_positions: Int[Tensor, "N"] | None = None, **kwargs
    ) -> CausalLMOutputWithPast:
        """Qwen3's forward, plus ``logit_positions``.

        With ``logit_positions`` (indices into the flattened rows x positions) the head runs at
        these positions only and ``logits`` is ``[N, V]``: the head stays inside the wrapped
        module, where sharded training needs it.
        """
        if logit_positions is None:
            return super().forward(*args, **kwargs)
        hidden_RTD = self.model(*args, **kwargs).last_hidden_state
        return CausalLMOutputWithPast(logits=self.lm_head(hidden_RTD.flatten(0, 1)[logit_positions]))


AutoConfig.register(SDARConfig.model_type, SDARConfig)
AutoModelForCausalLM.register(SDARConfig, SDARForCausalLM)
