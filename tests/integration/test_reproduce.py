"""``t3d reproduce`` at a toy budget: killed and resumed, one cell repeated, dry, and with wrong inputs."""

import dataclasses
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
import tyro
import yaml
from command_helpers import run_failing

from t3d.cli import reproduce as reproduce_command
from t3d.cli.main import main
from t3d.cli.reproduce import ReproduceCell
from t3d.errors import InputError
from t3d.reproduce import making, pipeline, recipes, runner, suite_choice, suites
from t3d.reproduce.recipes import cell_command
from t3d.reproduce.resolve import ADDED_LATER, resolve_cell
from t3d.reproduce.suites import MINI, Budget, MiniData
from t3d.tasks.mini.suite import TASKS
from t3d.trajectory import read_trajectories
from t3d.work.kept import KeptLines
from t3d.work.lock import locked
from t3d.work.plan import differences, sealed

CELLS = Path(__file__).parents[2] / "docs" / "results" / "cells"
TINY = Budget(num_prompts=6, num_optimizer_steps=2, train_batch_size=4, limit=2, validation_limit=2)


class ChainData(MiniData):
    """Problems of one task only: listing those of another takes seconds."""

    def training_problems(self, count, seed, *, solved):
        return TASKS["chain"].problems("train", count, seed)


SUITE = dataclasses.replace(
    MINI,
    teachers={"mini-small": MINI.teachers["mini"]},
    tasks=("chain",),
    validation_tasks=("chain",),
    settings={name: dataclasses.replace(params, max_new_tokens=16) for name, params in MINI.settings.items()},
    rollout=dataclasses.replace(MINI.rollout, max_new_tokens=16),
    learning_rates=(1e-4, 1e-3),
    full=TINY,
    quick=dataclasses.replace(TINY, num_optimizer_steps=1),
    data=ChainData(),
)
NUMBERS = (
    "setting",
    "task",
    "num_correct",
    "verdicts",
    "n",
    "tokens_per_step",
    "mean_denoising_steps",
    "finish_reasons",
)


