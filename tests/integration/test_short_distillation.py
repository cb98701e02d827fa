"""Distillation does what it is for: a short run raises few-step accuracy, with all weights and with LoRA."""

import pytest
from training_helpers import config

from t3d.decoding.params import DecodeParams
from t3d.decoding.rollout import roll_out
from t3d.evaluation.evaluate import evaluate
from t3d.models.loading import load_model
from t3d.tasks.mini.suite import mini_task
from t3d.tasks.task import PosedTask
from t3d.training.run import distil

FOUR_TOKENS_PER_STEP = DecodeParams(block_size=8, steps_per_block=2, temperature=0.0, max_new_tokens=128)


def chain_accuracy(folder) -> float:
    """Percent right at four tokens per step, of 300 held-out problems."""
    task = mini_task("chain")
    loaded = load_model(folder, device="cpu")
    posed = PosedTask(task=task, problems=task.problems("test", 300, 0))
    (entry,) = evaluate(loaded, [posed], {"B8-T4": FOUR_TOKENS_PER_STEP})
    return entry["accuracy"]


@pytest.fixture(scope="module")
def rollouts():
    """Greedy full-step rollouts of the bundled teacher."""
    problems = mini_task("chain").problems("train", 1024, 0)
    params = DecodeParams(temperature=0.0, max_new_tokens=128)
    return roll_out(load_model("mini", device="cpu"), problems, params)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("lora_rank", [0, 16])
def test_a_short_run_raises_accuracy_at_four_tokens_per_step_by_ten_points(rollouts, tmp_path, lora_rank):
    loaded = load_model("mini", device="cpu")
    settings = config(
        tmp_path / "run",
        max_steps=80,
        per_device_train_batch_size=64,
        learning_rate=3e-3 if lora_rank else 5e-4,
        warmup_steps=10,
        refresh_every=10,
        logging_steps=20,
        lora_rank=lora_rank,
    )
    student = distil(loaded, rollouts, settings, tmp_path / "student")
    before, after = chain_accuracy("mini"), chain_accuracy(student)
    print(f"chain, four tokens per step: {before:.1f} -> {after:.1f}")
    assert after >= before + 10
