"""The folder of finished cells: one that is named has some, so that a typing error trains nothing."""

import pytest

from t3d.cli.main import main
from t3d.reproduce.suite_choice import ReproduceConfig

STUDY = "title: one\ncommon: {settings: [B8-T4]}\ngroups: [{title: a, rows: [{name: b, method: original}]}]\n"


def test_a_named_folder_must_exist():
    with pytest.raises(ValueError, match=r"cells='docs/result/cells': no such folder\. Fix: give a folder"):
        ReproduceConfig(cells="docs/result/cells", device="cpu")


def test_a_named_folder_must_hold_cells(tmp_path):
    (tmp_path / "tables.json").write_text("{}")
    with pytest.raises(
        ValueError, match=r"cells=.*: no finished cells there\. Fix: give a folder .*, or None"
    ):
        ReproduceConfig(cells=str(tmp_path), device="cpu")


def test_the_default_may_be_missing_and_none_is_a_choice(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ReproduceConfig(device="cpu")
    ReproduceConfig(cells=None, device="cpu")


@pytest.mark.parametrize("command", [["table4"], ["study", "study.yaml"]], ids=lambda words: words[0])
def test_commands_refuse_it_before_the_plan(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text(STUDY)
    assert main(["reproduce", *command, "--cells", "nowhere", "--dry-run"]) == 2
    captured = capsys.readouterr()
    assert "cells='nowhere': no such folder" in captured.err and not captured.out
