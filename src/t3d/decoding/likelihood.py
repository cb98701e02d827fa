"""How likely a model finds a given text: each token as ``left_to_right`` would draw it behind those before.

These probabilities multiply to that of the text under ``left_to_right`` decoding at temperature 1, where each
token is drawn behind all before it. Strategies that commit several tokens at once have no such number: there
it is a measure of the text, not of how they decode. Shape letters: Q tokens of a forward, M places
where logits are asked for, V vocabulary.
"""

from collections.abc import Sequence
from concurrent.futures import CancelledError
from threading import Event
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from t3d.attention.forward import block_forward
from t3d.attention.masks import block_causal_mask
from t3d.decoding.params import DecodeParams
from t3d.decoding.self_speculation import scratch_of
from t3d.decoding.turns import turns_of
from t3d.models.loading import LoadedModel

POSITIONS = 256
"""Most positions that one forward asks for: logits take the memory of so many rows of the vocabulary."""


class TokenLogprob(NamedTuple):
    """What is known of one token."""

    logprob: float
    top: list[tuple[int, float]]
    """The likeliest tokens at its place with their log-probabilities, the likeliest first."""


def token_logprobs(
    loaded: LoadedModel,
    ids: Sequence[int],
    params: DecodeParams,
    num_top: int = 0,
    *,
    is_given_up: Event | None = None,
) -> list[TokenLogprob]:
    """Of every token but the first, before which nothing stands, in the blocks and context of ``params``.

    Raises CancelledError, before the next forward, once ``is_given_up`` is set.
    """
    found: list[TokenLogprob] = []
    size = params.block_size
    step = max(1, POSITIONS // size) * size
    for start in range(0, len(ids) if len(ids) > 1 else 0, step):
        end = min(start + step, len(ids))
        if is_given_up is not None and is_given_up.is_set():
            raise CancelledError
        with turns_of(loaded.model), torch.inference_mode():
            logits_MV = _logits(loaded, ids[:end], start, params)
            found += _logprobs(logits_MV, ids[max(start, 1) : end], loaded, params, num_top)
    return found


def _logits(
    loaded: LoadedModel, ids: Sequence[int], start: int, params: DecodeParams
) -> Float[Tensor, "M V"]:
    """Those that tell the tokens from ``start``, the start of a block, to the end; of token 0 none."""
    is_next, size = params.predicts == "next", params.block_size
    tokens, position = list(ids), list(range(len(ids)))
    blocks = [] if is_next else list(range(start, len(ids), size))
    scratches = [scratch_of(0, min(size, len(ids) - s) - 1, size, params.context, ()) for s in blocks]
    place = list(range(max(start, 1) - 1, len(ids) - 1)) if is_next else []
    length = len(ids) + sum(map(len, scratches))
    sees_QQ = torch.zeros(length, length, dtype=torch.bool)
    clean = torch.arange(len(ids))[None]
    grid = size if params.context == "block" else 1
    sees_QQ[: len(ids), : len(ids)] = block_causal_mask(clean, clean, torch.ones_like(clean).bool(), grid)[0]
    for block, scratch in zip(blocks, scratches, strict=True):
        own = slice(len(tokens), len(tokens) + len(scratch))
        sees_QQ[own, :block], sees_QQ[own, own] = True, torch.from_numpy(scratch.sees_QQ)
        place += (own.start + scratch.place_M).tolist()
        tokens += scratch.ids(ids[block : block + scratch.filled], loaded.mask_token_id).tolist()
        position += (block + scratch.offset_Q).tolist()
    device = loaded.model.device
    return block_forward(
        loaded.model,
        torch.tensor([tokens], device=device),
        torch.tensor([position], device=device),
        sees_QQ[None].to(device),
        logit_positions=torch.tensor(place[start == 0 and not is_next :], device=device),
    )


def _logprobs(
    logits_MV: Float[Tensor, "M V"],
    ids: Sequence[int],
    loaded: LoadedModel,
    params: DecodeParams,
    num_top: int,
) -> list[TokenLogprob]:
    logits_MV = logits_MV.clone() if logits_MV.dtype == torch.float64 else logits_MV.float()
    if params.predicts == "self":  # as in decoding, the mask is never drawn
        logits_MV[:, loaded.mask_token_id] = -torch.inf
    logprob_MV = logits_MV.log_softmax(-1)
    own = logprob_MV.gather(-1, torch.tensor(ids, device=logprob_MV.device)[:, None])[:, 0].tolist()
    top = logprob_MV.topk(min(num_top, logprob_MV.shape[1]))
    pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
    return [
        TokenLogprob(logprob, list(zip(tokens, values, strict=True)))
        for logprob, (tokens, values) in zip(own, pairs, strict=True)
    ]
