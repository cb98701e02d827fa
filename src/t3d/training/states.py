"""State source: from recorded trajectories to noisy states with targets, weights and counts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler
from transformers import PreTrainedTokenizerBase

from t3d.counter_rng import counter_uniform, stable_key
from t3d.data.collate import TrainingExample, join_copies, lay_on_grid
from t3d.errors import InputError, require_unique_ids
from t3d.models.loading import tokenizer_hash
from t3d.noising import NoiseSource, draw_mask_ratios, mix_random_tokens, trajectory_noise_mask
from t3d.objectives.path_consistency import linear_path_weights, nested_prefix_weights
from t3d.training.config import T3DConfig
from t3d.trajectory import Trajectory


def check_trajectories(
    trajectories: Sequence[Trajectory], tokenizer: PreTrainedTokenizerBase, block_size: int
) -> None:
    """Raise InputError unless these trajectories can teach a student.

    All must be made with its tokenizer and mask token, have an id of their own, and be rolled out with
    one block size that divides the student's or is divided by it: only then no student block holds
    parts of two rollout blocks without holding one of them whole, or lying inside one.
    """
    if not trajectories:
        raise InputError("train_dataset", 0, "no trajectories", "roll out at least one prompt")
    fix = "use trajectories of a teacher with the student's own tokenizer"
    expected_mask, expected_hash = tokenizer.mask_token_id, tokenizer_hash(tokenizer)
    if expected_mask is None:
        expected_mask = trajectories[0].mask_token_id
    for trajectory in trajectories:
        if trajectory.mask_token_id != expected_mask:
            problem = f"trajectory {trajectory.id!r} was masked with another token than {expected_mask}"
            raise InputError("mask_token_id", trajectory.mask_token_id, problem, fix)
        if trajectory.tokenizer_hash not in ("", expected_hash):
            problem = f"trajectory {trajectory.id!r} was made with another tokenizer"
            raise InputError("tokenizer_hash", trajectory.tokenizer_hash[:12], problem, fix)
        _check_grid(trajectory, trajectories[0], block_size)
    require_unique_ids((trajectory.id for trajectory in trajectories), "trajectories")


def _check_grid(trajectory: Trajectory, first: Trajectory, block_size: int) -> None:
    size = trajectory.block_size
    if size != first.block_size:
        problem = (
            f"trajectory {trajectory.id!r} was rolled out in such blocks, {first.id!r} in {first.block_size}"
        )
        raise InputError("block_size", size, problem, "train on trajectories of one block size")
    if size % block_size and block_size % size:
        problem = f"the trajectories' blocks of {size} do not nest with the student's"
        fix = f"use a block size that divides {size} or is a multiple of it, or roll out again"
        raise InputError("block_size", block_size, problem, fix)


class TrajectoryDataset(Dataset):
    """Trajectories as training examples for a student's block size.

    Raises InputError for a token outside the student's vocabulary.
    """

    def __init__(self, trajectories: Sequence[Trajectory], config: T3DConfig, vocab_size: int) -> None:
        self.config, self.epoch = config, 0
        for trajectory in trajectories:
            largest = max(*trajectory.prompt_ids, *trajectory.response_ids, 0)
            if largest >= vocab_size:
                problem = f"trajectory {trajectory.id!r} has token id {largest}"
                raise InputError(
                    "vocab_size", vocab_size, problem, "roll out with the student's own tokenizer"
                )
        self.trajectories = list(trajectories)

    def set_epoch(self, epoch: int) -> None:
        """Called by the data loader: the epoch keys the order and, unless drawn once, the noise."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.trajectories)

    def __getitem__(self, index: int) -> TrainingExample:
        trajectory = self.trajectories[index]
        length = self._num_usable_tokens(trajectory)
        num_loss_tokens = (
            length if self.config.terminal_filler_loss else min(trajectory.visible_length, length)
        )
        return TrainingExample(
            sample_key=stable_key(trajectory.id),
            epoch=self.epoch if self.config.noise_refresh == "epoch" else 0,
            prompt_ids=trajectory.prompt_ids,
            response_ids=trajectory.response_ids[:length],
            step_map=trajectory.step_map[:length],
            token_weight=self._path_weights(trajectory)[:length],
            num_loss_tokens=num_loss_tokens,
        )

    def _num_usable_tokens(self, trajectory: Trajectory) -> int:
        """The response without a terminal block whose end was not recorded (unless it is all there is)."""
        if trajectory.terminal_complete:
            return len(trajectory.response_ids)
        last = trajectory.blocks(trajectory.response_ids, trajectory.block_size)[-1]
        return len(trajectory.response_ids) - len(last) or len(trajectory.response_ids)

    def _path_weights(self, trajectory: Trajectory) -> list[float]:
        config = self.config
        if config.path_weighting == "nested_prefix":
            local = torch.tensor(trajectory.local_steps(config.block_size, config.grid_origin))
            is_answer = torch.arange(len(local)) < trajectory.visible_length
            if trajectory.finish_reason == "stop":
                is_answer[trajectory.visible_length - 1] = (
                    False  # the released code never weighs the stop token
                )
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


@dataclass(frozen=True, kw_only=True)
class TrajectoryCollator:
    """Examples to a ``[clean | noisy]`` batch.

    Beyond the keys of :func:`~t3d.data.collate.join_copies`: ``is_masked`` [M], False for a visible
    position, which occurs with ``path_positions="all"`` only; ``loss_position_ids`` [M] (absolute
    positions), ``sample_key`` and ``epoch`` [R], the counters of the fake tokens' noise.
    """

    config: T3DConfig
    pad_token_id: int
    mask_token_id: int
    vocab_size: int

    def __call__(self, examples: Sequence[TrainingExample]) -> dict[str, Any]:
        """Draw the states and build the batch."""
        config = self.config
        grid = lay_on_grid(examples, config.block_size, self.pad_token_id, config.grid_origin)
        noise = NoiseSource(seed=config.seed, epoch_R=grid.epoch_R, sample_key_R=grid.sample_key_R)
        level_RK = noise.level_uniform(grid.valid_RKS, config.state_scope)
        ratio_RK = draw_mask_ratios(level_RK, config.mask_ratios, config.mask_ratio_power)
        noise_mask = trajectory_noise_mask(grid.step_RKS, grid.valid_RKS, ratio_RK, config.state_order)
        noisy_ids = mix_random_tokens(
            grid.ids_RKS.masked_fill(noise_mask, self.mask_token_id),
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
        batch: dict[str, Any] = join_copies(grid, noisy_ids, loss_mask)
        batch["is_masked"] = noise_mask[loss_mask]
        batch["loss_position_ids"] = grid.position_RKS[loss_mask]
        batch["sample_key"], batch["epoch"] = grid.sample_key_R, grid.epoch_R
        return batch
