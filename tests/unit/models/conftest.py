"""Fixtures of the tests of checkpoints."""

import shutil

import pytest


@pytest.fixture
def copy_of(tmp_path, checkpoint):
    """A copy of the checkpoint that a test may break."""
    folder = tmp_path / "copy"
    shutil.copytree(checkpoint, folder)
    return folder
