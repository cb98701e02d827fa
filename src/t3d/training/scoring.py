"""What the student is compared with: the scores of the reference, or of a drafter's base at its checks."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from transformers import PreTrainedModel

from t3d.attention.packed_forward import Arrangement, arrange, packed_forward
from t3d.attention.two_passes import noisy_alone
from t3d.counter_rng import counter_uniform
from t3d.errors import InputError
from t3d.models.divergence import OtherHead
from t3d.models.gated import GATE
from t3d.models.head import HeadScores
from t3d.models.token_pick import TokenPick
from t3d.training.config import T3DConfig
from t3d.training.noising import Stream
from t3d.training.reference import Reference


def reference_scores(
    reference: Reference,
    batch: Mapping[str, Any],
    arrangement: Arrangement,
    args: T3DConfig,
    *,
    mask_token_id: int,
    optimizer_step: int,
) -> HeadScores:
    """The reference's log-probabilities of the labels, and its own guess at each token (the x0 of Eq. 7's
    second expectation), which is never the mask."""
    uniform_M = None
    if args.fake_source == "sample":
        key, epoch = (batch[name][batch["loss_example"]] for name in ("sample_key", "epoch"))
        # The reference changes between refreshes, so the optimizer step is one of the counters.
        counters = (args.seed, epoch, key, int(Stream.FAKE_TOKEN), batch["loss_position_ids"])
        uniform_M = counter_uniform(*counters, optimizer_step)
    with torch.no_grad(), reference.active() as model:
        return packed_forward(
            model,
            batch,
            arrangement,
            loss_positions=batch["loss_positions"],
            targets=batch["labels"][None],
            keeps_hidden=args.fake_source == "expectation",
            pick=TokenPick(excluded_token_id=mask_token_id, uniform_M=uniform_M),
        )


@torch.no_grad()
def check_scores(
    base: PreTrainedModel, batch: Mapping[str, Any], args: T3DConfig, mask_token_id: int
) -> HeadScores:
    """What the base without its drafter says at its check masks: its likeliest token, never the mask.

    With ``draft_targets="rollout"`` that is taken to be the trajectory's.
    """
    if args.draft_targets == "rollout":
        return HeadScores(picked=batch["labels"])
    checks = batch["checks"]
    return packed_forward(
        base,
        checks,
        arrange(checks, args.attention),
        loss_positions=checks["loss_positions"],
        keeps_hidden=args.draft_targets == "distribution",
        pick=TokenPick(excluded_token_id=mask_token_id),
    )


class DraftForward(NamedTuple):
    """What a drafter's forward over a batch needs, and what its base says of the drafts."""

    checked: HeadScores
    batch: Mapping[str, Any]
    arrangement: Arrangement
    head: dict[str, Any]


def prepare_drafts(
    base: PreTrainedModel,
    batch: Mapping[str, Any],
    arrangement: Arrangement,
    args: T3DConfig,
    mask_token_id: int,
) -> DraftForward:
    """Run all that needs no drafter: the base at its checks, and at the clean tokens if they are run apart.

    The drafter's head has to say log-probabilities of the base's tokens, and its own likeliest ones; with
    soft targets the divergence from the base's distribution, of which the mask token is a part.
    """
    checked = check_scores(base, batch, args, mask_token_id)
    batch, arrangement = noisy_alone(base, batch, arrangement)
    assert checked.picked is not None
    head = {name: batch[name] for name in (GATE, "loss_positions")}
    head |= {"targets": checked.picked[None], "pick": TokenPick(excluded_token_id=mask_token_id)}
    if args.draft_targets == "distribution":
        assert checked.hidden is not None
        head["against"] = OtherHead(checked.hidden, base.get_output_embeddings().weight)
    return DraftForward(checked, batch, arrangement, head)


def refuse_sharding(accelerator: Accelerator, args: T3DConfig) -> None:
    """Raise InputError where processes would share a drafter, and not its base, or a student that is asked
    for soft targets outside the model that they share."""
    kind, problem = accelerator.distributed_type, None
    if args.objective == "prefix_acceptance":
        problem = "it would shard the drafter, and leave its base whole on every process"
    elif args.soft_target_source == "student":
        problem = "it would shard the student, which soft_target_source='student' asks whole"
    if problem is not None and kind in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        raise InputError("distributed", kind.value, problem, "train it with plain torchrun (DDP)")
