"""Key and value slots of a decoding batch, one contiguous slot per row, reserved at admission."""

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache


class SlotCache(Cache):
    """Keys and values at their absolute positions: ``[R, kv_heads, N, head_dim]`` per layer.

    A forward first calls :meth:`place`; every layer then writes its keys at these positions and
    attends to the first ``key_length`` slots. Rewriting a position replaces it, so the block being
    denoised costs no extra memory and needs no roll-back. What lies beyond a row's own active
    block is stale and must be masked.
    """

    def __init__(
        self,
        config: PreTrainedConfig,
        num_rows: int,
        num_slots: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        super().__init__(layers=[])
        shape = (num_rows, config.num_key_value_heads, num_slots, config.head_dim)
        layers = range(config.num_hidden_layers)
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in layers]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for _ in layers]
        self.key_length = 0
        self._index: Tensor | None = None

    def place(self, position_RQ: Int[Tensor, "R Q"], key_length: int) -> None:
        """Say where the next forward's tokens go and how many slots its queries may see."""
        self._index = position_RQ[:, None, :, None]
        self.key_length = key_length

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write one layer's keys and values; called by the model's attention."""
        del args, kwargs
        assert self._index is not None, "place() comes before a forward"
        index = self._index.expand_as(key_states)
        for slots, new in ((self.keys[layer_idx], key_states), (self.values[layer_idx], value_states)):
            slots.scatter_(2, index, new.to(slots.dtype))
        return self.keys[layer_idx][:, :, : self.key_length], self.values[layer_idx][:, :, : self.key_length]

    def keep_rows(self, rows: Int[Tensor, "R"]) -> None:
        """Drop all rows but these."""
        self.keys = [slots[rows] for slots in self.keys]
        self.values = [slots[rows] for slots in self.values]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Slots visible to the last forward."""
        del layer_idx
        return self.key_length
