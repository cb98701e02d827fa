"""``t3d reproduce`` at a toy budget: killed and resumed, one cell repeated, dry, and with wrong inputs."""

import dataclasses
import json
import shlex
from pathlib import Path

import pytest
import tyro
import yaml
from command_helpers import run_failing

from t3d.cli import main, reproduce_command
from t3d.cli.reproduce_command import ReproduceCell
from t3d.errors import InputError
from t3d.reproduce import runner, students
from t3d.reproduce.resolve import resolve_cell
from t3d.reproduce.store import is_same
from t3d.reproduce.suites import MINI, Budget

CELLS = Path(__file__).parents[2] / "docs" / "results" / "cells"
TINY = Budget(num_prompts=6, num_optimizer_steps=2, train_batch_size=4, limit=2, validation_limit=2)
SUITE = dataclasses.replace(
    MINI,
    teachers={"mini-small": MINI.teachers["mini"]},
    learning_rates=(1e-4, 1e-3),
    full=TINY,
    quick=dataclasses.replace(TINY, num_optimizer_steps=1),
)
NUMBERS = ("setting", "task", "num_correct", "n", "tokens_per_step", "mean_denoising_steps", "finish_reasons")


@pytest.fixture(scope="module", autouse=True)
def _tiny_suite():
    """Every command of this file has the toy suite in place of ``mini``."""
    real = runner.load_suite

    def load(name, data=None):
        return SUITE if name == "mini" else real(name, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "load_suite", load)
        patch.setattr(reproduce_command, "load_suite", load)
        yield