@pytest.fixture(scope="module", autouse=True)
def _tiny_suite():
    """Every command of this file has the toy suite in place of ``mini``."""
    real = suites.load_suite

    def load(name, data=None):
        return SUITE if name == "mini" else real(name, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(suite_choice, "load_suite", load)
        yield


def reproduce(output, *flags, table="table4", cells="None") -> int:
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
        for row in record["results"]:
            assert row["n"] == len(row["verdicts"]) == 2
            assert row["num_correct"] == row["verdicts"].count("1")
    text = (whole / "tables.md").read_text()
    assert "## Table 4. " in text and "one for math and one for code" in text
    report = json.loads((whole / "tables.json").read_text())
    assert len(report["entries"]) == 3 * 6 * 2, "the task and the average"
    for entry in report["entries"]:
        assert entry["config_hashes"][0] in cells
        assert entry["commands"] == [cells[entry["config_hashes"][0]]["command"]]
        assert entry["n"] == 2
    assert [item["learning_rate"] for item in report["learning_rates"]] == [1e-4, 1e-3]
    assert "beyond which a better one may lie: T3D (DDO + path + random tokens)." in text
    assert not list((whole / "checkpoints").iterdir())
    assert [path.name for path in whole.glob("*.png")] == ["table4-mini-small.png"]
    page = (whole / "report.html").read_text()
    assert "Table 4, mini-small" in page and "path_weight" in page and "optimizer step" in page
    assert not list(whole.rglob("*.lock"))


def test_the_plan_comes_first_and_counts_what_is_there(whole, tmp_path, capsys):
    file = tmp_path / "configurations.yaml"
    assert reproduce(tmp_path / "new", "--dry-run", "--configurations", str(file)) == 0
    printed = capsys.readouterr().out
    assert "total ETA" in printed and "4 students, each 2 optimizer steps of 4" in printed
    assert not (tmp_path / "new").exists()
    documents = list(yaml.safe_load_all(file.read_text()))
    assert len(printed.splitlines()) < 40, "a table; the documents have 30 lines each"
    assert all(document["hash"] in printed for document in documents)
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
        monkeypatch.setattr(pipeline, name, lambda *args, **kwargs: pytest.fail("worked"))
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
        ("evaluate", 1),
        ("distil", 1),
        ("evaluate", 3),
    ):
        real, calls = getattr(pipeline, name), []

        def cut(*args, _real=real, _calls=calls, _call=call, **kwargs):
            _calls.append(1)
            if len(_calls) == _call:
                raise KeyboardInterrupt
            return _real(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(pipeline, name, cut)
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


@pytest.mark.parametrize("num_kept", [3, 7])
def test_a_cut_cell_has_kept_as_many_responses_as_a_cut_eval_of_the_same(
    num_kept, tmp_path, monkeypatch, capsys
):
    """And goes on from them: no response is decoded twice."""
    commands = {
        "cell": ["reproduce", *ORIGINAL, "--settings", "B8-T4", "--limit", "8"],
        "eval": [
            "eval",
            "--model",
            "mini-small",
            "--tasks",
            "chain",
            "--limit",
            "8",
            "--max-new-tokens",
            "16",
        ],
    }
    commands["eval"] += ["--block-size", "8", "--tokens-per-step", "4"]
    real, calls = KeptLines.append, []

    def append(self, row):
        if "response" in row:
            if len(calls) == num_kept:
                raise KeyboardInterrupt
            calls.append(row["id"])
        real(self, row)

    kept, texts = {}, {}
    for name, command in commands.items():
        line = [*command, "--output", str(tmp_path / name), "--device", "cpu"]
        calls.clear()
        with monkeypatch.context() as patch:
            patch.setattr(KeptLines, "append", append)
            assert main(line) == 130
        assert "; kept: " in capsys.readouterr().err
        (file,) = (tmp_path / name).rglob("unfinished/*.jsonl")
        kept[name] = file.read_text().count('"response"')
        with monkeypatch.context() as patch:
            decoded = []
            patch.setattr(KeptLines, "append", lambda self, row, d=decoded: d.append(row) or real(self, row))
            assert main(line) == 0
        assert sum("response" in row for row in decoded) == 8 - num_kept
        (samples,) = (tmp_path / name).rglob("samples.jsonl")
        rows = [json.loads(line) for line in samples.read_text().splitlines()]
        texts[name] = [(row["response"], row["correct"]) for row in rows]
    assert kept == {"cell": num_kept, "eval": num_kept}
    assert texts["cell"] == texts["eval"], "the same work"


def test_the_command_of_a_cell_gives_its_numbers_again(whole, tmp_path):
    record = next(r for r in cells_of(whole).values() if r["method"] == "t3d path_weight=0.5")
    words = shlex.split(record["command"])
    assert main([*words[1:], "--output", str(tmp_path / "cell"), "--device", "cpu"]) == 0
    (again,) = cells_of(tmp_path / "cell").values()
    assert again["config_hash"] == record["config_hash"]
    assert numbers(again) == numbers(record)
    assert again["model"]["weights"] == record["model"]["weights"]


def test_quick_takes_the_learning_rate_of_the_kept_grid(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "TABLE_6_METHODS", ("original", "ddo", "t3d"))
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
    assert len(rates) == 3
    assert "No finished grid, so 0.001: DDO" in (folder / "tables.md").read_text()


def test_quick_keeps_the_rates_that_it_began_with(whole, tmp_path):
    """Another process may finish the grid in the same output meanwhile."""
    config = suite_choice.ReproduceConfig(output=str(tmp_path), cells=None, quick=True, device="cpu")
    reproduction = runner.Reproduction(config, (4,))
    reproduction.plan()
    shutil.copytree(whole / "cells", tmp_path / "cells")
    assert runner.Reproduction(config, (4,)).chosen_rate("t3d") is not None, "the grid is finished"
    assert reproduction.chosen_rate("t3d") is None and reproduction.scores() == {"t3d": {}}
    for demand in reproduction.demands:
        assert reproduction.learning_rate(demand) == SUITE.middle_learning_rate


def cell(output, *flags) -> int:
    where = ["--output", str(output), "--device", "cpu"]
    return main(["reproduce", *TRAINED, "--settings", "B8-T8", "--learning-rate", "0.001", *where, *flags])


def test_what_was_made_under_another_default_is_made_again(tmp_path, monkeypatch):
    assert cell(tmp_path) == 0
    (first,) = cells_of(tmp_path).values()
    made = []
    for name in ("roll_out_to_file", "distil"):
        real = getattr(pipeline, name)
        monkeypatch.setattr(
            pipeline,
            name,
            lambda *args, _name=name, _real=real, **kwargs: made.append(_name) or _real(*args, **kwargs),
        )
    assert cell(tmp_path) == 0
    assert made == [], "all of it is there"
    (student,) = (tmp_path / "students").glob("*.made.json")
    change(student, ["plan", "training", "refresh_every"], 9)
    assert cell(tmp_path) == 0
    assert made == ["distil"]
    (records,) = (tmp_path / "records").glob("*.made.json")
    change(records, ["plan", "decode", "confidence_threshold"], 0.8)
    change(student, ["plan", "records", "decode", "confidence_threshold"], 0.8)
    assert cell(tmp_path) == 0
    assert made == ["distil", "roll_out_to_file", "distil"]
    (again,) = cells_of(tmp_path).values()
    assert again["model"]["weights"] == first["model"]["weights"]


def test_a_student_of_two_rounds_goes_on_from_the_one_of_one_round(tmp_path, monkeypatch, capsys):
    """Cut in its second training; the first round's student is that of a cell of one round."""
    made, real = [], {name: getattr(pipeline, name) for name in ("roll_out_to_file", "distil")}

    def call(name, *args, **kwargs):
        made.append(name)
        if made.count("distil") == 2 and name == "distil" and made.count("roll_out_to_file") == 2:
            made.append("cut")
            raise KeyboardInterrupt
        return real[name](*args, **kwargs)

    for name in real:
        monkeypatch.setattr(pipeline, name, partial(call, name))
    assert cell(tmp_path, "--num-rounds", "2") == 130
    assert made == ["roll_out_to_file", "distil", "roll_out_to_file", "distil", "cut"]
    assert cell(tmp_path, "--num-rounds", "2") == 0
    assert made[5:] == ["distil"]
    assert cell(tmp_path) == 0
    assert made[6:] == [], "the first round's student"
    records = {record["method"]: record for record in cells_of(tmp_path).values()}
    two, one = records["t3d num_rounds=2"], records["t3d"]
    assert (tmp_path / "students" / two["config"]["before"]).is_dir() and two["config"]["round"] == 2
    assert two["model"]["weights"] != one["model"]["weights"]
    assert "--num-rounds 2" in two["command"] and "--num-rounds" not in one["command"]
    parsed = tyro.cli(ReproduceCell, args=shlex.split(two["command"])[3:])
    assert resolve_cell(SUITE, TINY, parsed.spec()[1]).hash == two["config_hash"]
    first, second = sorted(
        map(read_trajectories, (tmp_path / "records").glob("*.parquet")), key=lambda found: found[0].id
    )
    assert [one.id.rpartition("/")[2] for one in first + second] == [str(index) for index in range(12)]
    assert first[0].teacher == "mini-small" and "/students/" in second[0].teacher
    for method in ("original", "sft"):
        flags = ["--method", method, "--num-rounds", "2", "--settings", "B8-T8", "--output", str(tmp_path)]
        rate = [] if method == "original" else ["--learning-rate", "1e-3"]
        assert "learns no rollouts" in run_failing(["reproduce", "cell", *flags, *rate], capsys)


def change(path, names, value) -> None:
    """Set a field of a JSON file."""
    content = json.loads(path.read_text())
    inner = content
    for name in names[:-1]:
        inner = inner[name]
    assert inner[names[-1]] != value
    inner[names[-1]] = value
    content.pop("checksum")
    path.write_text(json.dumps(sealed(content)))


def test_checkpoints_that_a_kill_left_beside_a_finished_student_are_removed(tmp_path):
    assert cell(tmp_path) == 0
    (student,) = (path for path in (tmp_path / "students").iterdir() if path.is_dir())
    left = tmp_path / "checkpoints" / student.name
    left.mkdir()
    (left / "optimizer.pt").write_text("large")
    assert cell(tmp_path) == 0
    assert not list((tmp_path / "checkpoints").iterdir())


def test_the_last_cell_is_written_while_no_other_process_writes_it(tmp_path, monkeypatch):
    held = []

    def write(path, text):
        held.extend(
            path.name for folder in (tmp_path, tmp_path / "students") for path in folder.glob(".*.lock")
        )

    monkeypatch.setattr(reproduce_command, "write_text", write)
    assert cell(tmp_path) == 0
    assert held[0] == ".cell.json.lock" and len(held) == 2, "and while the student is this process's"


@pytest.mark.parametrize("command", ["table4", "cell"])
@pytest.mark.parametrize("fault", ["problems", "check", "training_problems"])
def test_what_cannot_be_evaluated_or_trained_on_is_said_before_any_work(
    command, fault, tmp_path, monkeypatch, capsys
):
    def refuse(*args, **kwargs):
        raise InputError("limit", 600, "too few problems", "use at most 512")

    monkeypatch.setattr(type(TASKS["chain"]) if fault == "check" else ChainData, fault, refuse)
    where = ["--output", str(tmp_path / "out"), "--device", "cpu"]
    flags = [*TRAINED, "--settings", "B8-T8", "--learning-rate", "1"] if command == "cell" else [command]
    assert "use at most 512" in run_failing(["reproduce", *flags, *where], capsys)
    assert not (tmp_path / "out").exists()


def test_the_problems_of_every_split_and_seed_are_posed_once_and_listed_once_for_the_report(
    tmp_path, monkeypatch
):
    posed = []
    real = MiniData.problems

    def problems(self, task, split, limit, seed):
        posed.append((task, split, seed))
        return real(self, task, split, limit, seed)

    monkeypatch.setattr(MiniData, "problems", problems)
    monkeypatch.setattr(recipes, "MAIN_METHODS", ("original",))
    assert reproduce(tmp_path, "--seeds", "2", table="table2") == 0
    assert Counter(posed) == {("chain", "test", 0): 2, ("chain", "test", 1): 2}


def test_the_help_of_the_tables_names_the_command_for_one_cell(capsys):
    with pytest.raises(SystemExit):
        main(["reproduce", "--help"])
    assert "t3d reproduce cell" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["reproduce", "cell", "--help"])
    assert "grid" not in capsys.readouterr().out


