"""The demo end to end at a toy budget, with the bundled teacher."""

import contextlib
import dataclasses
import io
import json
import math
import re

import pytest
from rich.console import Console

from t3d.errors import InputError
from t3d.models.loading import load_model
from t3d.report.demo_table import markdown_report, summary_table
from t3d.reproduce import demo, pipeline
from t3d.reproduce.demo import run_demo
from t3d.reproduce.demo_config import DemoConfig
from t3d.reproduce.demo_stages import demo_stages
from t3d.reproduce.settings import SETTINGS
from t3d.tasks.mini.suite import TASKS
from t3d.trajectory import read_trajectories

NAMES = ["B4-T1", "B4-T2", "B4-T4", "B8-T1", "B8-T2", "B8-T4", "B8-T8", "B4-dynamic"]
FEW = {
    name: dataclasses.replace(SETTINGS[name], max_new_tokens=16) for name in ("B4-T1", "B8-T4", "B4-dynamic")
}
"""What the demos here decode in: short texts, one step per token, few steps, and dynamic steps."""


@pytest.fixture(scope="module", autouse=True)
def _few_settings():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "SETTINGS", FEW)
        patch.setattr(demo, "MAX_NEW_TOKENS", 24)
        yield


def config(folder, **overrides) -> DemoConfig:
    fields = {"num_prompts": 16, "num_optimizer_steps": 2, "train_batch_size": 8, "limit": 4}
    fields["show_progress"] = False
    return DemoConfig(output=str(folder), device="cpu", **(fields | overrides))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Folder of a finished demo."""
    folder = tmp_path_factory.mktemp("demo") / "whole"
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        run_demo(config(folder, show_progress=True))
    (folder / "printed.txt").write_text(printed.getvalue())
    return folder


def test_a_demo_says_one_line_per_stage_with_its_number_and_what_is_left(whole):
    """Neither lines of the training nor finished bars."""
    first, *lines = (whole / "printed.txt").read_text().splitlines()
    names = ["evaluate teacher", "rollout round 1", "distil round 1", "rollout round 2", "distil round 2"]
    names.append("evaluate student")
    assert first.startswith("6 stages, typically ") and first.endswith(f" on two cores: {', '.join(names)}")
    for number, (name, line) in enumerate(zip(names, lines, strict=True), start=1):
        left = "" if number == 6 else r"; about (\d+ s|\d+ min) left"
        assert re.fullmatch(rf"\[{number}/6\] {name}: (\d+ s|\d+ min){left}", line)
    assert [stage.name for stage in demo_stages(config(whole))] == names


WIDEST = {"accuracy": 100.0, "ci95": [99.3, 100.0], "tokens_per_second_by_task": 10758.2}


def read_summary(folder):
    return json.loads((folder / "summary.json").read_text())


def without_speeds(models):
    """The summaries of models without what a clock measured."""
    return {
        model: {
            setting: {name: value for name, value in found.items() if "per_second" not in name}
            for setting, found in settings.items()
        }
        for model, settings in models.items()
    }


def test_the_demo_has_these_settings():
    assert list(SETTINGS) == NAMES


def test_demo_writes_summary_plot_student_and_trajectories(whole):
    summary = read_summary(whole)
    for model in ("teacher", "student"):
        cells = summary["models"][model]
        assert list(cells) == list(FEW)
        for cell in cells.values():
            low, high = cell["ci95"]["mean"]
            assert 0 <= low <= cell["accuracy"]["mean"] + 1e-9
            assert cell["accuracy"]["mean"] <= high + 1e-9 <= 100 + 1e-9
            by_task = [cell["accuracy"][task] for task in TASKS]
            assert cell["accuracy"]["mean"] == pytest.approx(sum(by_task) / len(TASKS))
            assert list(cell["tokens_per_forward_by_task"]) == list(TASKS)
            assert list(cell["tokens_per_second_by_task"]) == list(TASKS)
            assert min(cell["tokens_per_second_by_task"].values()) <= cell["tokens_per_second"]
            assert cell["n"] == 4 * len(TASKS)
    assert summary["models"]["teacher"]["B4-T1"]["tokens_per_step"] == pytest.approx(1.0)
    assert list(summary["seconds"]) == ["evaluate_teacher", "rollout", "train", "evaluate_student", "total"]
    rounds = [read_trajectories(whole / f"trajectories-{number}.parquet") for number in (1, 2)]
    assert [len(trajectories) for trajectories in rounds] == [18, 18]
    ids = [{trajectory.id for trajectory in trajectories} for trajectories in rounds]
    assert not ids[0] & ids[1], "a round has prompts of its own"
    teacher, student = load_model("mini", device="cpu"), load_model(whole / "student-1", device="cpu")
    assert {trajectory.teacher_hash for trajectory in rounds[0]} == {teacher.weights_hash}
    assert {trajectory.teacher_hash for trajectory in rounds[1]} == {student.weights_hash}
    assert (whole / "plot.png").stat().st_size > 10_000
    assert not list(whole.glob("checkpoints*"))
    load_model(whole / "student", device="cpu")


def test_the_tables_have_a_mean_and_a_row_per_task_in_80_columns(whole):
    """Of all settings of the demo, with the widest numbers that it has had."""
    summary = read_summary(whole)
    for model, cells in summary["models"].items():
        widest = cells["B4-T1"] | {"tokens_per_second": 10758.2}
        widest |= {name: dict.fromkeys(widest["accuracy"], value) for name, value in WIDEST.items()}
        summary["models"][model] = dict.fromkeys(NAMES, widest)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(summary_table(summary))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(name in line for name in NAMES for line in lines) == len(NAMES)
    assert all(sum(f"  {task} " in line for line in lines) == len(NAMES) for task in TASKS)
    assert not any("…" in line for line in lines)
    report = markdown_report([summary, summary], ["runs/a", "runs/b"])
    assert report.count("| **B8-T4** |") == 2
    assert all(report.count(f"\n| {task} | ") == 2 * len(NAMES) for task in TASKS)


def test_a_demo_cut_in_every_stage_ends_with_the_same_numbers(whole, tmp_path, monkeypatch):
    cuts = [("evaluate", 1), ("roll_out_to_file", 1), ("distil", 1), ("roll_out_to_file", 1), ("distil", 1)]
    for name, call in (*cuts, ("evaluate", 1)):
        real, calls = getattr(pipeline, name), []

        def cut(*args, _real=real, _calls=calls, _call=call, **kwargs):
            _calls.append(1)
            if len(_calls) == _call:
                raise KeyboardInterrupt
            return _real(*args, **kwargs)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(pipeline, name, cut)
            run_demo(config(tmp_path))
    finished = {
        path: path.stat().st_mtime_ns
        for path in (tmp_path / "stages").iterdir()
        if path.name not in ("plan.json", "student.json")
    }
    assert len(finished) == 1 + 2 * 2, "the teacher, two rounds"
    run_demo(config(tmp_path))
    assert finished.items() <= {p: p.stat().st_mtime_ns for p in (tmp_path / "stages").iterdir()}.items()
    cut, uncut = (without_speeds(read_summary(folder)["models"]) for folder in (tmp_path, whole))
    assert cut == uncut
    for name in ("trajectories-1.parquet", "student/model.safetensors"):
        assert (whole / name).read_bytes() == (tmp_path / name).read_bytes()
    second = [read_trajectories(folder / "trajectories-2.parquet") for folder in (whole, tmp_path)]
    nameless = [[dataclasses.replace(t, teacher="") for t in trajectories] for trajectories in second]
    assert nameless[0] == nameless[1]  # the student of round 1 goes by its folder


def test_a_finished_demo_reports_again_without_working(whole, monkeypatch):
    before = read_summary(whole)
    for name in ("roll_out_to_file", "evaluate", "distil"):
        monkeypatch.setattr(pipeline, name, lambda *args, **kwargs: pytest.fail("worked"))
    assert run_demo(config(whole)) == before
    assert read_summary(whole) == before


@pytest.mark.parametrize(
    "name", ["student", "evaluations/student", "trajectories-2.parquet", "checkpoints-1"]
)
def test_files_of_somebody_else_are_refused_before_the_work_and_stay(tmp_path, monkeypatch, name):
    for stage in ("roll_out_to_file", "evaluate", "distil"):
        monkeypatch.setattr(pipeline, stage, lambda *args, **kwargs: pytest.fail("worked"))
    (tmp_path / name).mkdir(parents=True)
    (tmp_path / name / "thesis.txt").write_text("mine")
    for _ in range(2):
        with pytest.raises(InputError, match=f"{name}': exists, and nothing in it tells how it was made"):
            run_demo(config(tmp_path))
    assert (tmp_path / name / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize(("field", "value"), [("seed", 1), ("limit", 5), ("num_rounds", 1)])
def test_a_demo_of_other_settings_is_refused(whole, field, value):
    other = dataclasses.replace(config(whole), **{field: value})
    with pytest.raises(InputError, match=rf"{field} was .*, now {value}"):
        run_demo(other)


@pytest.mark.parametrize(("field", "value"), [("limit", 600), ("num_prompts", 7_000)])
def test_more_problems_than_a_task_has_are_refused_before_any_work(tmp_path, field, value):
    with pytest.raises(InputError, match=rf"{field}={value}.*lower {field}: use at most \d+ per task"):
        run_demo(config(tmp_path / "run", **{field: value}))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("seed", value) for value in (-1, 2**32)),
        *(("learning_rate", value) for value in (-1.0, 0.0, math.nan)),
        *(("rollout_temperature", value) for value in (-1.0, math.nan)),
        ("random_token_prob", 1.0),
    ],
)
def test_numbers_that_no_stage_can_use_are_refused_at_once(tmp_path, field, value):
    with pytest.raises(InputError, match=f"{field}={value!r}"):
        config(tmp_path, **{field: value})
