"""Packing changes nothing but the arrangement of tokens: losses, gradients and weights stay."""

import dataclasses

import pytest
import torch
from training_helpers import OF_EVERY_WAY, config, logged, trainer, weights

from t3d.errors import InputError
from t3d.training.presets import PRESETS, preset_fields


def loss_and_gradient(run, order, size):
    """Of all trajectories, ``size`` per micro-batch in this order, divided by the counts of them all."""
    examples = [run.train_dataset[index] for index in order]
    batches = [run.data_collator(examples[first : first + size]) for first in range(0, len(order), size)]
    counts = run._get_num_items_in_batch(batches, torch.device("cpu"))
    run.model.zero_grad()
    total = 0.0
    for batch in batches:
        total += run.training_step(run.model, batch, counts).item()
    return total, torch.cat([weight.grad.flatten() for weight in run.model.parameters()])


def disturb(run):
    """A student that is no longer its reference, so that all parts of the loss count."""
    with torch.no_grad():
        for weight in run.model.parameters():
            weight.add_(0.01 * torch.randn_like(weight))


@pytest.mark.parametrize(
    "preset",
    [pytest.param(name, marks=[] if name in OF_EVERY_WAY else [pytest.mark.slow]) for name in PRESETS],
)
def test_loss_and_gradients_do_not_depend_on_packing_order_or_micro_batches(
    checkpoint, trajectories, tmp_path, preset
):
    """One trajectory per row under the dense mask, against rows shared, split and reordered."""
    fields = preset_fields(preset) | {"fake_source": "argmax"}
    alone = trainer(checkpoint, trajectories, tmp_path, **fields, attention="dense")
    torch.manual_seed(1)
    disturb(alone)
    in_order = list(range(len(trajectories)))
    expected_loss, expected_gradient = loss_and_gradient(alone, in_order, 1)
    longest = max(len(t.prompt_ids) + 2 * len(t.response_ids) for t in trajectories)
    mixed = [3, 1, 4, 0, 7, 2, 6, 5]
    for attention, max_length, order, size in [
        ("documents", None, in_order, 8),
        ("documents", longest + 8, in_order[::-1], 8),
        ("documents", longest - 8, mixed, 8),
        ("documents", longest - 8, in_order, 3),
        ("dense", None, mixed, 8),
        ("dense", longest - 8, mixed, 3),
    ]:
        packed = trainer(
            checkpoint, trajectories, tmp_path, **fields, attention=attention, max_length=max_length
        )
        assert len(packed.train_dataset) == len(trajectories)
        packed.model.load_state_dict(alone.model.state_dict())
        loss, gradient = loss_and_gradient(packed, order, size)
        assert loss == pytest.approx(expected_loss, abs=1e-6)
        # transformers' RMSNorm rounds to float32 inside, in float64 models too.
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-5, atol=1e-7)


def test_splitting_really_happens(checkpoint, trajectories, tmp_path):
    """So that the test above is about something: the same trajectories, more documents than them."""
    longest = max(len(t.prompt_ids) + 2 * len(t.response_ids) for t in trajectories)
    run = trainer(checkpoint, trajectories, tmp_path, max_length=longest - 8)
    batch = run.data_collator([run.train_dataset[index] for index in range(8)])
    assert len(batch["documents"]) > 8
    assert batch["input_ids"].shape[0] > 1
    assert len(batch["sample_key"]) == 8


def test_accumulated_and_packed_training_gives_the_same_weights(checkpoint, trajectories, tmp_path):
    """8 x 1 with rows of a few tokens, against 1 x 8 in one row: three optimizer steps."""
    results = []
    for micro_batch, max_length in ((8, None), (8, 64), (2, None), (1, 64)):
        fields = {"per_device_train_batch_size": micro_batch, "max_length": max_length, "max_steps": 3}
        fields["gradient_accumulation_steps"] = 8 // micro_batch
        run = trainer(checkpoint, trajectories, tmp_path / f"{micro_batch}-{max_length}", **fields)
        run.train()
        results.append(weights(run))
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=1e-6, atol=1e-8)


def test_too_long_and_empty_trajectories_are_left_out_counted_and_logged(
    checkpoint, trajectories, tmp_path, caplog
):
    """Never cut: a whole block with all the clean tokens before it has to fit."""
    first, second = trajectories[:2]
    silent = dataclasses.replace(first, id="silent", visible_length=1, finish_reason="stop")
    long = dataclasses.replace(second, id="long", prompt_ids=second.prompt_ids[:4] * 8 + second.prompt_ids)
    mixed = [*trajectories, silent, long]
    room = max(len(t.prompt_ids) + len(t.response_ids) for t in trajectories) + 8
    run = trainer(checkpoint, mixed, tmp_path, max_length=room)
    assert (run.selection.too_long, run.selection.empty) == (("long",), ("silent",))
    assert len(run.train_dataset) == len(trajectories)
    assert "left out of 10 trajectories: 1 too long (long), 1 empty (silent)" in caplog.text
    run.train()
    assert logged(run, "data/trajectories")[0] == len(trajectories)
    assert logged(run, "data/too_long") == [1]
    assert logged(run, "data/empty") == [1]
    with pytest.raises(InputError, match=r"nothing to train on.*8 too long"):
        trainer(checkpoint, trajectories, tmp_path, max_length=9)


def test_a_trajectory_beyond_the_models_positions_is_too_long(checkpoint, trajectories, tmp_path):
    prompt = trajectories[0].prompt_ids
    beyond = dataclasses.replace(trajectories[0], id="beyond", prompt_ids=prompt[:4] * 32 + prompt)
    run = trainer(checkpoint, [*trajectories, beyond], tmp_path)
    assert run.selection.too_long == ("beyond",)


def test_bad_packing_settings_are_named(tmp_path):
    with pytest.raises(InputError, match="max_length=0"):
        config(tmp_path, max_length=0)
