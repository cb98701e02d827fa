"""What fits on a device: the largest batches, and what to change where nothing does."""

from collections.abc import Callable
from dataclasses import replace

from t3d.planning.memory import Decoding, Step, peak_bytes, rollout_bytes

MOST = 4096
"""No larger batch is looked for."""


def largest(fits: Callable[[int], bool]) -> int:
    """The largest number up to MOST that fits, of a test that fails from some number on; 0: none does."""
    low, high = 0, 1
    while high <= MOST and fits(high):
        low, high = high, 2 * high
    high = min(high, MOST + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def largest_micro_batch(step: Step, room: float) -> int:
    """Trajectories, all of the longest kind, of which a micro-batch fits into these bytes."""
    return largest(lambda count: peak_bytes(replace(step, num_trajectories=count)) <= room)


def largest_rollout_batch(decoding: Decoding, room: float) -> int:
    """Requests decoded together that fit into these bytes."""
    return largest(lambda count: rollout_bytes(replace(decoding, batch_size=count)).total <= room)


def ways_out(step: Step, room: float, adapter_parameters: int, adapter_rank: int) -> list[tuple[str, float]]:
    """Single changes, then pairs of them, after which the step fits, with the bytes it then takes.

    ``adapter_parameters``: of the adapter that LoRA would train in place of all weights.
    """
    singles: list[tuple[str, Step]] = []
    if step.num_trajectories > 1:
        more = step.accumulation * step.num_trajectories
        text = f"a micro-batch of one (train: gradient_accumulation_steps {more})"
        singles.append((text, replace(step, num_trajectories=1, accumulation=more)))
    if not step.checkpointing:
        text = "gradient checkpointing (train: override activation_checkpointing=true)"
        singles.append((text, replace(step, checkpointing=True)))
    if step.parallel == "ddp" and step.num_devices > 1:
        singles.append(("sharding (plan: parallel fsdp2)", replace(step, parallel="fsdp2")))
    if step.reference == "device" and step.parallel == "ddp":
        text = "the reference in CPU memory (train: override reference_placement=cpu)"
        singles.append((text, replace(step, reference="cpu")))
    if not step.adapter_parameters:
        adapted = replace(
            step,
            adapter_parameters=adapter_parameters,
            adapter_rank=adapter_rank,
            reference=None if step.reference is None else "adapter",
        )
        singles.append((f"an adapter (train: lora_rank {adapter_rank})", adapted))
    found = _fitting(singles, room)
    if found:
        return found
    pairs = [
        (f"{first}, and {second}", _both(step, one, two))
        for index, (first, one) in enumerate(singles)
        for second, two in singles[index + 1 :]
    ]
    return _fitting(pairs, room)


def _fitting(changes: list[tuple[str, Step]], room: float) -> list[tuple[str, float]]:
    sizes = [(text, peak_bytes(changed)) for text, changed in changes]
    return [(text, size) for text, size in sizes if size <= room]


def _both(step: Step, one: Step, two: Step) -> Step:
    """Two changes of the same step together; the second wins where both change a field."""
    fields = step.__dataclass_fields__
    changed = {name: getattr(two, name) for name in fields if getattr(two, name) != getattr(step, name)}
    return replace(one, **changed)
