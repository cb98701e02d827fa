"""Hours and what fits: counted FLOPs against the mask, largest batches, ways out."""

import dataclasses

import pytest
import torch

from t3d.attention.masks import training_mask
from t3d.errors import InputError
from t3d.models.sdar import SDARConfig
from t3d.planning.assumptions import GIB, assumptions
from t3d.planning.fit import largest, largest_micro_batch, ways_out
from t3d.planning.hours import Device, Lengths, forward_flops, rollout_hours, step_flops, training_hours
from t3d.planning.known import published_shape
from t3d.planning.memory import Decoding, Step, loading_bytes, peak_bytes, training_bytes
from t3d.planning.shape import shape_of

SHAPE = shape_of(
    SDARConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        vocab_size=256,
        tie_word_embeddings=False,
    )
)
LENGTHS = Lengths(prompt=16, response=24)
DEVICE = Device(
    flops_per_second=1e12, bytes_per_second=1e12, training_utilisation=0.5, rollout_utilisation=0.5
)
STEP = Step(shape=SHAPE, num_trajectories=2, prompt_tokens=16, response_tokens=24)


def test_attention_is_counted_pair_by_pair_as_the_mask_allows():
    block, prompt, response = 8, 16, 24
    clean = torch.arange(prompt + response - block) // block
    noisy = torch.arange(prompt, prompt + response) // block
    is_noisy = torch.cat([torch.zeros_like(clean), torch.ones_like(noisy)]).bool()
    mask = training_mask(
        torch.zeros(1, len(is_noisy), dtype=torch.int64), torch.cat([clean, noisy])[None], is_noisy[None]
    )
    layers, head = forward_flops(SHAPE, LENGTHS, block)
    tokens = len(is_noisy)
    assert layers == 2 * SHAPE.visited_parameters * tokens + 4 * 2 * 32 * int(mask.sum())
    assert head == 2 * 256 * 32 * response


def test_a_step_is_forwards_backward_and_what_is_computed_again():
    layers, head = forward_flops(SHAPE, LENGTHS, 8)
    assert step_flops(STEP, LENGTHS) == 4 * layers + 5 * head
    assert step_flops(dataclasses.replace(STEP, checkpointing=True), LENGTHS) == 5 * layers + 5 * head
    assert step_flops(dataclasses.replace(STEP, reference=None), LENGTHS) == 3 * layers + 4 * head
    adapted = dataclasses.replace(STEP, adapter_parameters=10, adapter_rank=1, reference="adapter")
    assert step_flops(adapted, LENGTHS) == 3 * layers + 4 * head


def test_hours_go_down_with_devices_and_utilisation():
    alone = training_hours(STEP, LENGTHS, num_trajectories=100, device=DEVICE)
    assert alone == pytest.approx(100 * step_flops(STEP, LENGTHS) / 0.5e12 / 3600)
    eight = dataclasses.replace(STEP, num_devices=8)
    assert training_hours(eight, LENGTHS, num_trajectories=100, device=DEVICE) == pytest.approx(alone / 8)


def test_a_small_batch_is_bound_by_traffic_and_a_large_one_by_arithmetic():
    def hours(batch_size: int, **changes: float) -> float:
        decoding = Decoding(
            shape=published_shape("JetLM/SDAR-4B-Chat"),
            batch_size=batch_size,
            prompt_tokens=100,
            max_new_tokens=200,
            block_size=4,
            bytes_per_weight=2,
        )
        device = dataclasses.replace(DEVICE, flops_per_second=3e14, **{"bytes_per_second": 1.5e12, **changes})
        how = {"num_prompts": 1000, "steps_per_block": 4, "num_devices": 1, "device": device}
        return rollout_hours(decoding, Lengths(prompt=100, response=200), **how)

    assert hours(8) < hours(1) / 7
    assert hours(1, bytes_per_second=3e12) < 0.6 * hours(1)
    assert hours(512, bytes_per_second=3e12) == pytest.approx(hours(512))


def test_the_largest_batch_fits_and_the_next_does_not():
    room = training_bytes(dataclasses.replace(STEP, num_trajectories=37)).total
    count = largest_micro_batch(STEP, room)
    assert count == 37
    assert largest(lambda number: number <= 1000) == 1000
    assert largest(lambda number: False) == 0


def test_every_way_out_fits_and_is_a_change():
    step = Step(
        shape=published_shape("JetLM/SDAR-4B-Chat"),
        num_trajectories=4,
        prompt_tokens=512,
        response_tokens=2000,
        num_devices=8,
        autocast=True,
    )
    room = 77 * GIB
    found = ways_out(step, room, 10**7, 16)
    assert found and all(size <= room for _, size in found)
    assert not ways_out(step, GIB, 10**7, 16)


def test_fsdp2_holds_whole_copies_before_it_cuts_them_up():
    spread = dataclasses.replace(STEP, num_devices=8, parallel="fsdp2", num_trajectories=1)
    assert loading_bytes(STEP) == 0
    assert loading_bytes(spread) == 2 * 4 * SHAPE.num_parameters
    assert loading_bytes(dataclasses.replace(spread, reference=None)) == 4 * SHAPE.num_parameters
    assert peak_bytes(spread) == max(training_bytes(spread).total, loading_bytes(spread))


def test_what_is_given_wins_over_what_was_measured_and_that_over_what_is_assumed():
    found = assumptions({"peak_tflops": 989}, {"peak_tflops": 700, "training_utilisation": 0.4}, "x.json")
    assert (found["peak_tflops"].value, found["peak_tflops"].source) == (989, "given")
    assert found["training_utilisation"].source == "measured (x.json)"
    assert found["reserve_gb"].source.startswith("assumed")


def test_an_adapter_on_layers_that_are_not_there_is_refused():
    with pytest.raises(InputError, match="no linear layer experts"):
        SHAPE.adapter_parameters(4, ["q_proj", "experts"])
