"""The demo end to end at a toy budget, with the bundled teacher."""

import contextlib
import dataclasses
import io
import json
import math
import re
import shutil

import pytest
from command_helpers import run_failing
from rich.console import Console

from t3d.cli.demo import Demo
from t3d.cli.stopping import kept_text
from t3d.errors import InputError
from t3d.models.drafter import save_drafter
from t3d.models.gated import add_gated_adapter
from t3d.models.loading import load_model
from t3d.report.demo_table import left_to_right_table, markdown_report, summary_table
from t3d.reproduce import demo, pipeline
from t3d.reproduce.demo import run_demo
from t3d.reproduce.demo_config import DemoConfig
from t3d.reproduce.demo_stages import demo_stages
from t3d.reproduce.settings import LEFT_TO_RIGHT, SETTINGS
from t3d.tasks.mini.suite import TASKS
from t3d.training.preset_rounds import ROUNDS
from t3d.trajectory import read_trajectories
from t3d.work import progress

NAMES = ["B4-T1", "B4-T2", "B4-T4", "B8-T1", "B8-T2", "B8-T4", "B8-T8", "B4-dynamic"]
FEW = {
    name: dataclasses.replace(SETTINGS[name], max_new_tokens=16) for name in ("B4-T1", "B8-T4", "B4-dynamic")
}
"""What the demos here decode in: short texts, one step per token, few steps, and dynamic steps."""
NAMES_LEFT_TO_RIGHT = ["B8-left-to-right", "B8-self-speculative"]
DRAFTED = "teacher + drafter"


@pytest.fixture(scope="module", autouse=True)
def _few_settings():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "SETTINGS", FEW)
        short = {name: dataclasses.replace(it, max_new_tokens=16) for name, it in LEFT_TO_RIGHT.items()}
        patch.setattr(demo, "LEFT_TO_RIGHT", short)
        patch.setattr(demo, "MAX_NEW_TOKENS", 24)
        yield


def config(folder, **overrides) -> DemoConfig:
    fields = {"num_prompts": 16, "num_optimizer_steps": 2, "train_batch_size": 8, "limit": 4}
    fields |= {"show_progress": False, "dtype": "float32"}
    return DemoConfig(output=str(folder), device="cpu", **(fields | overrides))


