"""``t3d train --accelerate-config zero1``: two processes share the optimizer, and train what one does."""

import shutil
from importlib.util import find_spec

import pytest
import torch
from launched_helpers import (
    EVERY_STEP,
    TWO,
    assert_evaluated_while_trained,
    assert_trained_alike,
    started,
    training_command,
)

from t3d.cli.main import main

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),  # DeepSpeed compiles an extension where it has not yet: minutes
    pytest.mark.skipif(find_spec("deepspeed") is None, reason="pip install deepspeed"),
    pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs gloo"),
]
SHARED = [*TWO, "--accelerate-config", "zero1"]


def parts_of_the_optimizer(run):
    """Files of a checkpoint that have one process's part each."""
    return sorted(path.name for path in (run / "checkpoints" / "checkpoint-5").rglob("*optim_states.pt"))


def test_a_shared_optimizer_trains_exports_and_resumes_as_a_whole_one(checkpoint, trajectories, tmp_path):
    command = training_command(checkpoint, trajectories, tmp_path)
    alone, run = tmp_path / "alone", tmp_path / "run"
    assert main([*command, str(alone), *EVERY_STEP]) == 0
    command = [*command, str(run), *EVERY_STEP, *SHARED, "--save-every", "2"]
    started(command)
    assert parts_of_the_optimizer(run) == [
        f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt" for rank in (0, 1)
    ]
    assert_trained_alike(run, alone, checkpoint)
    for lost in ([], ["checkpoints/checkpoint-5"]):  # killed before the export; and one step earlier
        for name in ("student", *lost):
            shutil.rmtree(run / name)
        started(command)
        assert_trained_alike(run, alone, checkpoint)


@pytest.mark.parametrize("flags", [["--gradient-accumulation-steps", "2"], ["--lora-rank", "4"]])
def test_accumulated_batches_and_adapters_are_those_of_one_process(checkpoint, trajectories, tmp_path, flags):
    command = training_command(checkpoint, trajectories, tmp_path)
    own = [] if "--gradient-accumulation-steps" in flags else flags
    assert main([*command, str(tmp_path / "alone"), *EVERY_STEP, *own]) == 0
    started([*command, str(tmp_path / "run"), *EVERY_STEP, *flags, *SHARED])
    assert_trained_alike(tmp_path / "run", tmp_path / "alone", checkpoint)


def test_it_is_evaluated_before_and_while_it_is_trained(checkpoint, trajectories, tmp_path):
    assert_evaluated_while_trained(training_command(checkpoint, trajectories, tmp_path), tmp_path, SHARED)
