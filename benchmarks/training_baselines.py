"""Two other ways to compute T3D's training loss under the preset ``released``, and its gradient.

- ``authors_step``: the algorithm of the authors' released training script. One sample, padded to the
  longest prompt and the longest response of the data set; a dense mask; four full forwards (reference and
  student, on the real and on the fake tokens, with the same inputs), each with logits at all positions.
  It is kinder than that script: the mask is boolean and built once for the four forwards, and neither the
  loops over blocks in Python nor the half of the path loss that the script discards are repeated. It
  departs in what it computes in one way: the script shows the padding after a response to the last
  block's tokens, which no decoder would; here, padding is never seen.
- ``careful_step``: what a careful user would write. A batch, padded to its own longest prompt and response;
  a dense mask; one forward of each model with logits at the noisy copy only (``logits_to_keep``).

Both lay a sample out as ``[prompt | clean response | noisy response]``, the prompt padded on the left.
They take noisy states drawn beforehand (``draw_state``), the ones that the library draws.

Shape letters: B samples, P prompt width, L response width, N = P + 2 L, V vocabulary, K blocks, S tokens
per block.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, logsigmoid, pad

from t3d.counter_rng import stable_key
from t3d.training.config import T3DConfig
from t3d.training.noising import NoiseSource, draw_mask_ratios, mix_random_tokens, trajectory_noise_mask
from t3d.trajectory import Trajectory


@dataclass(frozen=True, kw_only=True)
class State:
    """A trajectory and one noisy state of it; all but the prompt have a response's length."""

    prompt_ids: Tensor
    clean_ids: Tensor
    noisy_ids: Tensor
    is_masked: Tensor
    place: Tensor
    """Place of each token among the commits of its block of the student, from 0."""
    in_path: Tensor
    """Takes part in the path loss: all but the stop token, which is the pad here."""


def draw_state(trajectory: Trajectory, config: T3DConfig, vocab_size: int) -> State:
    """The state that ``TrajectoryCollator`` draws for this trajectory under the preset ``released``."""
    assert (config.grid_origin, config.noise_refresh) == ("response", "once")
    length, num_prompt = len(trajectory.response_ids), len(trajectory.prompt_ids)
    fill = (0, -length % config.block_size)

    def blocks(values: Tensor) -> Tensor:
        return pad(values, fill).view(1, -1, config.block_size)

    ids_1KS = blocks(torch.tensor(trajectory.response_ids))
    step_1KS = blocks(torch.tensor(trajectory.step_map))
    valid_1KS = blocks(torch.ones(length, dtype=torch.bool))
    position_1KS = num_prompt + torch.arange(valid_1KS.numel()).view_as(valid_1KS)
    noise = NoiseSource(
        seed=config.seed,
        epoch_R=torch.zeros(1, dtype=torch.int64),
        sample_key_R=torch.tensor([stable_key(trajectory.id)]),
    )
    level_1K = noise.level_uniform(valid_1KS, config.state_scope)
    ratio_1K = draw_mask_ratios(level_1K, config.mask_ratios, config.mask_ratio_power)
    is_masked_1KS = trajectory_noise_mask(step_1KS, valid_1KS, ratio_1K, config.state_order)
    noisy_1KS = mix_random_tokens(
        ids_1KS.masked_fill(is_masked_1KS, trajectory.mask_token_id),
        is_masked_1KS,
        position_1KS,
        noise,
        random_token_prob=config.random_token_prob,
        vocab_size=vocab_size,
        mask_token_id=trajectory.mask_token_id,
        rule=config.random_token_rule,
    )
    far = torch.iinfo(step_1KS.dtype).max
    place_1KS = step_1KS.masked_fill(~valid_1KS, far).argsort(dim=-1, stable=True).argsort(dim=-1)
    return State(
        prompt_ids=torch.tensor(trajectory.prompt_ids),
        clean_ids=torch.tensor(trajectory.response_ids),
        noisy_ids=noisy_1KS.flatten()[:length],
        is_masked=is_masked_1KS.flatten()[:length],
        place=place_1KS.flatten()[:length],
        in_path=torch.arange(length) != trajectory.visible_length - 1,
    )