def reproduce(output, *flags, table="table4", cells="none") -> int:
    where = ["--output", str(output), "--cells", str(cells), "--device", "cpu"]
    return main(["reproduce", table, *where, *flags])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Folder of a finished Table 4: two students of the grid, two of other lambdas."""
    folder = tmp_path_factory.mktemp("reproduce") / "whole"
    assert reproduce(folder) == 0
    return folder


def cells_of(folder) -> dict[str, dict]:
    found = [json.loads(path.read_text()) for path in (folder / "cells").glob("*.*.json")]
    return {record["config_hash"]: record for record in found}


def numbers(record) -> list[tuple]:
    return [tuple(str(row[name]) for name in NUMBERS) for row in record["results"]]


def test_a_finished_table_has_cells_markdown_and_json(whole):
    cells = cells_of(whole)
    assert len(cells) == 2 + 3 * 6, "the grid, then three lambdas in six settings"
    for record in cells.values():
        assert record["versions"]["t3d"] and record["model"]["weights"] and record["num_threads"] == 1
        assert all(row["n"] == 2 for row in record["results"])
    text = (whole / "tables.md").read_text()
    assert "## Table 4. " in text and "one for math and one for code" in text
    report = json.loads((whole / "tables.json").read_text())
    assert len(report["entries"]) == 3 * 6 * 4
    for entry in report["entries"]:
        assert entry["config_hashes"][0] in cells
        assert entry["commands"] == [cells[entry["config_hashes"][0]]["command"]]
        assert entry["n"] == 2 * (3 if entry["task"] == "average" else 1)
    assert [item["learning_rate"] for item in report["learning_rates"]] == [1e-4, 1e-3]
    assert not list((whole / "checkpoints").iterdir())


def test_the_plan_comes_first_and_counts_what_is_there(whole, tmp_path, capsys):
    assert reproduce(tmp_path / "new", "--dry-run") == 0
    printed = capsys.readouterr().out
    assert "total ETA" in printed and "4 students, each 2 optimizer steps of 4" in printed
    assert not (tmp_path / "new").exists()
    documents = list(yaml.safe_load_all(printed.split("\n...\n")[0]))
    assert [document["student"] for document in documents] == [
        "t3d",
        "t3d",
        "t3d path_weight=0.05",
        "t3d path_weight=0.5",
    ]
    assert reproduce(whole) == 0
    lines = capsys.readouterr().out.splitlines()
    t3d = next(line for line in lines if "T3D (DDO" in line)
    assert [part.strip() for part in t3d.strip("│").split("│")][2:] == ["8", "0", "0", "-"]


def test_a_finished_table_reports_again_without_working(whole, tmp_path, monkeypatch):
    for name in ("roll_out_to_file", "evaluate", "distil"):
        monkeypatch.setattr(students, name, lambda *args, **kwargs: pytest.fail("worked"))
    before = (whole / "tables.json").read_text()
    assert reproduce(whole) == 0
    assert (whole / "tables.json").read_text() == before
    other = tmp_path / "other"
    assert reproduce(other, cells=whole / "cells") == 0, "cells of an earlier run are enough"
    assert (other / "tables.json").read_text() == before


def test_a_run_cut_in_every_stage_ends_with_the_same_numbers(whole, tmp_path, monkeypatch):
    for name, call in (
        ("roll_out_to_file", 1),
        ("distil", 1),
        ("evaluate", 4),
        ("distil", 2),
        ("evaluate", 40),
    ):
        real, calls = getattr(students, name), []

        def cut(*args, _real=real, _calls=calls, _call=call, **kwargs):
            _calls.append(1)
            if len(_calls) == _call:
                raise KeyboardInterrupt
            return _real(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(students, name, cut)
            assert reproduce(tmp_path) == 130
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").glob("*.*.json")}
    assert finished
    assert reproduce(tmp_path) == 0
    assert finished.items() <= {p: p.stat().st_mtime_ns for p in (tmp_path / "cells").iterdir()}.items()
    ours, theirs = cells_of(tmp_path), cells_of(whole)
    assert {name: numbers(ours[name]) for name in ours} == {name: numbers(theirs[name]) for name in theirs}
    assert {record["model"]["weights"] for record in ours.values()} == {
        record["model"]["weights"] for record in theirs.values()
    }


def test_the_command_of_a_cell_gives_its_numbers_again(whole, tmp_path):
    record = next(r for r in cells_of(whole).values() if r["method"] == "t3d path_weight=0.5")
    words = shlex.split(record["command"])
    # The toy suite has one teacher, which the command names.
    assert main([*words[1:], "--output", str(tmp_path / "cell"), "--device", "cpu"]) == 0
    (again,) = cells_of(tmp_path / "cell").values()
    assert again["config_hash"] == record["config_hash"]
    assert numbers(again) == numbers(record)
    assert again["model"]["weights"] == record["model"]["weights"]


def test_quick_takes_the_learning_rate_of_the_kept_grid(whole, tmp_path, capsys):
    folder = tmp_path / "quick"
    assert reproduce(folder, "--quick", table="table7", cells=whole / "cells") == 0
    rates = {record["method"]: record["learning_rate"] for record in cells_of(folder).values()}
    scores = {
        item["learning_rate"]: item["validation_accuracy"]
        for item in json.loads((whole / "tables.json").read_text())["learning_rates"]
    }
    assert rates["t3d"] == max(scores, key=lambda rate: (scores[rate], -rate))
    assert rates["original"] is None
    assert rates["ddo"] == SUITE.middle_learning_rate
    assert len(rates) == 11
    assert "No finished grid, so 0.001: SFT" in (folder / "tables.md").read_text()


def test_two_runs_do_not_share_an_output(whole, monkeypatch):
    def second(*args, **kwargs):
        with pytest.raises(InputError, match="another run is using it"):
            runner.Reproduction(config, (4,)).run()
        raise KeyboardInterrupt

    config = runner.ReproduceConfig(output=str(whole), cells=None, device="cpu")
    monkeypatch.setattr(runner, "missing_grid", second)
    with pytest.raises(KeyboardInterrupt):
        runner.Reproduction(config, (4,)).run()


def test_a_dry_run_of_sdar_resolves_every_student_without_data(tmp_path, capsys):
    output = tmp_path / "sdar"
    assert (
        main(["reproduce", "all", "--suite", "sdar", "--seeds", "3", "--dry-run", "--output", str(output)])
        == 0
    )
    printed = capsys.readouterr().out
    assert not output.exists()
    documents = list(yaml.safe_load_all(printed.split("\n...\n")[0]))
    assert {document["teacher"] for document in documents} == {"JetLM/SDAR-4B-Chat", "JetLM/SDAR-1.7B-Chat"}
    assert len({document["hash"] for document in documents}) == len(documents) == 60
    for document in documents:
        training = document["config"]["training"]
        batch = training["per_device_train_batch_size"] * training["gradient_accumulation_steps"]
        assert (batch, training["max_steps"], training["bf16"]) == (256, 1770, True)
        assert all(command.startswith("t3d reproduce cell") for command in document["cells"].values())
    assert "60 students, each 1770 optimizer steps" in printed
    assert "hours of one H100" in printed
    assert "reads data/train.jsonl" in printed


TRAINED = ["cell", "--teacher", "mini-small", "--method", "t3d"]
ORIGINAL = ["cell", "--teacher", "mini-small", "--method", "original"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["table8"], "table='table8'"),
        (["table1", "--suite", "maxi"], "suite='maxi'"),
        (["table1", "--seeds", "0"], "seeds=0"),
        (["table1", "--seeds", "2", "--quick"], "seeds=2"),
        (["table1", "--suite", "sdar"], "data=None"),
        ([*TRAINED, "--settings", "B4-T1"], "learning_rate=None"),
        ([*ORIGINAL, "--settings", "B4-T1", "--learning-rate", "1"], "learning_rate=1.0"),
        ([*ORIGINAL, "--settings", "B3-T1"], "settings='B3-T1'"),
        ([*ORIGINAL, "--settings"], "settings=()"),
        ([*ORIGINAL, "--settings", "B4-T1", "--teacher", "maxi"], "teacher='maxi'"),
        ([*TRAINED, "--settings", "B4-T1", "--learning-rate", "1", "--method", "best"], "preset='best'"),
        ([*TRAINED, "--settings", "B4-T1", "--learning-rate", "1", "--override", "best=1"], "'best=1'"),
    ],
)
def test_bad_input_names_the_field_and_the_fix(flags, message, tmp_path, capsys):
    error = run_failing(["reproduce", *flags, "--output", str(tmp_path / "out")], capsys)
    assert message in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("path", sorted(CELLS.glob("*.*.json")), ids=lambda path: path.name)
def test_committed_cells_are_those_of_the_present_recipes(path, monkeypatch):
    """The command of each leads to its hash, and no default has changed since."""
    monkeypatch.setattr(reproduce_command, "load_suite", lambda name, data=None: MINI)
    record = json.loads(path.read_text())
    command = tyro.cli(ReproduceCell, args=shlex.split(record["command"])[3:])
    suite, cell = command.spec()
    resolved = resolve_cell(suite, suite.budget(quick=command.quick), cell)
    assert path.name.split(".")[-2] == record["config_hash"] == resolved.hash
    assert is_same(record["config"], resolved.full)
