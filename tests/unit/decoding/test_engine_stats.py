"""What the engine did, counted by hand and by watching its forwards."""

import dataclasses
import json
import runpy
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from t3d.attention.slots import Spans
from t3d.decoding.committed import Committed
from t3d.decoding.completion import DecodeRequest
from t3d.decoding.engine import Engine, EngineConfig
from t3d.decoding.forward import Forward
from t3d.decoding.jobs import Job
from t3d.decoding.params import DecodeParams
from t3d.decoding.stats import EngineStats

ModelShape = runpy.run_path(str(Path(__file__).parents[3] / "benchmarks" / "roofline.py"))["ModelShape"]

MASK, VOCAB, HIDDEN = 37, 40, 32
ATTENTION = 2 * HIDDEN * 32 + 2 * HIDDEN * 16 + 2 * 8
"""A tiny layer's weights: queries and output, keys and values, two norms of a head."""
LAYER = ATTENTION + 3 * HIDDEN * 48 + 2 * HIDDEN
BODY, HEAD = 2 * LAYER + HIDDEN, VOCAB * HIDDEN
WIDTH = 64
"""Two layers x four heads of 8; as many numbers are a position's keys and values: 2 x 2 layers x 2 x 8."""
SHAPE = ModelShape(
    body_parameters=BODY,
    head_parameters=HEAD,
    bytes_per_weight=8,
    attention_width=WIDTH,
    key_value_width=WIDTH,
)


def spans_of(*rows):
    """A row is (start, end, block size)."""
    start, end, size = np.array(rows).T
    return Spans(slot_R=np.arange(len(rows)), start_R=start, end_R=end, block_size_R=size)


def count(stats, spans, *, num_logits, num_steps=1, num_commits=0):
    """Count a forward whose first rows denoise."""
    row = np.arange(len(spans.slot_R))
    forward = Forward(
        spans=spans,
        ids_T=np.zeros(int(spans.length_R.sum()), dtype=np.int64),
        row_M=np.zeros(num_logits, dtype=np.int64),
        position_M=np.arange(num_logits),
        place_M=np.arange(num_logits),
        masked=[],
        written_R=np.zeros_like(row),
        denoises_R=row < num_steps,
        is_commit_R=row < num_commits,
        writes_prompt=False,
    )
    left = Committed(clean=row[:0], num_finished_blocks=0, broken=row[:0], unread=row[:0], checked=[])
    stats.count_forward(forward, left, completions=[], kv_bytes=0, seconds=0.0)


def run(model, prompt_lengths, params, **settings):
    """The engine and its completions, greedy, without stop tokens."""
    engine = Engine(model, mask_token_id=MASK, stop_token_ids=(), config=EngineConfig(**settings))
    requests = [
        DecodeRequest(id=str(index), prompt_ids=tuple(range(1, length + 1)))
        for index, length in enumerate(prompt_lengths)
    ]
    return engine, list(engine.decode([Job(request, params) for request in requests]).values())


# --- the model ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("dtype", "num_bytes"), [(torch.float64, 8), (torch.bfloat16, 2)])
def test_the_shape_of_a_dense_model_by_hand(make_model, tied, dtype, num_bytes):
    """Embedding and head are not in the body, be they one matrix or two."""
    model = make_model(dtype=dtype, tie_word_embeddings=tied)
    assert ModelShape.of_model(model) == dataclasses.replace(SHAPE, bytes_per_weight=num_bytes)


@pytest.mark.parametrize(("experts", "visited"), [(4, 2), (4, 1), (8, 2), (3, 2), (4, 4)])
def test_of_a_mixture_of_experts_only_the_visited_ones_count(make_moe_model, experts, visited):
    """Each of them three matrices of hidden 32 x 24; the router weighs all of them."""
    model = make_moe_model(num_experts=experts, num_experts_per_tok=visited)
    layer = ATTENTION + 2 * HIDDEN + experts * HIDDEN + visited * 3 * HIDDEN * 24
    shape = ModelShape.of_model(model)
    assert shape.body_parameters == 2 * layer + HIDDEN
    assert shape.head_parameters == HEAD


# --- one forward --------------------------------------------------------------------------------------


def test_arithmetic_and_memory_traffic_of_two_forwards_by_hand(tiny_model):
    """A prompt of 4 with its first block; then that block again, beside a row at its third block of 4.

    Forward 1: 8 tokens, 4 of which see 4 keys and 4 see 8. Forward 2: 4 + 4 tokens that see 8 and 12.
    """
    stats = EngineStats(max_batch_size=2)
    count(stats, spans_of((0, 8, 4)), num_logits=4)
    assert (stats.query_tokens, stats.attended_pairs, stats.key_positions) == (8, 4 * 4 + 4 * 8, 8)
    assert SHAPE.flops(stats) == 2 * (8 * BODY + 4 * HEAD) + 4 * 48 * WIDTH
    assert SHAPE.bytes_moved(stats) == 8 * (BODY + HEAD + (8 + 8) * WIDTH)
    count(stats, spans_of((4, 8, 4), (8, 12, 4)), num_logits=3, num_steps=2)
    assert (stats.query_tokens, stats.attended_pairs, stats.key_positions) == (16, 48 + 80, 28)
    assert SHAPE.flops(stats) == 2 * (16 * BODY + 7 * HEAD) + 4 * 128 * WIDTH
    assert SHAPE.bytes_moved(stats) == 8 * (2 * (BODY + HEAD) + (28 + 16) * WIDTH)
    assert (stats.forwards, stats.row_steps, stats.row_commits, stats.logit_rows) == (2, 3, 0, 7)


