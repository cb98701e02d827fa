"""``t3d report``, and where the commands that write report.html refuse to."""

import pytest
from report_helpers import entry, write_evaluation

from t3d.cli.main import main
from t3d.report.html.page import add_report


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
        ["reproduce", "table1", "--cells", "None"],
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


def test_results_are_told_before_a_report_that_cannot_be_made_and_the_command_succeeds(
    tmp_path, capsys, caplog, monkeypatch
):
    output = tmp_path / "run"
    flags = ["--tasks", "chain", "--limit", "1", "--max-new-tokens", "4", "--tokens-per-step", "4"]
    command = ["eval", "--model", "mini", "--device", "cpu", *flags, "--output", str(output)]
    assert main(command) == 0 and (output / "report.html").is_file()
    capsys.readouterr()
    (output / "mine.log.jsonl").symlink_to("nowhere")
    told = []

    def seen(folder):
        told.append(capsys.readouterr().out)
        add_report(folder)

    monkeypatch.setattr("t3d.report.html.page.add_report", seen)
    assert main(command) == 0
    assert "B4-T4" in told[0] and "mine.log.jsonl" in caplog.text
    assert main(["report", str(output)]) == 2
    assert "mine.log.jsonl" in capsys.readouterr().err


def test_a_demo_tells_its_table_before_it_writes_the_report(tmp_path, capsys, monkeypatch):
    told = []
    monkeypatch.setattr(
        "t3d.reproduce.demo.run_demo", lambda demo: {"seconds": {"total": 5.0}, "dtype": "float32"}
    )
    for name in ("summary_table", "left_to_right_table"):
        monkeypatch.setattr(f"t3d.report.demo_table.{name}", lambda summary, name=name: name)
    monkeypatch.setattr("t3d.report.html.page.add_report", lambda _: told.append(capsys.readouterr().out))
    assert main(["demo", "--output", str(tmp_path)]) == 0
    assert "summary_table" in told[0] and "5 s; summary" in told[0]