@pytest.mark.parametrize("override", ["path_weight=0.00001", "mask_ratios=[1.0, 0.5]", "log_ratio=sum"])
def test_the_command_of_a_cell_repeats_its_overrides(override):
    flags = [*TRAINED[1:], "--settings", "B8-T8", "--learning-rate", "1e-5", "--override", override]
    suite, first = tyro.cli(ReproduceCell, args=flags).spec()
    command = cell_command(suite, first, quick=False)
    assert tyro.cli(ReproduceCell, args=shlex.split(command)[3:]).spec()[1] == first


@pytest.mark.parametrize("held", ["student", "records"])
def test_what_another_process_makes_is_left_to_it_until_it_ends(held, tmp_path, monkeypatch):
    config = suite_choice.ReproduceConfig(output=str(tmp_path / "out"), cells=None, quick=True, device="cpu")
    reproduction = runner.Reproduction(config, (4,))
    reproduction.demands = [dataclasses.replace(item, settings=("B8-T8",)) for item in reproduction.demands]
    student = reproduction.demands[0].student(0, SUITE.middle_learning_rate)
    other = locked(getattr(reproduction.workshop, held)(student).path)
    other.__enter__()
    counts = []

    def sleep(seconds):
        counts.append(len(cells_of(tmp_path / "out")))
        other.__exit__(None, None, None)

    monkeypatch.setattr(making.time, "sleep", sleep)
    reproduction.run()
    assert counts == [2 if held == "student" else 0], "two other students, or none, before the wait"
    assert len(cells_of(tmp_path / "out")) == 3


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kills a process")
def test_two_processes_share_a_table_and_one_may_be_killed(tmp_path):
    budget = ["--num-prompts", "6", "--num-optimizer-steps", "2", "--limit", "2", "--max-new-tokens", "16"]
    where = ["--output", str(tmp_path), "--cells", "None", "--device", "cpu", "--teachers", "mini-small"]
    command = [sys.executable, "-m", "t3d", "reproduce", "table4", "--tasks", "chain", *budget, *where]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    first, second = (
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
        )
        for _ in range(2)
    )
    printed = []
    while not any(" % (" in line for line in printed):
        printed.append(first.stdout.readline())
    first.send_signal(signal.SIGKILL)
    printed += [*first.communicate()[0].splitlines(), *second.communicate()[0].splitlines()]
    assert second.returncode == 0
    cells = cells_of(tmp_path)
    assert len(cells) == 3 + 3 * 6, "the grid, then three lambdas in six settings"
    made = Counter(line.split(": ")[0] for line in printed if " % (" in line)
    assert set(made.values()) == {1}, "no cell was made twice"
    assert (tmp_path / "tables.md").is_file() and (tmp_path / "table4-mini-small.png").is_file()


