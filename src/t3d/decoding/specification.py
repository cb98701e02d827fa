"""The specification of block-diffusion decoding: one request, no cache, nothing clever.

Every faster decoder must give the same tokens at the same steps as this one.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from t3d.attention.forward import block_forward
from t3d.attention.masks import block_causal_mask
from t3d.counter_rng import counter_uniform
from t3d.decoding.completion import Completion, DecodeRequest
from t3d.decoding.draft_costs import chosen_drafts, share_right, token_value
from t3d.decoding.params import DecodeParams
from t3d.decoding.sampling import ORDER_STREAM, TOKEN_STREAM, candidate_tokens
from t3d.decoding.self_speculation import Scratch, num_accepted, num_to_draft, scratch_of_params
from t3d.decoding.transfer import transfer_mask
from t3d.trajectory import visible_length


def decode_as_specified(
    model: torch.nn.Module,
    request: DecodeRequest,
    params: DecodeParams,
    *,
    mask_token_id: int,
    stop_token_ids: Sequence[int],
) -> Completion:
    """Decode one request by the rule of its strategy, recomputing the whole prefix in every forward."""
    decode = decode_left_to_right if params.is_left_to_right else decode_by_steps
    return decode(model, request, params, mask_token_id=mask_token_id, stop_token_ids=stop_token_ids)


@torch.no_grad()
def decode_by_steps(
    model: torch.nn.Module,
    request: DecodeRequest,
    params: DecodeParams,
    *,
    mask_token_id: int,
    stop_token_ids: Sequence[int],
) -> Completion:
    """The same by the strategies that commit some masked positions of a block at every denoising step."""
    prompt_length, size = len(request.prompt_ids), params.block_size
    key = request.noise_key
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


@torch.no_grad()
def decode_left_to_right(
    model: torch.nn.Module,
    request: DecodeRequest,
    params: DecodeParams,
    *,
    mask_token_id: int,
    stop_token_ids: Sequence[int],
    draft_of: Callable[[int], int] | None = None,
    has_drafter: bool = False,
) -> Completion:
    """The same by ``left_to_right`` and ``self_speculative``; rules and words: :mod:`.self_speculation`.

    ``draft_of``: of a position, in the place of its draft; ``has_drafter``: the model's own drafts.
    """
    prompt_length, end = len(request.prompt_ids), len(request.prompt_ids) + params.max_new_tokens
    ids, steps, logprobs = list(request.prompt_ids), list[int](), list[float]()
    draft, chances, may_draft = list[int](), list[float](), params.remasking == "self_speculative"
    num_drafted, num_right, num_forwards = 0, 0, 0
    while True:
        n, num_forwards = len(ids), num_forwards + 1
        size = num_to_draft(n, end, params)
        if draft_of is not None:
            draft, chances = [draft_of(n + place) for place in range(size)], [1.0] * size
        num_open, right = n % params.block_size, share_right(num_right, num_drafted)
        chosen = chosen_drafts(n, end, params, draft[:size], chances[:size], right, token_value(1))
        draft, groups = chosen if may_draft else ([], ())
        scratch = scratch_of_params(num_open, len(draft), groups, params)
        logits_MV = read_scratch(model, ids, draft, scratch, params, mask_token_id, has_drafter=has_drafter)
        # The same draw for a draft and for its check: the noise depends on the position alone.
        position_M = torch.from_numpy(n - num_open + scratch.drawn_offset_M)
        uniform_M = counter_uniform(params.seed, request.noise_key, position_M, 0, TOKEN_STREAM)
        drawn = candidate_tokens(logits_MV, uniform_M, params, mask_token_id)
        if may_draft and not drawn.logprob_M.isfinite().all():
            may_draft = False  # what is not a number without drafts either is the model's
            continue
        tokens = drawn.token_M.tolist()
        accepted = num_accepted(draft, tokens)
        ids += tokens[: accepted + 1]
        length, finish_reason = visible_length(ids[prompt_length:], stop_token_ids, params.max_new_tokens)
        ids = ids[: prompt_length + length]
        steps += [num_forwards] * (len(ids) - n)
        logprobs += drawn.logprob_M[: len(ids) - n].tolist()
        num_drafted, num_right = num_drafted + len(draft), num_right + accepted
        if finish_reason == "stop" or length == params.max_new_tokens:
            return Completion(
                id=request.id,
                prompt_ids=request.prompt_ids,
                response_ids=tuple(ids[prompt_length:]),
                step_map=tuple(steps),
                logprobs=tuple(logprobs),
                visible_length=length,
                finish_reason=finish_reason,
                num_denoising_steps=num_forwards,
                num_drafted=num_drafted,
                num_accepted=num_right,
                params=params,
                mask_token_id=mask_token_id,
            )
        drafted = scratch.drafts.get(accepted, slice(0))
        draft, chances = tokens[drafted], drawn.logprob_M[drafted].exp().tolist()


def read_scratch(
    model: torch.nn.Module,
    ids: Sequence[int],
    draft: Sequence[int],
    scratch: Scratch,
    params: DecodeParams,
    mask_token_id: int,
    *,
    has_drafter: bool = False,
) -> Float[Tensor, "M V"]:
    """The logits that the scratch asks for, of a forward over the closed tokens and, behind them, itself."""
    start = len(ids) // params.block_size * params.block_size
    tokens = [*ids[:start], *scratch.ids([*ids[start:], *draft], mask_token_id).tolist()]
    position = torch.cat([torch.arange(start), start + torch.from_numpy(scratch.offset_Q)])[None]
    sees = torch.ones(1, len(tokens), len(tokens), dtype=torch.bool)  # the scratch sees what is closed
    closed = position[:, :start]
    grid = params.block_size if params.context == "block" else 1
    sees[:, :start, :start] = block_causal_mask(
        closed, closed, torch.ones_like(closed, dtype=torch.bool), grid
    )
    sees[:, :start, start:] = False
    sees[:, start:, start:] = torch.from_numpy(scratch.sees_QQ)
    drafting = torch.arange(start + scratch.first_drafting, len(tokens)) if has_drafter else None
    logits = block_forward(model, torch.tensor([tokens]), position, sees, gated_positions=drafting)
    return logits[0, start + scratch.place_M]
