"""Before the first update student and reference are equal, so DDO's value is known exactly."""

import math

import pytest
import torch

from t3d.training.config import T3DConfig
from t3d.training.trainer import T3DTrainer
from t3d.trajectory import Trajectory


@pytest.mark.parametrize("fake_source", ["argmax", "sample"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_margins_are_zero_in_every_dtype(make_model, tiny_tokenizer, tmp_path, dtype, fake_source):
    """(1 + alpha) ln 2, also for a model that likes the mask token: both sides must score alike."""
    mask_token_id = tiny_tokenizer.mask_token_id
    model = make_model(dtype=dtype, vocab_size=len(tiny_tokenizer), mask_token_id=mask_token_id)
    with torch.no_grad():
        model.lm_head.weight[mask_token_id] *= 5
    trajectories = [
        Trajectory(
            id=str(row),
            prompt_ids=(1, 2, 3, 4),
            response_ids=tuple(range(5 + row, 13 + row)),
            step_map=tuple(range(1, 9)),
            visible_length=8,
            finish_reason="length",
            block_size=4,
            mask_token_id=mask_token_id,
        )
        for row in range(4)
    ]
    config = T3DConfig(
        output_dir=str(tmp_path), use_cpu=True, dataloader_pin_memory=False, fake_source=fake_source
    )
    trainer = T3DTrainer(model, config, trajectories, tiny_tokenizer)
    batch = trainer.data_collator([trainer.train_dataset[row] for row in range(4)])
    seen = {}
    trainer.metric_log.add = lambda step, metrics, nll, batch: seen.update(metrics)
    with torch.no_grad():
        trainer.compute_loss(trainer.model.eval(), batch)
    assert seen["margin/real"].item() == pytest.approx(0, abs=1e-6)
    assert seen["margin/fake"].item() == pytest.approx(0, abs=1e-6)
    assert seen["loss/ddo_real"].item() == pytest.approx(math.log(2), abs=1e-5)
    assert seen["loss/ddo_fake"].item() == pytest.approx(0.5 * math.log(2), abs=1e-5)