def test_changes_of_the_suite_are_part_of_command_and_hash(tmp_path):
    changes = ["--num-prompts", "4", "--num-optimizer-steps", "1", "--limit", "1", "--max-new-tokens", "8"]
    words = [
        "--method",
        "t3d",
        "--learning-rate",
        "0.001",
        "--settings",
        "B8-T8",
        "--tasks",
        "chain",
        "--rollout-temperature",
        "0.1",
        *changes,
    ]
    assert main(["reproduce", "cell", *words, "--output", str(tmp_path), "--device", "cpu"]) == 0
    (record,) = cells_of(tmp_path).values()
    assert record["config"]["training"]["max_steps"] == 1
    assert record["config"]["records"]["count"] == 4
    assert record["config"]["records"]["decode"]["temperature"] == 0.1
    assert record["config"]["evaluation"]["limit"] == 1
    assert record["config"]["evaluation"]["settings"]["B8-T8"]["max_new_tokens"] == 8
    command = tyro.cli(ReproduceCell, args=shlex.split(record["command"])[3:])
    suite, cell = command.spec()
    assert resolve_cell(suite, suite.budget(quick=False), cell).hash == record["config_hash"]


def test_a_local_checkpoint_stands_for_the_main_teacher(checkpoint, tmp_path):
    file = tmp_path / "configurations.yaml"
    flags = ["--teachers", str(checkpoint), "--dry-run", "--output", str(tmp_path / "out")]
    flags += ["--configurations", str(file)]
    assert main(["reproduce", "table1", "--suite", "sdar", *flags]) == 0
    documents = list(yaml.safe_load_all(file.read_text()))
    assert {document["teacher"] for document in documents} == {str(checkpoint)}
    teacher = documents[0]["config"]["teacher"]
    assert teacher["name"] == "tiny-sdar" and len(teacher["weights"]) == 64


