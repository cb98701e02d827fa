"""``t3d report``, and where the commands that write report.html refuse to."""

import pytest
from report_helpers import entry, write_evaluation

from t3d.cli.main import main


def test_the_report_of_a_folder_of_evaluations_is_made_again_or_elsewhere(tmp_path, capsys):
    for name in ("teacher", "student"):
        write_evaluation(tmp_path / name, entry())
    assert main(["report", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'report.html'}\n"
    other = tmp_path / "other.html"
    assert main(["report", str(tmp_path), "--output", str(other)]) == 0
    assert other.read_bytes() == (tmp_path / "report.html").read_bytes()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["nowhere"], "no such folder"),
        (["."], "holds no results"),
        ([".", "--output", "report.txt"], "not the name of a page"),
    ],
)
def test_what_cannot_be_reported_is_said(flags, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["report", *flags]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "command",
    [
        ["eval", "--model", "mini", "--tasks", "chain"],
        ["demo"],
        ["train", "--model", "mini", "--trajectories", "rollout.parquet"],
        ["reproduce", "table1", "--cells", "none"],
    ],
    ids=lambda command: command[0],
)
def test_a_report_of_somebody_else_is_refused_before_the_work(command, tmp_path, capsys):
    output = tmp_path / "run"
    output.mkdir()
    (output / "report.html").write_text("<p>mine</p>")
    assert main([*command, "--output", str(output)]) == 2
    assert "report.html" in capsys.readouterr().err
    assert [path.read_text() for path in output.iterdir()] == ["<p>mine</p>"]
