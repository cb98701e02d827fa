"""What a set of trajectories holds, in numbers."""

import json
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from t3d.trajectory import Trajectory


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How a count is spread over the records."""

    smallest: int
    median: float
    mean: float
    largest: int


@dataclass(frozen=True, kw_only=True)
class TrajectoryStats:
    """Statistics of a set of trajectories; a mapping counts records by value, the most frequent first."""

    num_records: int
    num_distinct_ids: int
    num_distinct_prompts: int
    num_prompt_tokens: int
    num_response_tokens: int
    """Recorded response tokens, terminal filler included."""
    num_visible_tokens: int
    num_cut_records: int
    """Records that end inside their last block."""
    tokens_per_step: float
    """Recorded response tokens per denoising step, over all records."""
    prompt_length: Spread
    response_length: Spread
    visible_length: Spread
    denoising_steps: Spread
    """Denoising steps of a response."""
    steps_per_block: dict[str, int]
    """Blocks of the rollout's own size by the denoising steps they took; the first may be short."""
    finish_reasons: dict[str, int]
    block_sizes: dict[str, int]
    mask_token_ids: dict[str, int]
    tasks: dict[str, int]
    teachers: dict[str, int]
    """Name and start of the weights' hash."""
    tokenizers: dict[str, int]
    """Start of the tokenizer's hash."""
    decode_params: dict[str, int]
    """Decoding settings as JSON."""


def trajectory_stats(trajectories: Sequence[Trajectory]) -> TrajectoryStats:
    """Statistics of at least one trajectory."""
    num_response_tokens = sum(len(trajectory.response_ids) for trajectory in trajectories)
    num_steps = sum(trajectory.num_denoising_steps for trajectory in trajectories)
    return TrajectoryStats(
        num_records=len(trajectories),
        num_distinct_ids=len({trajectory.id for trajectory in trajectories}),
        num_distinct_prompts=len({trajectory.prompt_ids for trajectory in trajectories}),
        num_prompt_tokens=sum(len(trajectory.prompt_ids) for trajectory in trajectories),
        num_response_tokens=num_response_tokens,
        num_visible_tokens=sum(trajectory.visible_length for trajectory in trajectories),
        num_cut_records=sum(not trajectory.terminal_complete for trajectory in trajectories),
        tokens_per_step=num_response_tokens / num_steps,
        prompt_length=_spread(len(trajectory.prompt_ids) for trajectory in trajectories),
        response_length=_spread(len(trajectory.response_ids) for trajectory in trajectories),
        visible_length=_spread(trajectory.visible_length for trajectory in trajectories),
        denoising_steps=_spread(trajectory.num_denoising_steps for trajectory in trajectories),
        steps_per_block=_steps_per_block(trajectories),
        finish_reasons=_counts(trajectory.finish_reason for trajectory in trajectories),
        block_sizes=_counts(str(trajectory.block_size) for trajectory in trajectories),
        mask_token_ids=_counts(str(trajectory.mask_token_id) for trajectory in trajectories),
        tasks=_counts(trajectory.task for trajectory in trajectories),
        teachers=_counts(f"{one.teacher} {one.teacher_hash[:12]}".strip() for one in trajectories),
        tokenizers=_counts(trajectory.tokenizer_hash[:12] for trajectory in trajectories),
        decode_params=_counts(json.dumps(one.decode_params, sort_keys=True) for one in trajectories),
    )


def _spread(values: Iterable[int]) -> Spread:
    counts = list(values)
    return Spread(
        smallest=min(counts),
        median=float(statistics.median(counts)),
        mean=statistics.fmean(counts),
        largest=max(counts),
    )


def _counts(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())


def _steps_per_block(trajectories: Sequence[Trajectory]) -> dict[str, int]:
    """Keys in increasing order."""
    steps = Counter(
        len(set(block))
        for trajectory in trajectories
        for block in trajectory.blocks(trajectory.step_map, trajectory.block_size)
    )
    return {str(count): steps[count] for count in sorted(steps)}