def test_a_dry_run_counts_the_optimizer_steps_of_all_rounds(tmp_path, capsys):
    flags = ["--dry-run", "--output", str(tmp_path), "--quick"]
    found = []
    for more in ([], ["--rows", "t3d-plus"]):
        assert main(["reproduce", "table4", *flags, *more]) == 0
        line = next(line for line in capsys.readouterr().out.splitlines() if " students" in line)
        found.append([int(number) for number in re.findall(r"[0-9]+", line)])
    (students, per_student, *_, steps), (more_students, rounds, *_, more_steps) = found
    assert steps == students * per_student and more_steps == rounds * per_student
    assert rounds - more_students == 2 * (more_students - students)


def test_a_dry_run_of_sdar_resolves_every_student_without_data(tmp_path, capsys):
    output, file = tmp_path / "sdar", tmp_path / "configurations.yaml"
    command = ["reproduce", "all", "--suite", "sdar", "--seeds", "3", "--dry-run", "--output", str(output)]
    assert main([*command, "--configurations", str(file)]) == 0
    printed = capsys.readouterr().out
    assert not output.exists()
    loader = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
    documents = list(yaml.load_all(file.read_text(), loader))
    assert len(printed.splitlines()) < 100
    assert {document["teacher"] for document in documents} == {"JetLM/SDAR-4B-Chat", "JetLM/SDAR-1.7B-Chat"}
    assert len({document["hash"] for document in documents}) == len(documents) == 50
    for document in documents:
        training = document["config"]["training"]
        batch = training["per_device_train_batch_size"] * training["gradient_accumulation_steps"]
        assert (batch, training["max_steps"], training["bf16"]) == (256, 1770, True)
        assert all(command.startswith("t3d reproduce cell") for command in document["cells"].values())
    assert "50 students, each 1770 optimizer steps" in printed
    assert "hours of one H100" in printed
    assert "reads data/train.jsonl" in printed


