"""Noisy states of a response: which tokens are masked, and what stands in their place.

Everything works on the block grid: R rows, K blocks, S tokens per block; ``valid_RKS`` marks the
response tokens (the prompt's tail and padding are not valid and are never masked). Uniforms come
from :mod:`t3d.counter_rng` under (seed, epoch, sample key, stream, position), so a sample's noise
is fresh each epoch and independent of batch, worker count and world size.
"""

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from t3d.counter_rng import counter_uniform

StateOrder = Literal["trajectory", "released"]
StateScope = Literal["block", "response", "token"]
RandomTokenRule = Literal["bernoulli", "exact_count", "start_state"]


class Stream(IntEnum):
    """Names of the independent random streams of one (seed, epoch, sample)."""

    MASK_LEVEL = 1
    MASK = 2
    RANDOM_TOKEN_CHOICE = 3
    RANDOM_TOKEN_ID = 4
    FAKE_TOKEN = 5
    OPEN_BLOCK = 6
    OPEN_TOKENS = 7
    GROUP_SHIFT = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class NoiseSource:
    """Where a batch's noise comes from: a seed, and each row's epoch and key (int64 [R])."""

    seed: int
    epoch_R: Tensor
    sample_key_R: Tensor

    def uniform(self, stream: Stream, position: Tensor) -> Tensor:
        """Uniforms in (0, 1), float64, shaped like ``position`` ([R, ...])."""
        shape = (-1, *[1] * (position.dim() - 1))
        epoch, key = self.epoch_R.view(shape), self.sample_key_R.view(shape)
        return counter_uniform(self.seed, epoch, key, int(stream), position)

    def level_uniform(self, valid_RKS: Tensor, scope: StateScope) -> Float[Tensor, "R K"]:
        """One uniform per block, or one per row repeated over its blocks."""
        rows, blocks, _ = valid_RKS.shape
        block = torch.arange(blocks, device=valid_RKS.device).expand(rows, blocks)
        return self.uniform(Stream.MASK_LEVEL, block if scope == "block" else torch.zeros_like(block))


def mask_ratio_probabilities(mask_ratios: tuple[float, ...], power: float) -> Tensor:
    """P(ratio) proportional to ratio**power (released code; the paper is silent), float64 [n]."""
    weights = torch.tensor(mask_ratios, dtype=torch.float64) ** power
    return weights / weights.sum()


def draw_mask_ratios(
    uniform_RK: Float[Tensor, "R K"], mask_ratios: tuple[float, ...], power: float
) -> Float[Tensor, "R K"]:
    """Map uniforms to mask ratios through the inverse CDF of their distribution."""
    cumulative = mask_ratio_probabilities(mask_ratios, power).cumsum(0).to(uniform_RK.device)
    index = torch.searchsorted(cumulative, uniform_RK.contiguous()).clamp(max=len(mask_ratios) - 1)
    return torch.tensor(mask_ratios, dtype=torch.float64, device=uniform_RK.device)[index]


def trajectory_noise_mask(
    step_RKS: Int[Tensor, "R K S"],
    valid_RKS: Bool[Tensor, "R K S"],
    mask_ratio_RK: Float[Tensor, "R K"],
    order: StateOrder = "trajectory",
) -> Bool[Tensor, "R K S"]:
    """Mask about ``mask_ratio`` of each block's valid tokens, by the order of their commits.

    ``trajectory`` (the paper): the latest-committed floor(n * ratio) tokens, at least one, are
    masked; tokens that share a step are masked together, so the state is one the teacher visited.
    ``released``: the earliest-committed floor(n * ratio) are masked, as the authors' code does.
    """
    num_valid_RK = valid_RKS.sum(-1)
    num_masked_RK = (num_valid_RK * mask_ratio_RK + 1e-9).floor().long()
    far = torch.iinfo(step_RKS.dtype).max
    order_RKS = step_RKS.masked_fill(~valid_RKS, far).argsort(dim=-1, stable=True)
    place_RKS = order_RKS.argsort(dim=-1)  # 0 = committed first
    if order == "released":
        return valid_RKS & (place_RKS < num_masked_RK[..., None])
    num_visible_RK = num_valid_RK - num_masked_RK.clamp(min=1)
    is_first_masked = valid_RKS & (place_RKS == num_visible_RK[..., None])
    first_masked_step = step_RKS.masked_fill(~is_first_masked, far).amin(-1, keepdim=True)
    return valid_RKS & (step_RKS >= first_masked_step)