@dataclass(frozen=True, kw_only=True)
class PaddedBatch:
    """Samples at one width."""

    inputs: dict[str, Tensor]
    """``input_ids``, ``position_ids`` [B, N] and the boolean ``attention_mask`` [B, 1, N, N]."""
    prompt_BP: Tensor
    label_BL: Tensor
    is_masked_BL: Tensor
    level_BLs: Tensor
    """Whether a token belongs to each level of the released path loss: the first k, 2 k, ... commits."""

    def to(self, device: torch.device) -> "PaddedBatch":
        """The same on a device."""
        tensors = {name: value.to(device) for name, value in vars(self).items() if name != "inputs"}
        return PaddedBatch(inputs={name: value.to(device) for name, value in self.inputs.items()}, **tensors)


def pad_batch(
    states: Sequence[State], prompt_width: int, response_width: int, config: T3DConfig
) -> PaddedBatch:
    """Padding is token 0, the prompt's on the left, the response's on the right."""

    def left(values: Tensor) -> Tensor:
        return pad(values, (prompt_width - len(values), 0))

    def right(name: str) -> Tensor:
        values = [getattr(state, name) for state in states]
        return torch.stack([pad(value, (0, response_width - len(value))) for value in values])

    num_prompt_B1 = torch.tensor([[len(state.prompt_ids)] for state in states])
    num_response_B1 = torch.tensor([[len(state.clean_ids)] for state in states])
    prompt_BP = torch.stack([left(state.prompt_ids) for state in states])
    label_BL, column_P, column_L = (
        right("clean_ids"),
        torch.arange(prompt_width),
        torch.arange(response_width),
    )
    prompt_position_BP = column_P - (prompt_width - num_prompt_B1)
    response_position_BL = num_prompt_B1 + column_L
    is_real_BL = column_L < num_response_B1
    is_real_BN = torch.cat([prompt_position_BP >= 0, is_real_BL, is_real_BL], 1)
    allowed_NN = released_mask(prompt_width, response_width, config.block_size)
    itself_NN = torch.eye(len(allowed_NN), dtype=torch.bool)  # so that no softmax over keys is empty
    num_levels = -(-config.block_size // config.path_tokens_per_level)
    level_end = torch.arange(1, num_levels + 1) * config.path_tokens_per_level
    return PaddedBatch(
        inputs={
            "input_ids": torch.cat([prompt_BP, label_BL, right("noisy_ids")], 1),
            "position_ids": torch.cat(
                [prompt_position_BP.clamp(min=0), response_position_BL, response_position_BL], 1
            ),
            "attention_mask": ((allowed_NN & is_real_BN[:, None]) | itself_NN)[:, None],
        },
        prompt_BP=prompt_BP,
        label_BL=label_BL,
        is_masked_BL=right("is_masked"),
        level_BLs=(right("place")[..., None] < level_end) & right("in_path")[..., None],
    )


def released_mask(prompt_width: int, response_width: int, block_size: int) -> Tensor:
    """Which column may attend to which, [N, N]: blocks count from the response, the prompt's backwards."""
    block_P = torch.arange(-prompt_width, 0) // block_size
    block_L = torch.arange(response_width) // block_size
    block_N = torch.cat([block_P, block_L, block_L])
    is_noisy_N = torch.arange(len(block_N)) >= prompt_width + response_width
    query, key = block_N[:, None], block_N
    clean_key = ~is_noisy_N & torch.where(is_noisy_N[:, None], key < query, key <= query)
    noisy_key = is_noisy_N & is_noisy_N[:, None] & (key == query)
    return clean_key | noisy_key


def ddo(real_margin_B: Tensor, fake_margin_B: Tensor, config: T3DConfig) -> Tensor:
    """Of each sample, from log-ratios of the student to the reference."""
    beta, alpha = config.ddo_beta, config.ddo_alpha
    return -logsigmoid(beta * real_margin_B) - alpha * logsigmoid(-beta * fake_margin_B)


def likeliest(logits: Tensor, mask_token_id: int) -> Tensor:
    """The fake tokens, never the mask."""
    of_mask = logits[..., mask_token_id].clone()
    logits[..., mask_token_id] = -torch.inf
    token = logits.argmax(-1)
    logits[..., mask_token_id] = of_mask
    return token


def authors_step(
    student: nn.Module,
    reference: nn.Module,
    state: State,
    widths: tuple[int, int],
    config: T3DConfig,
    *,
    mask_token_id: int,
    num_samples: int,
) -> Tensor:
    """Loss of one sample, divided by ``num_samples``; its gradient is added to the student's.

    ``widths``: the longest prompt and the longest response of the data set. What the authors' script
    still holds during the backward pass is held here too.
    """
    batch = pad_batch([state], *widths, config).to(next(student.parameters()).device)
    num_prompt, num_both = widths[0], sum(widths)
    token_1T = torch.cat([batch.prompt_BP, batch.label_BL], 1)
    is_masked_1T = pad(batch.is_masked_BL, (num_prompt, 0))

    def logits_of(model: nn.Module) -> Tensor:
        logits = model(**batch.inputs, use_cache=False).logits
        return torch.cat([logits[:, :num_prompt], logits[:, num_both:]], 1)

    def log_prob(logits: Tensor, token: Tensor) -> Tensor:
        chosen = logits.log_softmax(-1).gather(-1, token[..., None])[..., 0]
        return (chosen * is_masked_1T).sum(1) / is_masked_1T.sum(1)

    with torch.no_grad():
        reference_real = log_prob(logits_of(reference), token_1T)
        reference_logits = logits_of(reference)
        fake_1T = likeliest(reference_logits, mask_token_id)
        reference_fake = log_prob(reference_logits, fake_1T)
    student_real = log_prob(logits_of(student), token_1T)
    student_logits = logits_of(student)
    student_fake = log_prob(student_logits, fake_1T)
    levels = []
    for level_1L in batch.level_BLs.unbind(-1):
        if level_1L.any():
            levels.append(cross_entropy(student_logits[:, num_prompt:][level_1L], batch.label_BL[level_1L]))
    path = torch.stack(levels).mean()
    loss = ddo(student_real - reference_real, student_fake - reference_fake, config).mean()
    loss = (loss + config.path_weight * path) / num_samples
    loss.backward()
    return loss.detach()


def careful_step(
    student: nn.Module,
    reference: nn.Module,
    states: Sequence[State],
    config: T3DConfig,
    *,
    mask_token_id: int,
    num_samples: int,
) -> Tensor:
    """Loss of a batch, divided by ``num_samples``; its gradient is added to the student's."""
    prompt_width = max(len(state.prompt_ids) for state in states)
    response_width = max(len(state.clean_ids) for state in states)
    device = next(student.parameters()).device
    batch = pad_batch(states, prompt_width, response_width, config).to(device)

    def logits_of(model: nn.Module) -> Tensor:
        return model(**batch.inputs, use_cache=False, logits_to_keep=response_width).logits

    with torch.no_grad():
        logits_BLV = logits_of(reference)
        log_prob_BLV = logits_BLV.log_softmax(-1)
        token_BL2 = torch.stack([batch.label_BL, likeliest(logits_BLV, mask_token_id)], -1)
        reference_BL2 = log_prob_BLV.gather(-1, token_BL2)
        del logits_BLV, log_prob_BLV
    student_BL2 = logits_of(student).log_softmax(-1).gather(-1, token_BL2)
    is_masked_BL1 = batch.is_masked_BL[..., None]
    margin_B2 = ((student_BL2 - reference_BL2) * is_masked_BL1).sum(1) / is_masked_BL1.sum(1)
    level_loss_Bs = -(student_BL2[..., :1] * batch.level_BLs).sum(1) / batch.level_BLs.sum(1)
    per_sample_B = ddo(*margin_B2.unbind(1), config) + config.path_weight * level_loss_Bs.mean(1)
    loss = per_sample_B.sum() / num_samples
    loss.backward()
    return loss.detach()