TRAINED = ["cell", "--teacher", "mini-small", "--method", "t3d"]
ORIGINAL = ["cell", "--teacher", "mini-small", "--method", "original"]
WITH_RATE = [*TRAINED, "--settings", "B4-T1", "--learning-rate", "1e-3"]


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
        ([*ORIGINAL, "--settings", "B4-T1", "B4-T1"], "settings='B4-T1': given twice"),
        ([*ORIGINAL, "--settings", "B4-T1", "--tasks", "chain", "chain"], "tasks='chain': given twice"),
        ([*ORIGINAL, "--settings", "B4-T1", "--teacher", "maxi"], "teacher='maxi'"),
        ([*ORIGINAL, "--settings", "B4-T1", "--tasks", "maxi"], "tasks='maxi'"),
        ([*ORIGINAL, "--settings", "B4-T1", "--suite", "sdar"], "teacher='mini-small'"),
        (["cell", "--method", "original", "--settings", "B4-T1", "--suite", "sdar"], "data=None"),
        (["table1", "--teachers", "mini-small", "mini-small"], "one twice"),
        (["table1", "--limit", "0"], "limit=0"),
        (
            [*TRAINED, "--settings", "B4-T1", "--learning-rate", "1", "--method", "best"],
            "method='best': not known. Fix: use one of original, t3d",
        ),
        ([*TRAINED, "--settings", "B4-T1", "--learning-rate", "1", "--override", "best=1"], "'best=1'"),
        ([*WITH_RATE, "--override", "path_weight=abc"], "path_weight takes a number"),
        ([*WITH_RATE, "--override", "path_weight=-1"], "path_weight=-1.0"),
        (
            [*WITH_RATE, "--override", "lr_scheduler_type=best"],
            "lr_scheduler_type='best': refused by transformers",
        ),
        ([*WITH_RATE, "--override", "output_dir=here"], "override=['output_dir=here']"),
        ([*WITH_RATE, "--override", "num_train_epochs=30"], "ignored: a cell trains for max_steps"),
        (
            [*TRAINED, "--settings", "B4-T1", "--learning-rate", "-1"],
            "learning_rate=-1.0: not a positive number",
        ),
        ([*TRAINED, "--settings", "B4-T1", "--learning-rate", "nan"], "learning_rate=nan"),
        ([*WITH_RATE, "--override", "learning_rate=0"], "learning_rate=0.0"),
        (
            [*ORIGINAL, "--settings", "B4-T1", "--override", "path_weight=1"],
            "method='original' is not trained",
        ),
        ([*WITH_RATE, "--device", "cuda:1"], "CUDA_VISIBLE_DEVICES=1"),
        (["table1", "--device", "cuda:1"], "CUDA_VISIBLE_DEVICES=1"),
    ],
)
def test_bad_input_names_the_field_and_the_fix(flags, message, tmp_path, capsys):
    error = run_failing(["reproduce", *flags, "--output", str(tmp_path / "out")], capsys)
    assert message in error
    assert not (tmp_path / "out").exists()


def test_committed_cells_are_those_of_the_present_recipes(monkeypatch):
    """The command of each leads to its hash, and no default has changed since."""
    monkeypatch.setattr(suite_choice, "load_suite", lambda name, data=None: MINI)
    paths = sorted(CELLS.glob("*.*.json"))
    assert paths
    assert [path.name for path in paths if not is_of_present_recipe(path)] == []


