"""A whole plan: what a recipe takes on given GPUs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from t3d.planning.assumptions import GIB, Assumption
from t3d.planning.fit import largest_micro_batch, largest_rollout_batch, ways_out
from t3d.planning.hours import Device, Lengths, rollout_hours, training_hours
from t3d.planning.memory import (
    Decoding,
    RolloutBytes,
    Step,
    TrainingBytes,
    peak_bytes,
    rollout_bytes,
    training_bytes,
)


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a recipe asks for."""

    model: str
    how_known: str
    """Where the model's shape is from."""
    step: Step
    decoding: Decoding
    steps_per_block: int
    num_prompts: int
    num_trajectories: int
    """That training sees, over all optimizer steps."""
    gigabytes: float
    """Of each GPU."""
    assumed: Mapping[str, Assumption]
    proposed_rank: int
    proposed_adapter: int
    """Parameters of the adapter that is proposed where nothing fits."""


@dataclass(frozen=True, kw_only=True)
class Planned:
    """What it takes."""

    work: Work
    room: float
    """Bytes of each GPU that may be used."""
    training: TrainingBytes
    other_checkpointing: TrainingBytes
    """The same with gradient checkpointing where the recipe has none, and the other way round."""
    peak: float
    """Bytes of training at any moment: of a step, or before FSDP2 has cut up the weights."""
    rollout: RolloutBytes
    largest_micro_batch: int
    largest_rollout_batch: int
    training_hours: float
    rollout_hours: float
    ways_out: tuple[tuple[str, float], ...]
    """Changes after which training fits; empty where it does."""


def plan(work: Work) -> Planned:
    """Memory, largest batches and hours."""
    value = {name: assumption.value for name, assumption in work.assumed.items()}
    room = (work.gigabytes - value["reserve_gb"]) * GIB
    step, decoding = work.step, work.decoding
    training = training_bytes(step)
    peak = peak_bytes(step)
    device = Device(
        flops_per_second=value["peak_tflops"] * 1e12,
        bytes_per_second=value["memory_bandwidth"] * 1e9,
        training_utilisation=value["training_utilisation"],
        rollout_utilisation=value["rollout_utilisation"],
    )
    lengths = Lengths(prompt=value["prompt_tokens"], response=value["response_tokens"])
    return Planned(
        work=work,
        room=room,
        training=training,
        other_checkpointing=training_bytes(replace(step, checkpointing=not step.checkpointing)),
        peak=peak,
        rollout=rollout_bytes(decoding),
        largest_micro_batch=largest_micro_batch(step, room),
        largest_rollout_batch=largest_rollout_batch(decoding, room),
        training_hours=training_hours(step, lengths, num_trajectories=work.num_trajectories, device=device),
        rollout_hours=rollout_hours(
            decoding,
            lengths,
            num_prompts=work.num_prompts,
            steps_per_block=work.steps_per_block,
            num_devices=step.num_devices,
            device=device,
        ),
        ways_out=()
        if peak <= room
        else tuple(ways_out(step, room, work.proposed_adapter, work.proposed_rank)),
    )
