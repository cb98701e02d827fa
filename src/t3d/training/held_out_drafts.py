"""How much of its drafts a drafter's base accepts, on rollouts that it does not learn from."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from t3d.attention.packed_forward import arrange, packed_forward
from t3d.models.loading import LoadedModel
from t3d.predicts import predicts_of
from t3d.training.config import T3DConfig
from t3d.training.loss import accepted_of_acceptable, drafts_of
from t3d.training.scoring import prepare_drafts
from t3d.training.selection import check_trajectories, select_trajectories
from t3d.training.states import TrajectoryCollator, TrajectoryDataset
from t3d.training.trainer import ACCEPTED, Evaluator
from t3d.trajectory import Trajectory

_BATCH_SIZE = 64
"""Trajectories of a forward."""


def draft_evaluator(
    loaded: LoadedModel, held_out: Sequence[Trajectory], config: T3DConfig, batch_size: int = _BATCH_SIZE
) -> Evaluator:
    """An evaluator for ``T3DTrainer``: accepted tokens per draft, of all and of each task, what they would be
    of a perfect drafter (``acceptable_per_draft``), and the share of whole drafts.

    Every block of a response is drafted once, from its first response token to its end or to the stop token,
    behind the rollout's own tokens; the base's likeliest tokens behind the same tokens decide. So nothing
    is acceptable where the rollout is not what the base would have written left to right. Of a base that
    predicts the next token every group of masks is one draft, and the rollout's tokens are taken to be the
    base's: all of them are acceptable. Raises InputError as training does for such trajectories.
    """
    predicts = predicts_of(loaded.model.config)
    check_trajectories(held_out, loaded.tokenizer, config.block_size)
    kept = select_trajectories(held_out, config, loaded.model.config).kept
    config = copy.copy(config)  # a second TrainingArguments would reset what accelerate knows
    config.draft_open_prob, config.seed = 0.0, 0  # all masked, the same drafts whatever the epoch and seed
    config.draft_targets = "tokens" if predicts == "self" else "rollout"
    dataset = TrajectoryDataset(kept, config)
    collator = TrajectoryCollator(
        config=config,
        pad_token_id=loaded.tokenizer.pad_token_id or 0,
        mask_token_id=loaded.mask_token_id,
        vocab_size=loaded.vocab_size,
        predicts=predicts,
    )
    batches = [
        collator([dataset[index] for index in range(first, min(first + batch_size, len(kept)))])
        for first in range(0, len(kept), batch_size)
    ]
    tasks = sorted({trajectory.task for trajectory in kept} - {""})

    def score(base: PreTrainedModel) -> dict[str, float]:
        found, task = [], []
        for number, batch in enumerate(batches):
            accepted_N, acceptable_N = _accepted(base, _to(batch, base.device), config, loaded.mask_token_id)
            found.append(torch.stack([accepted_N, acceptable_N]).cpu())
            first_N = torch.searchsorted(batch["loss_state"], torch.arange(batch["num_states"]))
            example_N = batch["loss_example"][first_N] + number * batch_size
            task += [kept[index].task for index in example_N.tolist()]
        accepted_N, acceptable_N = torch.cat(found, 1)
        scores = {ACCEPTED: accepted_N.mean().item(), "acceptable_per_draft": acceptable_N.mean().item()}
        scores["whole_drafts"] = (accepted_N == acceptable_N).double().mean().item()
        for name in tasks:
            own = torch.tensor([other == name for other in task])
            scores[f"{name}/{ACCEPTED}"] = accepted_N[own].mean().item()
        return scores

    return score


@torch.no_grad()
def _accepted(
    base: PreTrainedModel, batch: Mapping[str, Any], config: T3DConfig, mask_token_id: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """(accepted tokens of each draft, the most that could be); the drafter is the adapter on the base."""
    arrangement = arrange(batch, config.attention)
    prepared = prepare_drafts(base, batch, arrangement, config, mask_token_id)
    scores = packed_forward(base, prepared.batch, prepared.arrangement, **prepared.head)
    drafts = drafts_of(prepared.checked, batch)
    return accepted_of_acceptable(scores, prepared.checked, drafts, batch)


def _to(value: Any, device: torch.device) -> Any:
    if isinstance(value, Mapping):
        return {name: _to(one, device) for name, one in value.items()}
    return value.to(device) if isinstance(value, torch.Tensor) else value