def is_of_present_recipe(path) -> bool:
    record = json.loads(path.read_text())
    command = tyro.cli(ReproduceCell, args=shlex.split(record["command"])[3:])
    suite, cell = command.spec()
    resolved = resolve_cell(suite, suite.budget(quick=command.quick), cell)
    named = path.name.split(".")[-2] == record["config_hash"] == resolved.hash
    return named and differences(record["config"], resolved.full, added_later=ADDED_LATER) == []


STUDY = """
title: a toy
common: {settings: [B8-T4, B4-T1], learning_rate: 1.0e-3}
groups:
  - title: methods
    base: T3D
    rows:
      - {name: the teacher, method: original}
      - {name: T3D, method: t3d, seeds: [0, 1]}
      - {name: T3D twice, method: t3d, num_rounds: 2, round_start: teacher}
  - title: draws
    common: {rollout_temperature: 1.0, num_samples: 2, rollout_filter: likelihood}
    rows:
      - {name: likelier of two, method: naive_td, settings: [B4-T1-temperature-1], samples_per_prompt: 2}
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    (folder / "toy.yaml").write_text(STUDY)
    assert main(["reproduce", "study", str(folder / "toy.yaml"), "--output", str(folder / "out")]) == 0
    return folder


def test_a_study_has_every_row_with_its_cost_and_its_distance_to_the_base(study):
    text = (study / "out" / "study.md").read_text()
    groups = json.loads((study / "out" / "study.json").read_text())["groups"]
    rows = {row["name"]: row for group in groups for row in group["rows"]}
    assert rows["the teacher"]["training_cost"] == {}
    once, twice, drawn = (rows[name]["training_cost"] for name in ("T3D", "T3D twice", "likelier of two"))
    assert (once["rollouts"], once["optimizer_steps"]) == (TINY.num_prompts, TINY.num_optimizer_steps)
    assert (twice["rollouts"], twice["optimizer_steps"]) == (12, 4)
    assert (drawn["rollouts"], drawn["kept_rollouts"]) == (12, 6)
    assert rows["T3D"]["seeds"] == [0, 1]
    assert (
        "Points above T3D, on the same prompts and the seeds that both have:" in text
        and "distinct answers" in text
    )
    (line,) = (line for line in text.splitlines() if line.startswith("| T3D twice | 1 |"))
    assert line.count("%") == 0 and line.count("[") == 2


def test_a_finished_study_trains_nothing_and_its_cells_do_for_another_output(study, capsys, monkeypatch):
    monkeypatch.setattr(pipeline, "distil", None)
    before = (study / "out" / "study.md").read_text()
    command = ["reproduce", "study", str(study / "toy.yaml"), "--output"]
    assert main([*command, str(study / "out")]) == 0
    assert (study / "out" / "study.md").read_text() == before
    assert main([*command, str(study / "other"), "--cells", str(study / "out" / "cells"), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "\n0 cells are missing\n" in printed and "total ETA 0 s" in printed
    assert not (study / "other").exists()


def test_a_cell_of_a_study_is_what_its_command_makes(study, tmp_path):
    groups = json.loads((study / "out" / "study.json").read_text())["groups"]
    (row,) = (row for row in groups[0]["rows"] if row["name"] == "T3D twice")
    words = shlex.split(row["commands"][0])
    assert "--round-start" in words
    words[words.index("--output") + 1] = str(tmp_path)
    assert main(words[1:]) == 0
    cell = json.loads((tmp_path / "cell.json").read_text())
    assert cell["config_hash"] == row["cells"][0]
    (kept,) = (study / "out" / "cells").glob(f"*.{row['cells'][0]}.json")
    assert cell["model"]["weights"] == json.loads(kept.read_text())["model"]["weights"]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--round-start", "teacher"], "num_rounds=1, whose training begins with the teacher anyway"),
        (["--num-samples", "2"], "all samples of a prompt are the same at temperature=0"),
        (["--rollout-filter", "likelihood"], "each prompt has one sample"),
    ],
)
def test_rollouts_that_make_no_sense_are_refused_before_the_work(flags, says, capsys):
    cell = ["reproduce", "cell", "--method", "t3d", "--learning-rate", "1e-3", "--settings", "B8-T4"]
    assert says in run_failing([*cell, *flags], capsys)
