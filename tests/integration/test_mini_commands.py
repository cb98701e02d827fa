"""``t3d mini oracle``: the oracle beside models, as a table and as JSON; one-screen errors."""

import json

import pytest
from command_helpers import run_failing

from t3d.cli.main import main

QUICK = ["mini", "oracle", "--settings", "B4-T1", "B4-T4", "--limit", "6"]


def test_oracle_is_printed_beside_the_models_and_written(tmp_path, capsys):
    path = tmp_path / "oracle.json"
    tasks = ["--tasks", "make", "code"]
    assert main([*QUICK, *tasks, "--models", "mini", "--output", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "oracle" in printed and "mini - oracle" in printed
    rows = json.loads(path.read_text())["rows"]
    assert [(row["task"], row["setting"]) for row in rows] == [
        (task, setting) for task in ("make", "code") for setting in ("B4-T1", "B4-T4")
    ]
    for row in rows:
        assert row["n"] == 6
        assert set(row["num_correct"]) == {"oracle", "mini"}
        if row["setting"] == "B4-T1":
            assert row["num_correct"]["oracle"] == 6


def test_oracle_alone_needs_no_model(capsys):
    assert main([*QUICK, "--tasks", "code", "--models"]) == 0
    assert "100.0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--settings", "B3-T1"], "settings='B3-T1'"),
        (["--tasks", "sudoku"], "tasks='sudoku'"),
        (["--tasks"], "tasks=()"),
        (["--settings"], "settings=()"),
        (["--settings", "B4-T1", "B4-T1"], "given twice"),
        (["--models", "mini", "mini"], "given twice"),
        (["--models", "oracle"], "models='oracle'"),
        (["--output", "."], "output='.'"),
        (["--limit", "0"], "limit=0"),
        (["--models", "no/such/folder/here"], "no such folder"),
    ],
)
def test_bad_input_names_the_field_and_the_fix(flags, message, capsys):
    error = run_failing(["mini", "oracle", *flags], capsys)
    assert message in error
    assert "Fix:" in error


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num-heads", "3", "--num-key-value-heads", "2"], "num_key_value_heads=2"),
        (["--num-key-value-heads", "0"], "num_key_value_heads=0"),
        (["--hidden-size", "150"], "hidden_size=150"),
        (["--intermediate-size", "-1"], "intermediate_size=-1"),
        (["--task-shares", "1", "1"], "task_shares=(1.0, 1.0)"),
        (["--learning-rate", "nan"], "learning_rate=nan"),
        (["--task-shares", "nan", "1", "1"], "task_shares=(nan, 1.0, 1.0)"),
        (["--adam-beta2", "5"], "adam_beta2=5.0"),
        (["--seed", "-1"], "seed=-1"),
        (["--seed", "99999999999"], "seed=99999999999"),
        (["--start-from", "no/such/folder/here"], "no such folder"),
    ],
)
def test_pretraining_refuses_sizes_that_make_no_network(flags, message, tmp_path, capsys):
    command = ["mini", "pretrain", "--output", str(tmp_path / "run"), *flags]
    assert message in run_failing(command, capsys)
    assert not (tmp_path / "run" / "teacher").exists()