def test_a_forward_without_logits_reads_no_head(tiny_model):
    """One that only writes a prompt or a finished block."""
    stats = EngineStats(max_batch_size=1)
    count(stats, spans_of((0, 4, 4)), num_logits=0, num_steps=0, num_commits=1)
    assert SHAPE.flops(stats) == 2 * 4 * BODY + 4 * 16 * WIDTH
    assert SHAPE.bytes_moved(stats) == 8 * (BODY + (4 + 4) * WIDTH)
    assert (stats.row_steps, stats.row_commits, stats.logit_rows) == (0, 1, 0)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 5), st.sampled_from([1, 2, 4, 8])), min_size=1))
def test_attended_pairs_equal_a_brute_force_count(tiny_model, blocks):
    """Every query sees the keys of its own block and of earlier ones; rows have their own block sizes."""
    rows = [(first * size, (first + number) * size, size) for first, number, size in blocks]
    stats = EngineStats(max_batch_size=len(rows))
    count(stats, spans_of(*rows), num_logits=1)
    assert stats.attended_pairs == sum(
        key // size <= query // size
        for start, end, size in rows
        for query in range(start, end)
        for key in range(end)
    )


# --- whole runs ---------------------------------------------------------------------------------------


def test_a_run_of_two_requests_by_hand(tiny_model):
    """Prompts of 5 and 4, 8 new tokens, blocks of 4 in 4 steps: 3 + 4 + 4 and 4 + 4 forwards.

    The first of a block writes the one before it, so it has 8 tokens. Queries per block of the first
    request: 8 + 4 + 4, 8 + 3 x 4, 8 + 3 x 4; pairs 48 + 2 x 32, 80 + 3 x 48, 112 + 3 x 64; logits
    3 + 2 + 1 and 4 + 3 + 2 + 1 twice. The second has its prompt in a whole block and ends with 12.
    """
    params = DecodeParams(temperature=0.0, max_new_tokens=8)
    stats = run(tiny_model, [5, 4], params, max_batch_size=4)[0].stats
    assert (stats.forwards, stats.row_steps, stats.row_commits) == (11, 19, 0)
    assert stats.query_tokens == (16 + 20 + 20) + (20 + 20)
    assert stats.logit_rows == (6 + 10 + 10) + (10 + 10)
    assert stats.attended_pairs == (112 + 224 + 304) + (48 + 3 * 32 + 224)
    assert stats.key_positions == (3 * 8 + 4 * 12 + 4 * 16) + (4 * 8 + 4 * 12)
    assert SHAPE.flops(stats) == 2 * (96 * BODY + 46 * HEAD) + 4 * 1008 * WIDTH
    assert SHAPE.bytes_moved(stats) == 8 * (11 * (BODY + HEAD) + (216 + 96) * WIDTH)
    assert (stats.requests, stats.blocks) == (2, 3 + 2)
    assert (stats.committed_tokens, stats.visible_tokens) == (11 + 8, 8 + 8)
    summary = stats.summary()
    assert summary["tokens_per_forward"] == 19 / 19
    assert summary["forwards_per_block"] == 19 / 5
    assert summary["row_utilisation"] == 19 / (11 * 4)
    assert summary["kv_bytes"] == 2 * 16 * WIDTH * 8  # two slots of 16 positions


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("batch_size", [pytest.param(1, marks=pytest.mark.many_inputs), 3])
@pytest.mark.parametrize("remasking", ["low_confidence_static", "low_confidence_dynamic"])
def test_the_counts_are_those_of_the_forwards_that_the_model_saw(make_model, fuse, batch_size, remasking):
    """Logits are asked for at the masked positions of active blocks, and nowhere else."""
    model, seen = make_model(), []

    def record(_, __, kwargs):
        ids_T, asked_M = kwargs["input_ids"][0], kwargs["logit_positions"]
        seen.append((len(ids_T), len(asked_M), int((ids_T == MASK).sum())))

    model.register_forward_pre_hook(record, with_kwargs=True)
    params = DecodeParams(
        steps_per_block=3, remasking=remasking, confidence_threshold=0.3, temperature=1.0, max_new_tokens=13
    )
    lengths = [3, 9, 4, 12]
    engine, completions = run(model, lengths, params, fuse_commits=fuse, max_batch_size=batch_size)
    stats = engine.stats
    tokens, asked, masked = zip(*seen, strict=True)
    assert asked == masked
    assert stats.forwards == len(seen)
    assert stats.query_tokens == sum(tokens)
    assert stats.logit_rows == sum(masked)
    assert stats.row_steps == sum(completion.num_denoising_steps for completion in completions)
    assert stats.row_commits == sum(completion.num_commit_forwards for completion in completions)
    assert (stats.row_commits == 0) == fuse
    num_blocks = sum(
        -(-(length + 13) // 4) - length // 4 for length in lengths
    )  # from the prompt's tail to the end
    assert stats.blocks == num_blocks
    assert stats.committed_tokens == sum(len(completion.response_ids) for completion in completions)
    assert stats.visible_tokens == 4 * 13
    summary, row_forwards = stats.summary(), stats.row_steps + stats.row_commits
    assert summary["tokens_per_forward"] == stats.committed_tokens / row_forwards
    assert summary["forwards_per_block"] == row_forwards / num_blocks
    assert summary["row_utilisation"] == row_forwards / (len(seen) * batch_size)
    if batch_size == 1 and fuse:
        assert summary["row_utilisation"] == 1


def test_padding_to_fixed_shapes_is_not_counted(tiny_model):
    """It is no work that the requests need: all measures but time and memory are those without it."""
    params = DecodeParams(temperature=1.0, steps_per_block=2, max_new_tokens=9)
    plain, padded = (
        run(tiny_model, [3, 9, 4], params, max_batch_size=2, fixed_shapes=fixed)[0].stats.summary()
        for fixed in (False, True)
    )
    differing = {name for name in plain if plain[name] != padded[name]}
    measured = {"seconds", "prefill_seconds", "decode_seconds", "visible_tokens_per_second"}
    assert differing <= measured | {"kv_bytes"}


def test_keys_and_values_take_what_the_largest_call_needed(tiny_model):
    params = DecodeParams(max_new_tokens=4)
    engine, _ = run(tiny_model, [4], params)
    assert engine.stats.kv_bytes == 1 * 8 * WIDTH * 8
    for lengths, slots, positions in (([12, 4, 4], 3, 16), ([4], 3, 16)):
        requests = [DecodeRequest(id=str(n), prompt_ids=(1,) * length) for n, length in enumerate(lengths)]
        engine.decode([Job(request, params) for request in requests])
        assert engine.stats.kv_bytes == slots * positions * WIDTH * 8


def test_time_is_that_of_the_forwards(tiny_model):
    started = time.perf_counter()
    stats = run(tiny_model, [3, 4], DecodeParams(max_new_tokens=8))[0].stats
    elapsed = time.perf_counter() - started
    assert 0 < stats.seconds < elapsed
    assert stats.summary()["visible_tokens_per_second"] == 16 / stats.seconds
    assert stats.summary()["seconds"] == stats.seconds


@pytest.mark.parametrize(
    ("lengths", "settings", "prefills"),
    [
        ([3], {}, 0),  # no whole block in the prompt
        ([8], {}, 1),
        ([8], {"fuse_commits": False}, 1),
        ([12], {"max_prefill_tokens": 4}, 3),  # a block at a time, the last with the first step
        ([8, 8, 8], {"max_batch_size": 1}, 3),
        ([8, 9], {}, 1),  # both at once
    ],
)
def test_prefill_forwards_are_those_that_write_prompt_blocks(tiny_model, lengths, settings, prefills):
    stats = run(tiny_model, lengths, DecodeParams(max_new_tokens=8), **settings)[0].stats
    assert stats.prefill_forwards == prefills
    assert (stats.prefill_seconds > 0) == (prefills > 0)
    assert stats.prefill_seconds < stats.seconds


# --- measures -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flops_per_second", "bytes_per_second", "fraction"),
    [
        (100.0, 100.0, 6 / 8),  # arithmetic binds: 600 / 100 seconds of the 8
        (1000.0, 100.0, 3 / 8),  # memory binds: 300 / 100
        (200.0, 100.0, 3 / 8),  # both
        (50.0, 1.0, 300 / 8),  # slower peaks than the machine has: above 1
    ],
)
def test_the_roofline_fraction_by_hand(flops_per_second, bytes_per_second, fraction):
    """3 weights of 2 bytes: 50 forwards of 2 tokens are 600 operations and 300 bytes."""
    shape = ModelShape(
        body_parameters=3, head_parameters=0, bytes_per_weight=2, attention_width=0, key_value_width=0
    )
    stats = EngineStats(max_batch_size=1, forwards=50, query_tokens=100, seconds=8.0)
    peaks = {"flops_per_second": flops_per_second, "bytes_per_second": bytes_per_second}
    assert shape.roofline_fraction(stats, **peaks) == pytest.approx(fraction)


def test_the_summary_goes_into_json_before_and_after_a_run(tiny_model):
    empty = EngineStats(max_batch_size=1).summary()
    assert set(empty.values()) == {0}
    used = run(tiny_model, [3], DecodeParams(max_new_tokens=4))[0].stats.summary()
    assert json.loads(json.dumps(used)) == used
    assert used.keys() == empty.keys()
