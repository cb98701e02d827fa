"""``t3d mini oracle``: the oracle beside models, as a table and as JSON; one-screen errors."""

import json

import pytest

from t3d.cli import main

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
        (["--tasks", "sudoku"], "task='sudoku'"),
        (["--limit", "0"], "limit=0"),
        (["--models", "no/such/folder/here"], "no such folder"),
    ],
)
def test_bad_input_names_the_field_and_the_fix(flags, message, capsys):
    assert main(["mini", "oracle", *flags]) == 2
    error = capsys.readouterr().err
    assert message in " ".join(error.split())
    assert "Fix:" in error
