"""State source: from recorded trajectories to noisy states with targets, weights and counts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from t3d.attention.flex import TILE
from t3d.counter_rng import counter_uniform, stable_key
from t3d.models.gated import GATE, gated_positions
from t3d.objectives.path_consistency import linear_path_weights, nested_prefix_weights
from t3d.predicts import Predicts
from t3d.training.block_grid import BlockGrid, TrainingExample, lay_on_grid
from t3d.training.config import T3DConfig
from t3d.training.drafts import draft_noise_mask, draft_order, lay_in_groups, pack_checks, pack_reading
from t3d.training.noising import (
    NoiseSource,
    draw_mask_ratios,
    later_noise_mask,
    mix_random_tokens,
    pair_with_complement,
    random_noise_mask,
    trajectory_noise_mask,
    visited_noise_mask,
)
from t3d.training.packing import pack_copies
from t3d.training.soft_targets import pack_soft_targets
from t3d.trajectory import Trajectory


class TrajectoryDataset(Dataset):
    """Trajectories as training examples for a student's block size."""

    def __init__(
        self, trajectories: Sequence[Trajectory], config: T3DConfig, pad_token_id: int | None = None
    ) -> None:
        """``pad_token_id``: what the released path loss leaves out."""
        self.trajectories, self.config, self.epoch = list(trajectories), config, 0
        self.pad_token_id = pad_token_id

    def set_epoch(self, epoch: int) -> None:
        """Called by the data loader: the epoch keys the order and, unless drawn once, the noise."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.trajectories)

    def __getitem__(self, index: int) -> TrainingExample:
        trajectory = self.trajectories[index]
        has_filler_loss = self.config.terminal_filler_loss
        return TrainingExample(
            sample_key=stable_key(trajectory.id),
            epoch=self.epoch if self.config.noise_refresh == "epoch" else 0,
            prompt_ids=trajectory.prompt_ids,
            response_ids=trajectory.response_ids,
            step_map=trajectory.step_map,
            token_weight=self._path_weights(trajectory),
            num_loss_tokens=len(trajectory.response_ids) if has_filler_loss else trajectory.visible_length,
            is_cut=not trajectory.terminal_complete,
            num_filler_tokens=len(trajectory.response_ids) - trajectory.visible_length,
        )

    def _path_weights(self, trajectory: Trajectory) -> list[float]:
        config = self.config
        if config.path_weighting == "nested_prefix":
            local = torch.tensor(trajectory.local_steps(config.block_size, config.grid_origin))
            is_answer = torch.arange(len(local)) < trajectory.visible_length
            # The released code leaves out the pad, <|endoftext|>, not the stop, <|im_end|>.
            is_answer &= torch.tensor([token != self.pad_token_id for token in trajectory.response_ids])
            weights = nested_prefix_weights(local, is_answer, config.block_size, config.path_tokens_per_level)
        elif config.path_scope == "response":
            weights = linear_path_weights(torch.tensor(trajectory.step_map), trajectory.num_denoising_steps)
        else:
            local = torch.tensor(trajectory.local_steps(config.block_size, config.grid_origin))
            weights = linear_path_weights(local, max(self._block_budget(trajectory), int(local.max())))
        return weights.tolist()

    def _block_budget(self, trajectory: Trajectory) -> int:
        """B of Eq. 9: the steps that a full block of the student's size took in the rollout."""
        steps = trajectory.decode_params.get("steps_per_block", trajectory.block_size)
        return -(-self.config.block_size * steps // trajectory.block_size)


class EpochShuffle(Sampler[int]):
    """A permutation that depends on (seed, the data set's epoch) only, so that a resumed run repeats it."""

    def __init__(self, dataset: TrajectoryDataset, seed: int) -> None:
        self.dataset, self.seed = dataset, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[int]:
        order = counter_uniform(self.seed, self.dataset.epoch, torch.arange(len(self.dataset)))
        return iter(order.argsort().tolist())


class States(NamedTuple):
    """Which tokens (R rows, K blocks, S per block) are masked, and how likely or how much that is."""

    noise_mask_RKS: Bool[Tensor, "R K S"]
    mask_prob_RKS: Float[Tensor, "R K S"]
    """Probability of each token's mask; ones where the order of commits decides."""
    mask_ratio_RK: Float[Tensor, "R K"]
    """The ratio drawn, or of ``mask_ratios`` the nearest to the share that random masks took."""


def draw_states(
    grid: BlockGrid, noise: NoiseSource, config: T3DConfig, predicts: Predicts = "self"
) -> States:
    """One state per row, from the source that the settings name.

    With complementary states the second half of the rows must repeat the first. Drafts of a model that
    ``predicts`` the next token have no open tokens.
    """
    if config.state_source == "trajectory":
        level_RK = noise.level_uniform(grid.valid_RKS, config.state_scope)
        ratio_RK = draw_mask_ratios(level_RK, config.mask_ratios, config.mask_ratio_power)
        noise_mask = trajectory_noise_mask(grid.step_RKS, grid.valid_RKS, ratio_RK, config.state_order)
        return States(noise_mask, torch.ones(noise_mask.shape), ratio_RK)
    if config.state_source == "on_policy":
        level_RK = noise.level_uniform(grid.valid_RKS, config.state_scope)
        noise_mask = visited_noise_mask(grid.step_RKS, grid.valid_RKS, level_RK, config.mask_ratio_power)
        masks = noise_mask, torch.ones(noise_mask.shape)
    elif config.state_source == "draft":
        noise_mask = draft_noise_mask(grid, noise, config.draft_open_prob if predicts == "self" else 0.0)
        masks = noise_mask, torch.ones(noise_mask.shape)
    else:
        masks = random_noise_mask(
            grid.position_RKS, grid.valid_RKS, noise, config.state_scope, config.mask_prob_range
        )
    if config.complementary_states:
        masks = pair_with_complement(*masks, grid.valid_RKS)
    share_RK = masks[0].sum(-1) / grid.valid_RKS.sum(-1).clamp(min=1)
    ratios = torch.tensor(config.mask_ratios, dtype=torch.float64)
    return States(*masks, ratios[(share_RK[..., None] - ratios).abs().argmin(-1)])


@dataclass(frozen=True, kw_only=True)
class TrajectoryCollator:
    """Examples to a packed ``[clean | noisy]`` batch.

    Beyond the keys of :func:`~t3d.training.packing.pack_copies`: ``is_masked`` [M], False for a visible
    position, which occurs with ``path_positions="all"`` only; ``mask_prob`` and ``mask_ratio`` [M], of
    :class:`States`; ``loss_position_ids`` [M] (absolute positions); ``loss_copy`` [M], which of the
    ``num_copies`` noisy copies, where ``loss_example`` says which of the examples (a copy each, or two
    complementary ones); ``loss_state`` [M], which of the ``num_states`` blocks with a masked position (of
    visible positions any); ``sample_key`` and ``epoch`` [E], the counters of the fake tokens' noise;
    ``num_response_tokens``, those that take loss where they are masked; ``num_real_tokens``, without padding.

    Of drafts (:mod:`t3d.training.drafts`) also ``place`` and ``reads`` [R, T], the gate of the forward,
    ``rides``, whether the token at a draft's first mask is given, and ``checks``, the batch that the base is
    asked with, whose loss positions are in the same order; not with ``draft_targets="rollout"``. Of a model
    that ``predicts`` the next token there are drafts only, and ``labels`` are the tokens behind the loss
    positions. With a ``left_to_right_weight`` ``checks`` is such a batch, too, of all response tokens that
    take loss, once each. With a ``soft_target_weight`` ``soft_targets`` has ``is_soft`` [M], and what the
    model that gives them (``told_predicts``) is asked with in the place of the batch's own:
    :func:`~t3d.training.soft_targets.pack_soft_targets`, checks, or the ``input_ids`` of a later state.
    """

    config: T3DConfig
    pad_token_id: int
    mask_token_id: int
    vocab_size: int
    predicts: Predicts = "self"
    told_predicts: Predicts = "next"

    def __call__(self, examples: Sequence[TrainingExample]) -> dict[str, Any]:
        """Draw the states and build the batch."""
        config, num_examples = self.config, len(examples)
        copies = [*examples, *examples] if config.complementary_states else examples
        grid = self._lay(copies)
        noise = NoiseSource(seed=config.seed, epoch_R=grid.epoch_R, sample_key_R=grid.sample_key_R)
        states = draw_states(grid, noise, config, self.predicts)
        noise_mask = states.noise_mask_RKS
        noisy_ids = mix_random_tokens(
            grid.ids_RKS.masked_fill(noise_mask | grid.is_open_RKS, self.mask_token_id),
            noise_mask,
            grid.position_RKS,
            noise,
            random_token_prob=config.random_token_prob,
            vocab_size=self.vocab_size,
            mask_token_id=self.mask_token_id,
            rule=config.random_token_rule,
        )
        may_take_loss = grid.valid_RKS if config.path_positions == "all" else noise_mask
        loss_mask = may_take_loss & grid.takes_loss_RKS
        batch = self._pack(grid, noisy_ids, noise_mask, loss_mask)
        if config.left_to_right_weight > 0:
            batch["checks"] = self._pack_checks(BlockGrid(*(values[:num_examples] for values in grid)))
        batch["is_masked"] = noise_mask[loss_mask]
        batch["mask_prob"] = states.mask_prob_RKS[loss_mask]
        batch["mask_ratio"] = states.mask_ratio_RK[..., None].expand_as(noise_mask)[loss_mask].float()
        batch["loss_position_ids"] = grid.position_RKS[loss_mask]
        batch["loss_copy"], batch["num_copies"] = batch["loss_example"], len(copies)
        batch["loss_example"] = batch["loss_copy"] % num_examples
        batch["loss_state"], batch["num_states"] = _state_of_position(loss_mask, batch["is_masked"])
        if config.soft_target_weight > 0:
            batch["soft_targets"] = self._pack_soft_targets(
                examples, grid, states, noisy_ids, loss_mask, batch
            )
        batch["sample_key"], batch["epoch"] = grid.sample_key_R[:num_examples], grid.epoch_R[:num_examples]
        batch["num_response_tokens"] = int(grid.takes_loss_RKS.sum())
        batch["num_real_tokens"] = int((batch["document_ids"] >= 0).sum())
        return batch

    def _lay(self, copies: Sequence[TrainingExample]) -> BlockGrid:
        size, pad = self.config.block_size, self.pad_token_id
        if self.predicts == "next":
            return lay_in_groups(copies, size, pad, self.config.seed)
        return lay_on_grid(copies, size, pad, self.config.grid_origin)

    def _rows(self) -> dict[str, Any]:
        return {
            "max_length": self.config.max_length,
            "row_multiple": TILE if self.config.device.type == "cuda" else 1,
        }

    def _pack(
        self, grid: BlockGrid, noisy_ids: Tensor, noise_mask: Tensor, loss_mask: Tensor
    ) -> dict[str, Any]:
        rows = self._rows()
        if self.config.state_source != "draft":
            return pack_copies(grid, noisy_ids, loss_mask, **rows)
        is_draft = noise_mask | grid.is_open_RKS
        further = {**draft_order(is_draft), GATE: is_draft}
        batch = pack_copies(grid, noisy_ids, loss_mask, **rows, further_EKS=further)
        batch[GATE] = gated_positions(batch[GATE])
        batch["rides"] = self.config.draft_rides and self.predicts == "self"
        if self.config.draft_targets == "rollout":
            return batch
        if self.predicts == "next":
            return batch | {"checks": pack_reading(grid, loss_mask, **rows)}
        return batch | {"checks": self._pack_asked(grid, loss_mask)}

    def _pack_asked(self, grid: BlockGrid, loss_mask: Tensor) -> dict[str, Any]:
        """The loss positions at check masks, in the same order, for a model that is asked there."""
        rows = self._rows()
        if self.config.max_length is not None:  # there is no backward pass, which could do with less
            rows["max_length"] = 2 * self.config.max_length
        return pack_checks(grid, loss_mask, self.mask_token_id, **rows)

    def _pack_soft_targets(
        self,
        examples: Sequence[TrainingExample],
        grid: BlockGrid,
        states: States,
        noisy_ids: Tensor,
        loss_mask: Tensor,
        batch: dict[str, Any],
    ) -> dict[str, Any]:
        """What the model that gives soft targets is asked with, and where it gives some."""
        if self.told_predicts == "next":
            return pack_soft_targets(examples, batch["loss_example"], batch["loss_position_ids"])
        if self.config.soft_target_context == "later_state":
            return self._pack_later(grid, states, noisy_ids, loss_mask)
        is_soft = {"is_soft": torch.ones_like(batch["labels"], dtype=torch.bool)}
        if self.config.soft_target_context == "state":
            return is_soft
        return self._pack_asked(grid, loss_mask) | is_soft

    def _pack_later(
        self, grid: BlockGrid, states: States, noisy_ids: Tensor, loss_mask: Tensor
    ) -> dict[str, Any]:
        """The same batch with the tokens that a later state shows, and which masks that still has."""
        ratios = self.config.mask_ratios if self.config.state_source == "trajectory" else ()
        noise_mask, steps = states.noise_mask_RKS, (grid.step_RKS, grid.valid_RKS)
        later_mask = later_noise_mask(noise_mask, *steps, states.mask_ratio_RK, ratios)
        later_ids = torch.where(noise_mask & ~later_mask, grid.ids_RKS, noisy_ids)
        asked = self._pack(grid, later_ids, later_mask, loss_mask)
        return {"input_ids": asked["input_ids"], "is_soft": later_mask[loss_mask]}

    def _pack_checks(self, grid: BlockGrid) -> dict[str, Any]:
        """All response tokens that take loss at check masks, in rows that are longer by a block of these."""
        rows = self._rows()
        if self.config.max_length is not None:
            rows["max_length"] = self.config.max_length + self.config.block_size
        return pack_checks(grid, grid.takes_loss_RKS, self.mask_token_id, **rows)


def _state_of_position(
    loss_mask_RKS: Bool[Tensor, "R K S"], is_masked_M: Bool[Tensor, "M"]
) -> tuple[Int[Tensor, "M"], int]:
    """(which state x_t each loss position belongs to, how many states): the blocks with masked positions."""
    row_M, block_M, _ = loss_mask_RKS.nonzero().unbind(1)
    block_M = row_M * loss_mask_RKS.shape[1] + block_M
    with_masks = block_M[is_masked_M].unique()
    return torch.searchsorted(with_masks, block_M), len(with_masks)
