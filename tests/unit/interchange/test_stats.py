"""Statistics of trajectories, worked out by hand."""

import dataclasses
import json

from t3d.interchange.stats import Spread, trajectory_stats
from t3d.trajectory import Trajectory

FIRST = Trajectory(
    id="a",
    prompt_ids=(1, 2, 3, 4, 5, 6),
    response_ids=(11, 12, 13, 14, 15, 16),
    step_map=(2, 1, 4, 3, 4, 5),
    visible_length=5,
    finish_reason="stop",
    block_size=4,
    mask_token_id=37,
    decode_params={"steps_per_block": 4, "block_size": 4},
    task="chain",
    teacher="mini",
    teacher_hash="0123456789abcdef",
    tokenizer_hash="f" * 64,
)
"""Blocks of the rollout: steps 2 1 | 4 3 4 5, so 2 and 3 steps."""
SECOND = Trajectory(
    id="b",
    prompt_ids=(1, 2),
    response_ids=(7, 8),
    step_map=(1, 1),
    visible_length=2,
    finish_reason="length",
    block_size=8,
    mask_token_id=37,
    terminal_complete=False,
)


def test_statistics_by_hand():
    stats = trajectory_stats([FIRST, SECOND])
    assert (stats.num_records, stats.num_distinct_ids, stats.num_distinct_prompts) == (2, 2, 2)
    assert (stats.num_prompt_tokens, stats.num_response_tokens, stats.num_visible_tokens) == (8, 8, 7)
    assert stats.num_cut_records == 1
    assert stats.tokens_per_step == 8 / 6
    assert stats.response_length == Spread(smallest=2, median=4.0, mean=4.0, largest=6)
    assert stats.denoising_steps == Spread(smallest=1, median=3.0, mean=3.0, largest=5)
    assert stats.steps_per_block == {"1": 1, "2": 1, "3": 1}
    assert stats.finish_reasons == {"stop": 1, "length": 1}
    assert stats.block_sizes == {"4": 1, "8": 1}
    assert stats.tasks == {"chain": 1, "": 1}
    assert stats.teachers == {"mini 0123456789ab": 1, "": 1}
    assert stats.tokenizers == {"f" * 12: 1, "": 1}
    assert stats.decode_params == {'{"block_size": 4, "steps_per_block": 4}': 1, "{}": 1}


def test_values_are_ordered_by_how_often_they_occur_and_steps_by_size():
    many = [dataclasses.replace(FIRST, id=str(index)) for index in range(3)]
    stats = trajectory_stats([SECOND, *many])
    assert list(stats.block_sizes) == ["4", "8"]
    assert stats.steps_per_block == {"1": 1, "2": 3, "3": 3}


def test_equal_ids_and_prompts_count_once():
    stats = trajectory_stats([FIRST, FIRST])
    assert (stats.num_records, stats.num_distinct_ids, stats.num_distinct_prompts) == (2, 1, 1)


def test_statistics_are_plain_json():
    plain = dataclasses.asdict(trajectory_stats([FIRST, SECOND]))
    assert json.loads(json.dumps(plain)) == plain
