"""Hours of rollouts and of training, from counted arithmetic and memory traffic and a stated utilisation."""

from dataclasses import dataclass

from t3d.planning.memory import Decoding, Step, position_bytes
from t3d.planning.shape import Shape


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Mean tokens of a trajectory."""

    prompt: float
    response: float


@dataclass(frozen=True, kw_only=True)
class Device:
    """What one GPU can do at most, and which share of it is reached."""

    flops_per_second: float
    bytes_per_second: float
    training_utilisation: float
    """Share of the first that a training step reaches, recomputed forwards counted as work."""
    rollout_utilisation: float
    """Share of the roofline (the slower of arithmetic and traffic) that a decoding forward reaches."""


def forward_flops(shape: Shape, lengths: Lengths, block_size: int) -> tuple[float, float]:
    """Of a forward over one trajectory's ``[clean | noisy]``: of its layers, and of the head.

    Two FLOPs for each parameter that a token meets; attention to the tokens that the mask allows; the head at
    every response token. Lengths are in whole blocks.
    """
    prompt, response = lengths.prompt, lengths.response
    clean = prompt + response - block_size
    clean_pairs = clean * (clean + block_size) / 2
    noisy_pairs = response * (prompt + (response + block_size) / 2)
    attention = 4 * shape.num_layers * shape.query_width * (clean_pairs + noisy_pairs)
    products = 2 * shape.visited_parameters * (clean + response)
    return products + attention, 2 * shape.table_parameters * response


def step_flops(step: Step, lengths: Lengths) -> float:
    """Of training on one trajectory: student and reference forward, backward, and what is computed again.

    A backward is two forwards, or one where weights are frozen; the head's logits are computed again in its
    backward, the layers' too with gradient checkpointing.
    """
    layers, head = forward_flops(step.shape, lengths, step.block_size)
    backward = 1 if step.adapter_parameters else 2
    forwards = 2 if step.reference is not None else 1
    return layers * (forwards + backward + step.checkpointing) + head * (forwards + backward + 1)


def training_hours(step: Step, lengths: Lengths, *, num_trajectories: int, device: Device) -> float:
    """Of all optimizer steps together, which see this many trajectories, repeated ones counted again."""
    work = num_trajectories * step_flops(step, lengths)
    return work / (step.num_devices * device.flops_per_second * device.training_utilisation) / 3600


def rollout_hours(
    decoding: Decoding,
    lengths: Lengths,
    *,
    num_prompts: int,
    steps_per_block: int,
    num_devices: int,
    device: Device,
) -> float:
    """Of decoding all prompts, each device its own share, with the batch full all the time.

    A block takes ``steps_per_block`` forwards, the first of which also writes the block before.
    """
    shape, width, rows = decoding.shape, decoding.bytes_per_weight, decoding.batch_size
    block = decoding.block_size
    context = lengths.prompt + lengths.response / 2
    # Per forward: the queries of a step, and a block's share of those that only write.
    queries = rows * block * (1 + 1 / steps_per_block)
    pairs = queries * context
    products = queries * shape.visited_parameters + rows * block * shape.table_parameters
    flops = 2 * products + 4 * pairs * shape.num_layers * shape.query_width
    traffic = width * (shape.visited_parameters + shape.table_parameters)
    traffic += rows * context * position_bytes(shape, width)
    seconds = max(flops / device.flops_per_second, traffic / device.bytes_per_second)
    prefill = 2 * lengths.prompt * shape.visited_parameters / device.flops_per_second
    forwards = lengths.response / block * steps_per_block / rows
    per_prompt = (forwards * seconds + prefill) / device.rollout_utilisation
    return num_prompts * per_prompt / num_devices / 3600