def visited_noise_mask(
    step_RKS: Int[Tensor, "R K S"],
    valid_RKS: Bool[Tensor, "R K S"],
    uniform_RK: Float[Tensor, "R K"],
    power: float = 0.0,
) -> Bool[Tensor, "R K S"]:
    """Mask what was masked when some denoising step of each block began, drawn by a uniform.

    Only states that the rollout visited, of a rollout in few steps few: P(state) is proportional to
    (share of the block that is masked) ** ``power``, so that with 0 each step is drawn equally often. In a
    block without a valid token nothing is masked.
    """
    steps = step_RKS[..., None, :]  # [R, K, 1, S], against those of [R, K, S, 1]
    is_later_RKSS = (steps >= step_RKS[..., None]) & valid_RKS[..., None, :]
    is_before_SS = torch.ones(step_RKS.shape[-1], step_RKS.shape[-1], dtype=torch.bool).tril(-1)
    repeats = (steps == step_RKS[..., None]) & valid_RKS[..., None, :] & is_before_SS.to(step_RKS.device)
    is_state_RKS = valid_RKS & ~repeats.any(-1)  # the first token of each step stands for the step
    share_RKS = is_later_RKSS.sum(-1).double() / valid_RKS.sum(-1, keepdim=True).clamp(min=1)
    # A slot without a state may have share 0, of which a power below 0 is infinite.
    cumulative_RKS = torch.where(is_state_RKS, share_RKS**power, 0.0).cumsum(-1)
    drawn_RK1 = uniform_RK.double()[..., None] * cumulative_RKS[..., -1:]
    slot_RK1 = (cumulative_RKS <= drawn_RK1).sum(-1, keepdim=True).clamp(max=step_RKS.shape[-1] - 1)
    return valid_RKS & (step_RKS >= step_RKS.gather(-1, slot_RK1))


def later_noise_mask(
    noise_mask_RKS: Bool[Tensor, "R K S"],
    step_RKS: Int[Tensor, "R K S"],
    valid_RKS: Bool[Tensor, "R K S"],
    mask_ratio_RK: Float[Tensor, "R K"],
    mask_ratios: tuple[float, ...] = (),
) -> Bool[Tensor, "R K S"]:
    """What of each block's masks is still masked in a later state of the trajectory.

    The states are those of :func:`trajectory_noise_mask` at ``mask_ratio_RK``, or visited ones. Later is one
    denoising step at least and, where ``mask_ratios`` has a lower ratio, the state of the next lower one.
    Nothing is masked where all masks were committed in one step: no later state has any.
    """
    far = torch.iinfo(step_RKS.dtype).max
    first_RK1 = step_RKS.masked_fill(~noise_mask_RKS, far).amin(-1, keepdim=True)
    later_RKS = noise_mask_RKS & (step_RKS > first_RK1)
    if not mask_ratios:
        return later_RKS
    ratios_N = torch.tensor(mask_ratios, dtype=mask_ratio_RK.dtype, device=mask_ratio_RK.device)
    lower_RK = torch.where(ratios_N < mask_ratio_RK[..., None], ratios_N, 0.0).amax(-1)
    lower_RK = torch.where(lower_RK > 0, lower_RK, mask_ratio_RK)
    return later_RKS & trajectory_noise_mask(step_RKS, valid_RKS, lower_RK)


