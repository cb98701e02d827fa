"""What training prints, and what it refuses to train on."""

import pytest
from training_helpers import trainer

from t3d.errors import InputError


def test_training_prints_lines_and_no_dictionaries(checkpoint, trajectories, tmp_path, capsys):
    for disable_tqdm in (True, False):
        trainer(checkpoint, trajectories, tmp_path, disable_tqdm=disable_tqdm, max_steps=2).train()
        printed = capsys.readouterr().out
        assert "{" not in printed
        assert [line.split(":")[0] for line in printed.split("\n") if line.startswith("step")] == [
            "step 1 of 2",
            "step 2 of 2",
            "step 2 of 2",
        ]


def test_a_batch_of_more_than_there_is_is_said(checkpoint, trajectories, tmp_path, caplog):
    trainer(checkpoint, trajectories, tmp_path, per_device_train_batch_size=5000)
    assert f"a batch of 5000 trajectories, but there are {len(trajectories)}" in caplog.text


def test_records_of_another_kind_are_named(checkpoint, tmp_path):
    """A datasets.Dataset gives dictionaries."""
    with pytest.raises(InputError, match=r"train_dataset='list': holds a dict, no Trajectory"):
        trainer(checkpoint, [{"id": "a"}], tmp_path)
