"""SDAR block-diffusion language models as transformers classes.

SDAR (arXiv 2510.06303) keeps the network and the weight names of Qwen3, and of Qwen3-MoE for its
mixtures of experts; only the attention mask and the training differ. Logits are not shifted: the logit
at a position predicts the token at it.
"""

from collections.abc import Callable
from typing import Any

from jaxtyping import Int
from torch import Tensor, nn
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedConfig,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)
from transformers.conversion_mapping import (
    get_checkpoint_conversion_mapping,
    register_checkpoint_conversion_mapping,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.modeling_outputs import CausalLMOutputWithPast, ModelOutput

from t3d.models.divergence import OtherHead
from t3d.models.head import ScoringHead
from t3d.models.token_pick import TokenPick

BY_ARGUMENT = "t3d_by_argument"
"""Name of :func:`attention_by_argument` in transformers' registry: the attention of all our models."""


def attention_by_argument(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    attention: Callable[..., tuple[Tensor, Tensor | None]] = sdpa_attention_forward,
    **arguments: Any,
) -> tuple[Tensor, Tensor | None]:
    """The attention that a forward was given as its ``attention``; SDPA where it was given none.

    The choice is a forward's own argument: nothing that forwards of other threads share is set for it.
    """
    return attention(module, query, key, value, attention_mask, **arguments)


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


class AttentionAndHead:
    """Attention by argument, and a head that runs at chosen positions only, for a model of transformers.

    A forward takes the function that computes its attention as ``attention`` and that function's further
    arguments (:func:`attention_by_argument`), whatever ``attn_implementation`` was asked for.

    The head stays inside the wrapped module, where sharded training needs it. Positions are indices
    into the flattened rows x positions.
    """

    def __init__(self, config: Any) -> None:
        base: Any = super()
        config._attn_implementation = BY_ARGUMENT
        base.__init__(config)
        self.set_output_embeddings(base.get_output_embeddings())
        rotary: Any = base.__getattr__("model").rotary_emb
        if rotary.rope_type == "dynamic":  # the same up to the model's last position, and a text ends there
            rotary.rope_type = "default"  # but a draft's masks may lie behind, and would turn all other keys

    @classmethod
    def _can_set_experts_implementation(cls) -> bool:
        """Experts run one after the other, in every dtype.

        transformers would say that of a class of ours only until Qwen3-MoE's own was made in the process: the
        answer for that is inherited, and its grouped products take no float64.
        """
        return False

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """A plain head becomes one that scores, that of a resized vocabulary too."""
        if type(new_embeddings) is nn.Linear and new_embeddings.bias is None:
            new_embeddings.__class__ = ScoringHead  # same weights, another forward
        base: Any = super()
        base.set_output_embeddings(new_embeddings)

    def forward(
        self,
        *args,
        logit_positions: Int[Tensor, "N"] | None = None,
        loss_positions: Int[Tensor, "M"] | None = None,
        targets: Int[Tensor, "K M"] | None = None,
        entropy_temperature: float | None = None,
        pick: TokenPick | None = None,
        against: OtherHead | None = None,
        keeps_hidden: bool = False,
        **kwargs,
    ) -> ModelOutput:
        """The base's forward, plus ``logit_positions`` and ``loss_positions``.

        With ``logit_positions``, ``logits`` is ``[N, V]``. With ``loss_positions`` the result is the
        :class:`HeadScores` of ``targets`` at these positions (None: of no targets, where only ``pick``
        or the entropy is wanted), and no tensor of positions x vocabulary is made.

        Raises ValueError for ``loss_positions`` and a head with anything besides its weight, and for an
        ``attention`` that the model would not use because another was set on it.
        """
        base: Any = super()
        self._check_attention(kwargs)
        if logit_positions is None and loss_positions is None:
            return base.forward(*args, **kwargs)
        model: Any = self
        if loss_positions is None:
            hidden_ND = model.model(*args, **kwargs).last_hidden_state.flatten(0, 1)[logit_positions]
            return CausalLMOutputWithPast(logits=model.lm_head(hidden_ND))
        if not isinstance(model.lm_head, ScoringHead):
            head = type(model.lm_head)
            raise ValueError(
                f"lm_head is a {head.__module__}.{head.__qualname__}, of which only the weight would be "
                "trained; keep the plain linear layer: leave lm_head out of LoRA's target_modules and "
                "modules_to_save, and out of quantization"
            )
        hidden_MD = model.model(*args, **kwargs).last_hidden_state.flatten(0, 1)[loss_positions]
        if targets is None:
            targets = loss_positions.new_empty(0, len(loss_positions))
        head = {"entropy_temperature": entropy_temperature, "pick": pick}
        return model.lm_head(hidden_MD, targets, **head, against=against, keeps_hidden=keeps_hidden)

    def _check_attention(self, arguments: dict[str, Any]) -> None:
        model: Any = self
        found = model.config._attn_implementation
        if "attention" in arguments and found != BY_ARGUMENT:
            raise ValueError(
                f"the model's attention was set to {found!r}, so it would not use the one that this forward "
                f"is given; set it back: model.set_attn_implementation({BY_ARGUMENT!r})"
            )


class SDARForCausalLM(AttentionAndHead, Qwen3ForCausalLM):  # pyright: ignore[reportIncompatibleMethodOverride]
    """Qwen3 network used as a block-diffusion model.

    Call it through :mod:`t3d.attention.forward`, which supplies the mask; the inherited causal
    ``forward`` stays available for tools that know only Qwen3.
    """

    config_class = SDARConfig


class SDARMoeForCausalLM(AttentionAndHead, Qwen3MoeForCausalLM):  # pyright: ignore[reportIncompatibleMethodOverride]
    """Qwen3-MoE network used as a block-diffusion model; see :class:`SDARForCausalLM`."""

    config_class = SDARMoeConfig


def register(config: type[PreTrainedConfig], model: type[AttentionAndHead]) -> None:
    """Make a class of ours known to transformers' Auto classes, by the ``model_type`` of its config."""
    AutoConfig.register(config.model_type, config)
    AutoModelForCausalLM.register(config, model)


AttentionInterface.register(BY_ARGUMENT, attention_by_argument)
AttentionMaskInterface.register(BY_ARGUMENT, sdpa_mask)  # of a forward that is given no mask of four axes
register(SDARConfig, SDARForCausalLM)
register(SDARMoeConfig, SDARMoeForCausalLM)
# Checkpoints hold one matrix per expert, transformers' network one tensor of all: as for Qwen3-MoE.
register_checkpoint_conversion_mapping(
    SDARMoeConfig.model_type, get_checkpoint_conversion_mapping("qwen3_moe"), overwrite=True
)
