"""The specification of block-diffusion decoding: one request, no cache, nothing clever.

Every faster decoder must give the same tokens at the same steps as this one.
"""

from collections.abc import Sequence

import torch

from t3d.attention.forward import block_forward
from t3d.attention.masks import block_causal_mask
from t3d.counter_rng import counter_uniform, stable_key
from t3d.decoding.completion import Completion, DecodeRequest
from t3d.decoding.params import DecodeParams
from t3d.decoding.sampling import ORDER_STREAM, TOKEN_STREAM, candidate_tokens
from t3d.decoding.transfer import transfer_mask
from t3d.trajectory import visible_length


@torch.no_grad()
def decode_as_specified(
    model: torch.nn.Module,
    request: DecodeRequest,
    params: DecodeParams,
    *,
    mask_token_id: int,
    stop_token_ids: Sequence[int],
) -> Completion:
    """Decode one request, recomputing the whole prefix at every denoising step."""
    prompt_length, size = len(request.prompt_ids), params.block_size
    key = stable_key(request.id)
    ids, steps, logprobs = list(request.prompt_ids), [0] * prompt_length, [0.0] * prompt_length
    denoising_step = 0
    while True:
        block_start = len(ids) // size * size
        num_new = block_start + size - len(ids)  # fewer than a block where the prompt's tail is
        ids, steps = ids + [mask_token_id] * num_new, steps + [0] * num_new
        logprobs += [0.0] * num_new
        position = torch.arange(len(ids))[None]
        noise_mask = (position[:, block_start:] >= prompt_length).clone()
        mask = block_causal_mask(position, position, torch.ones_like(position, dtype=torch.bool), size)
        for num_planned in params.schedule:
            if not noise_mask.any():
                break
            denoising_step += 1
            logits = block_forward(model, torch.tensor([ids]), position, mask)[0, block_start:]
            noise = (params.seed, key, position[0, block_start:], denoising_step)
            uniform = counter_uniform(*noise, TOKEN_STREAM)
            candidates = candidate_tokens(logits, uniform, params, mask_token_id)
            entropy = candidates.entropy_M
            transfer = transfer_mask(
                candidates.confidence_M[None],
                noise_mask,
                torch.tensor([num_planned]),
                params,
                order_uniform_RS=counter_uniform(*noise, ORDER_STREAM)[None],
                entropy_RS=None if entropy is None else entropy[None],
            )
            for index in transfer[0].nonzero()[:, 0].tolist():
                ids[block_start + index] = int(candidates.token_M[index])
                steps[block_start + index] = denoising_step
                logprobs[block_start + index] = float(candidates.logprob_M[index])
            noise_mask &= ~transfer
        response = ids[prompt_length:]
        length, finish_reason = visible_length(response, stop_token_ids, params.max_new_tokens)
        if finish_reason == "stop" or length == params.max_new_tokens:
            return Completion(
                id=request.id,
                prompt_ids=request.prompt_ids,
                response_ids=tuple(response),
                step_map=tuple(steps[prompt_length:]),
                logprobs=tuple(logprobs[prompt_length:]),
                visible_length=length,
                finish_reason=finish_reason,
                num_denoising_steps=denoising_step,
                params=params,
                mask_token_id=mask_token_id,
            )