@pytest.fixture(scope="module")
def teacher():
    return load_model("mini", device="cpu")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Folder of a finished demo."""
    folder = tmp_path_factory.mktemp("demo") / "whole"
    with (
        contextlib.redirect_stdout(io.StringIO()) as printed,
        contextlib.redirect_stderr(io.StringIO()) as said,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
        run_demo(config(folder, show_progress=True))
    (folder / "printed.txt").write_text(printed.getvalue())
    (folder / "progress.txt").write_text(said.getvalue())
    return folder


def test_a_demo_says_one_line_per_stage_with_its_number_and_what_is_left(whole):
    """Neither lines of the training nor finished bars."""
    first, *lines = (whole / "printed.txt").read_text().splitlines()
    rounds = ["rollout round 1", "distil round 1", "rollout round 2", "distil round 2"]
    names = ["evaluate teacher", "evaluate teacher-left-to-right", *rounds, "evaluate student"]
    assert first.startswith("7 stages, typically ") and first.endswith(f" on two cores: {', '.join(names)}")
    for number, (name, line) in enumerate(zip(names, lines, strict=True), start=1):
        left = "" if number == 7 else r"; about (\d+ s|\d+ min) left"
        assert re.fullmatch(rf"\[{number}/7\] {name}: (\d+ s|\d+ min){left}", line)
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


def test_without_a_terminal_every_stage_says_how_far_it_is(whole):
    """Here at every chance; training too, which has neither lines of its own nor a bar there."""
    lines = (whole / "progress.txt").read_text().splitlines()
    stages = [line.split(": ")[0] for line in (whole / "printed.txt").read_text().splitlines()[1:]]
    said = [line for line in lines if re.fullmatch(r"\[\d/7\] [a-z 12-]+: \d+/\d+, .*", line)]
    assert list(dict.fromkeys(line.split(": ")[0] for line in said)) == stages
    assert [line for line in said if "distil round 1" in line][-1].startswith("[4/7] distil round 1: 1/2, ")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_without_a_dtype_the_demo_decodes_and_trains_in_the_fast_one(tmp_path, monkeypatch, dtype):
    """And goes on in it elsewhere. What is to be the same text in fewer forwards is in float32."""
    monkeypatch.setattr(demo, "fast_dtype", lambda device: dtype)
    trained, distil = [], pipeline.distil
    monkeypatch.setattr(
        pipeline, "distil", lambda *args, **how: trained.append(args[2]) or distil(*args, **how)
    )
    few = {"limit": 1, "num_rounds": 1, "num_optimizer_steps": 1, "num_prompts": 8}
    summary = run_demo(config(tmp_path, dtype=None, **few))
    plan = json.loads((tmp_path / "stages" / "plan.json").read_text())["plan"]
    assert summary["dtype"] == plan["dtype"] == dtype
    assert [one.bf16 for one in trained] == [dtype == "bfloat16"]
    student = load_model(tmp_path / "student", device="cpu", dtype="auto")
    assert str(student.checkpoint_dtype) == f"torch.{dtype}"
    decoded = {
        name: json.loads((tmp_path / "evaluations" / name / "results.json").read_text())["model"]["dtype"]
        for name in ("teacher", "teacher-left-to-right", "student")
    }
    assert decoded == dict.fromkeys(decoded, f"torch.{dtype}") | {"teacher-left-to-right": "torch.float32"}
    monkeypatch.setattr(demo, "fast_dtype", lambda device: "float64")
    assert run_demo(config(tmp_path, dtype=None, **few)) == summary
    assert run_demo(config(tmp_path, dtype=f"torch.{dtype}", **few)) == summary


def test_the_demo_has_these_settings():
    assert list(SETTINGS) == NAMES
    assert list(LEFT_TO_RIGHT) == NAMES_LEFT_TO_RIGHT


def test_demo_writes_summary_plot_student_and_trajectories(whole, teacher):
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
    left_to_right = summary["self_speculative"]["teacher"]
    assert list(summary["models"]) == ["teacher", "student"] and list(left_to_right) == NAMES_LEFT_TO_RIGHT
    plain, drafted = left_to_right.values()
    assert plain.keys() == drafted.keys() == summary["models"]["teacher"]["B4-T1"].keys()
    assert (plain["accuracy"], plain["n"]) == (drafted["accuracy"], drafted["n"])
    assert plain["tokens_per_forward"] == 1 < drafted["tokens_per_forward"]
    evaluations = ["evaluate_teacher", "evaluate_teacher_left_to_right"]
    assert list(summary["seconds"]) == [*evaluations, "rollout", "train", "evaluate_student", "total"]
    rounds = [read_trajectories(whole / f"trajectories-{number}.parquet") for number in (1, 2)]
    assert [len(trajectories) for trajectories in rounds] == [18, 18]
    ids = [{trajectory.id for trajectory in trajectories} for trajectories in rounds]
    assert not ids[0] & ids[1], "a round has prompts of its own"
    student = load_model(whole / "student-1", device="cpu")
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
    widest = next(iter(summary["models"]["teacher"].values()))
    models = {"teacher": NAMES_LEFT_TO_RIGHT, DRAFTED: NAMES_LEFT_TO_RIGHT[1:]}
    summary["self_speculative"] = {name: dict.fromkeys(names, widest) for name, names in models.items()}
    console.print(left_to_right_table(summary))
    title, _, _, *rows, _ = console.export_text().splitlines()
    assert title.strip() == "The same text in fewer forwards" and max(map(len, rows)) <= 80
    assert [re.split(" +B8-", row)[0] for row in rows] == ["teacher", "teacher", DRAFTED]
    below = " ".join(lines[-2:])
    assert all(name in below for name in ("Bx-Ty: ", "TPF, ", "tok/s, ", "gain: ")), "what columns mean"
    report = markdown_report([summary, summary], ["runs/a", "runs/b"])
    assert report.count(f"\n| {DRAFTED} | B8-self-speculative | 100.0 [99.3, 100.0] |") == 2
    assert report.count("| **B8-T4** |") == 2
    assert all(report.count(f"\n| {task} | ") == 2 * len(NAMES) for task in TASKS)


def test_a_demo_cut_in_every_stage_ends_with_the_same_numbers(whole, tmp_path, monkeypatch):
    said = []
    cuts = [
        ("evaluate", 1),
        ("evaluate", 2),
        ("roll_out_to_file", 1),
        ("distil", 1),
        ("roll_out_to_file", 1),
        ("distil", 1),
    ]
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
        said.append(kept_text("demo", config(tmp_path)))
    assert ["nothing was finished yet" in text for text in said] == [True] + [False] * 6
    finished = {
        path: path.stat().st_mtime_ns
        for path in (tmp_path / "stages").iterdir()
        if path.name not in ("plan.json", "student.json")
    }
    assert len(finished) == 2 + 2 * 2, "the teacher twice, two rounds"
    run_demo(config(tmp_path))
    assert finished.items() <= {p: p.stat().st_mtime_ns for p in (tmp_path / "stages").iterdir()}.items()
    for key in ("models", "self_speculative"):
        cut, uncut = (without_speeds(read_summary(folder)[key]) for folder in (tmp_path, whole))
        assert cut == uncut
    for name in ("trajectories-1.parquet", "student/model.safetensors"):
        assert (whole / name).read_bytes() == (tmp_path / name).read_bytes()
    second = [read_trajectories(folder / "trajectories-2.parquet") for folder in (whole, tmp_path)]
    nameless = [[dataclasses.replace(t, teacher="") for t in trajectories] for trajectories in second]
    assert nameless[0] == nameless[1]  # the student of round 1 goes by its folder


@pytest.mark.parametrize(
    ("other", "said"), [({"num_rounds": 1}, "num_rounds was 2, now 1"), ({"limit": 5}, "limit")]
)
def test_a_demo_of_other_settings_is_refused_by_them(whole, other, said):
    """Not by what of its files the others would not make."""
    with pytest.raises(InputError, match=said):
        run_demo(config(whole, **other))


def test_a_finished_demo_reports_again_without_working(whole, monkeypatch):
    before = read_summary(whole)
    for name in ("roll_out_to_file", "evaluate", "distil"):
        monkeypatch.setattr(pipeline, name, lambda *args, **kwargs: pytest.fail("worked"))
    assert run_demo(config(whole)) == before
    assert read_summary(whole) == before
    Demo(**dataclasses.asdict(config(whole))).run()
    report = (whole / "report.html").read_text()
    for told in ("At four tokens per step", "student-1", "Negative log-likelihood", "teacher, blocks of 8"):
        assert told in report, told
    assert read_summary(whole) == before


def test_a_finished_demo_gains_the_row_of_a_drafter_and_no_other_afterwards(
    whole, teacher, tmp_path, monkeypatch
):
    folder = shutil.copytree(whole, tmp_path / "demo")
    for name in ("a", "b"):  # of other random weights each
        adapter = add_gated_adapter(teacher.model, 1)
        save_drafter(adapter, teacher, tmp_path / name)
        adapter.detach()
    for name in ("roll_out_to_file", "distil"):
        monkeypatch.setattr(pipeline, name, lambda *args, **kwargs: pytest.fail("worked"))
    before, after = read_summary(whole), run_demo(config(folder, drafter=str(tmp_path / "a")))
    drafted = after["self_speculative"].pop(DRAFTED)
    assert {key: after[key] for key in ("models", "self_speculative")} == {
        key: before[key] for key in ("models", "self_speculative")
    }
    own = after["self_speculative"]["teacher"]["B8-self-speculative"]
    assert list(drafted) == ["B8-self-speculative"]
    assert drafted["B8-self-speculative"]["accuracy"] == own["accuracy"]
    for drafter, problem in ((tmp_path / "b", "drafter was .*, now"), (None, "was given, now not given")):
        with pytest.raises(InputError, match=problem):
            run_demo(config(folder, drafter=drafter and str(drafter)))


@pytest.mark.parametrize(
    ("base", "problem"), [(None, "it has no adapter_config.json"), ("0" * 64, "drafts for the weights 0000")]
)
def test_a_folder_that_is_no_drafter_of_the_teacher_is_refused_before_any_work(
    teacher, tmp_path, monkeypatch, capsys, base, problem
):
    monkeypatch.setattr(demo, "load_model", lambda *args, **kwargs: teacher)
    if base is not None:
        (tmp_path / "adapter_config.json").write_text("{}")
        (tmp_path / "drafter.json").write_text(json.dumps({"base": {"weights": base}}))
    arguments = ["--drafter", str(tmp_path), "--output", str(tmp_path / "run"), "--device", "cpu"]
    arguments += ["--num-prompts", "16", "--limit", "4"]
    assert f"drafter={str(tmp_path)!r}: {problem}" in run_failing(["demo", *arguments], capsys)
    assert not (tmp_path / "run").exists()


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


def test_a_method_made_for_rounds_rolls_out_as_it_says(tmp_path, monkeypatch):
    """Three rounds, each in its own steps; told one, it makes one."""
    monkeypatch.setitem(ROUNDS["t3d-plus"], "rollout_settings", ("B4-T1", "B8-T4", "B8-T8"))
    plus = config(tmp_path / "plus", method="t3d-plus", limit=2)
    assert plus.num_rounds == 3 and config(tmp_path / "one", method="t3d-plus", num_rounds=1).num_rounds == 1
    assert config(tmp_path / "t3d").num_rounds == 2
    run_demo(plus)
    decoded = []
    for number in (1, 2, 3):
        rolled = read_trajectories(tmp_path / "plus" / f"trajectories-{number}.parquet")
        decoded += {(one.decode_params["block_size"], one.decode_params["steps_per_block"]) for one in rolled}
    assert decoded == [(4, 4), (8, 2), (8, 1)]
    told = json.loads((tmp_path / "plus" / "student" / "training.json").read_text())["plan"]
    assert told["soft_target_model"] is not None