def random_noise_mask(
    position_RKS: Int[Tensor, "R K S"],
    valid_RKS: Bool[Tensor, "R K S"],
    noise: NoiseSource,
    scope: StateScope = "block",
    mask_prob_range: tuple[float, float] = (1e-3, 1.0),
) -> tuple[Bool[Tensor, "R K S"], Float[Tensor, "R K S"]]:
    """Mask every valid token with a probability p, drawn uniformly from a range (Eq. 1).

    One p per block, per response or per token. Returns the mask and each token's p = low + (high - low) t,
    t ~ U(0, 1). With the default range its inverse, as a weight of the masked tokens' cross-entropy, gives
    the continuous-time ELBO; (1, 1) masks everything.
    """
    low, high = mask_prob_range
    if scope == "token":
        level_RKS = noise.uniform(Stream.MASK_LEVEL, position_RKS)
    else:
        level_RKS = noise.level_uniform(valid_RKS, scope)[..., None].expand(valid_RKS.shape)
    mask_prob_RKS = (high - low) * level_RKS + low
    masked = noise.uniform(Stream.MASK, position_RKS) < mask_prob_RKS
    return masked & valid_RKS, mask_prob_RKS.float()


def pair_with_complement(
    noise_mask_RKS: Bool[Tensor, "R K S"],
    mask_prob_RKS: Float[Tensor, "R K S"],
    valid_RKS: Bool[Tensor, "R K S"],
) -> tuple[Bool[Tensor, "R K S"], Float[Tensor, "R K S"]]:
    """Replace the second half of the rows, copies of the first, by the complementary state (dParallel).

    Of a row and its copy, each valid token is masked in exactly one: with p in the row, 1 - p in the copy.
    """
    num_rows = len(noise_mask_RKS) // 2
    complement = valid_RKS[num_rows:] & ~noise_mask_RKS[:num_rows]
    return (
        torch.cat([noise_mask_RKS[:num_rows], complement]),
        torch.cat([mask_prob_RKS[:num_rows], 1 - mask_prob_RKS[:num_rows]]),
    )


def mix_random_tokens(
    noisy_ids_RKS: Int[Tensor, "R K S"],
    noise_mask_RKS: Bool[Tensor, "R K S"],
    position_RKS: Int[Tensor, "R K S"],
    noise: NoiseSource,
    *,
    random_token_prob: float,
    vocab_size: int,
    mask_token_id: int,
    rule: RandomTokenRule = "bernoulli",
) -> Int[Tensor, "R K S"]:
    """Replace some masks by uniformly drawn tokens (Eq. 48-49); the mask id itself is never drawn.

    ``bernoulli``: each mask independently with ``random_token_prob``. ``exact_count`` (released
    code): max(1, floor(prob * masks)) masks of each row. ``start_state`` (ReDi's stochastic start): as
    ``bernoulli``, but the same in every epoch, so that all states of a response are cut from one start of
    masks and random tokens. The replaced positions stay loss positions.
    """
    if random_token_prob == 0:
        return noisy_ids_RKS
    if rule == "start_state":
        noise = replace(noise, epoch_R=torch.zeros_like(noise.epoch_R))
    choice_RKS = noise.uniform(Stream.RANDOM_TOKEN_CHOICE, position_RKS)
    if rule != "exact_count":
        chosen = noise_mask_RKS & (choice_RKS < random_token_prob)
    else:
        num_masked = noise_mask_RKS.flatten(1).sum(-1)
        count = (num_masked * random_token_prob + 1e-9).floor().clamp(min=1)
        place = choice_RKS.masked_fill(~noise_mask_RKS, 2.0).flatten(1).argsort(-1).argsort(-1)
        chosen = noise_mask_RKS & (place < count[:, None]).view_as(noise_mask_RKS)
    uniform_id = noise.uniform(Stream.RANDOM_TOKEN_ID, position_RKS)
    token = (uniform_id * (vocab_size - 1)).long()
    token = token + (token >= mask_token_id)  # Uniform over the vocabulary without the mask
    return torch.where(chosen, token, noisy_ids_RKS)
