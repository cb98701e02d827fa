"""Two common ways to decode a block-diffusion model, as careful as their algorithms allow.

- ``sdar_loop``: SDAR's ``generate.py``. One request at a time, transformers' DynamicCache, S denoising
  forwards of the block with logits at all its positions, then one forward that stores its keys; prompt
  and storing forwards compute logits too, as that code does.
- ``reprefill``: the sampler of dllm for block diffusion. A static batch; for each block the whole prefix
  is run again into a fresh cache, then S denoising forwards with logits at all block positions.

Both use the library's own rules for transfers and stopping, so that outputs can be compared.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from t3d.attention.masks import block_causal_mask
from t3d.decoding.completion import DecodeRequest
from t3d.decoding.params import DecodeParams
from t3d.decoding.transfer import transfer_mask
from t3d.trajectory import visible_length


class Counted:
    """Greedy decoding with a count of what it costs."""

    def __init__(
        self, model: PreTrainedModel, mask_token_id: int, stop_token_ids: Sequence[int], params: DecodeParams
    ) -> None:
        assert params.temperature == 0, "the baselines are greedy"
        self.model, self.params = model, params
        self.mask_token_id, self.stop_token_ids = mask_token_id, tuple(stop_token_ids)
        self.plan = params.schedule
        self.forwards: list[tuple[int, int]] = []
        """(query tokens, positions with logits) of each forward."""

    def forward(
        self,
        ids_RQ: Tensor,
        position_RQ: Tensor,
        mask: Tensor | None,
        cache: DynamicCache,
        *,
        with_logits: bool = True,
    ) -> Any:
        """Logits everywhere, or none; the cache grows by Q."""
        self.forwards.append((ids_RQ.numel(), ids_RQ.numel() if with_logits else 0))
        run = self.model if with_logits else self.model.model
        output = run(
            input_ids=ids_RQ,
            position_ids=position_RQ,
            attention_mask={"full_attention": mask},
            past_key_values=cache,
            use_cache=True,
            is_causal=False,
        )
        return output.logits if with_logits else None

    def decide(self, logits_RSV: Tensor, ids_RS: Tensor, is_masked_RS: Tensor, denoising_step: int) -> None:
        """Commit the planned number of tokens of each row, in place; only masked positions are looked at."""
        logits_MV = logits_RSV[is_masked_RS]
        logits_MV[:, self.mask_token_id] = -torch.inf
        confidence_M, token_M = logits_MV.softmax(-1).max(-1)
        confidence_RS = confidence_M.new_zeros(is_masked_RS.shape).masked_scatter(is_masked_RS, confidence_M)
        planned = torch.full((len(ids_RS),), self.plan[denoising_step])
        chosen = transfer_mask(confidence_RS, is_masked_RS, planned, self.params)
        ids_RS[chosen] = ids_RS.masked_scatter(is_masked_RS, token_M)[chosen]
        is_masked_RS &= ~chosen

    def ends(self, response: Sequence[int]) -> bool:
        """Whether a response of whole blocks is finished."""
        limit = self.params.max_new_tokens
        return len(response) >= limit or visible_length(response, self.stop_token_ids, limit)[1] == "stop"


@torch.inference_mode()
def sdar_loop(counted: Counted, requests: Sequence[DecodeRequest]) -> list[list[int]]:
    """Responses, the terminal block whole."""
    return [_sdar_loop_one(counted, request) for request in requests]


def _sdar_loop_one(counted: Counted, request: DecodeRequest) -> list[int]:
    size = counted.params.block_size
    ids, prompt_length = list(request.prompt_ids), len(request.prompt_ids)
    prefix, cache = prompt_length // size * size, DynamicCache()
    if prefix:
        position = torch.arange(prefix)[None]
        mask = block_causal_mask(position, position, torch.ones_like(position, dtype=torch.bool), size)
        counted.forward(torch.tensor([ids[:prefix]]), position, mask[:, None], cache)
    while True:
        block = torch.tensor([ids[prefix:] + [counted.mask_token_id] * (prefix + size - len(ids))])
        position = torch.arange(prefix, prefix + size)[None]
        is_masked = position >= prompt_length
        denoising_step = 0
        while is_masked.any():
            logits = counted.forward(block, position, None, cache)
            cache.crop(-size)
            counted.decide(logits, block, is_masked, denoising_step)
            denoising_step += 1
        counted.forward(block, position, None, cache)  # stores the keys of the clean block
        ids, prefix = ids[:prefix] + block[0].tolist(), prefix + size
        if counted.ends(ids[prompt_length:]):
            return ids[prompt_length:]


@torch.inference_mode()
def reprefill(counted: Counted, requests: Sequence[DecodeRequest]) -> list[list[int]]:
    """Responses, the terminal block whole; finished rows leave the batch at the end of a block."""
    size = counted.params.block_size
    ids = {request.id: list(request.prompt_ids) for request in requests}
    lengths = {request.id: len(request.prompt_ids) for request in requests}
    running = [request.id for request in requests]
    while running:
        starts = [len(ids[name]) // size * size for name in running]
        start_R1 = torch.tensor(starts)[:, None]
        longest, cache = max(starts), DynamicCache()
        key_position = torch.arange(longest).expand(len(running), -1)
        is_real_RN = key_position < start_R1
        if longest:
            prefix = torch.full((len(running), longest), counted.mask_token_id)
            for row, (name, start) in enumerate(zip(running, starts, strict=True)):
                prefix[row, :start] = torch.tensor(ids[name][:start])
            mask = block_causal_mask(key_position, key_position, is_real_RN, size)
            mask |= torch.eye(longest, dtype=torch.bool)  # padding sees itself, so that no softmax is empty
            counted.forward(prefix, key_position, mask[:, None], cache, with_logits=False)
        tails = [ids[name][start:] for name, start in zip(running, starts, strict=True)]
        block = torch.tensor([tail + [counted.mask_token_id] * (size - len(tail)) for tail in tails])
        position = start_R1 + torch.arange(size)
        is_masked = position >= torch.tensor([lengths[name] for name in running])[:, None]
        own = torch.ones(len(running), size, dtype=torch.bool)
        mask = torch.cat([is_real_RN, own], 1)[:, None, None].expand(-1, 1, size, -1)
        denoising_step = 0
        while is_masked.any():
            logits = counted.forward(block, position, mask, cache)
            cache.crop(-size)
            counted.decide(logits, block, is_masked, denoising_step)
            denoising_step += 1
        for name, start, tokens in zip(running, starts, block.tolist(), strict=True):
            ids[name] = ids[name][:start] + tokens
        running = [name for name in running if not counted.ends(ids[name][lengths[name] :])]
    return [ids[request.id][lengths[request.id] :] for request in requests]
