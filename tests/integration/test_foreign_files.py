"""No command writes over a file that it did not write: it says so before any work, and the file stays."""

import os
from pathlib import Path

import pytest
from command_helpers import run_failing
from format_helpers import make

from t3d.cli.config_file import check_config, write_config
from t3d.cli.train import Train
from t3d.errors import InputError
from t3d.evaluation.grade_file import grade_to_file
from t3d.reproduce.runner import Reproduction
from t3d.reproduce.suite_choice import ReproduceConfig
from t3d.tasks.mini.suite import TASKS
from t3d.trajectory import is_without_plan, write_trajectories
from t3d.work.files import check_output_file, check_output_folder
from t3d.work.own import json_with, text_from

RESULTS = Path(__file__).parents[2] / "docs" / "results"
MINE = ['{"mine": 1}', "\x89PNG\n\x1a\n", ""]
PROMPTS = "--prompts nowhere.jsonl"


@pytest.mark.parametrize("content", MINE)
@pytest.mark.parametrize(
    ("command", "file"),
    [
        *(("demo --output out", f"out/{name}") for name in ("summary.json", "plot.png", "config.yaml")),
        (f"rollout --model nowhere/x {PROMPTS} --output out/r.parquet", "out/r.parquet.yaml"),
        *(
            (f"eval --model nowhere/x {PROMPTS} --output out", f"out/{name}")
            for name in ("samples.jsonl", "results.json", "config.yaml")
        ),
        ("train --model nowhere/x --trajectories x --output out", "out/config.yaml"),
        ("grade --task gsm8k --data x --samples x --output out/g.jsonl", "out/g.jsonl.yaml"),
        *(
            ("data prompts --source gsm8k_train --data x --output out/p.jsonl", f"out/p.jsonl{ending}")
            for ending in ("", ".summary.json", ".yaml")
        ),
        ("data solutions --model nowhere/x --task chain --output out/s.parquet", "out/s.parquet"),
        *(
            (
                f"data convert --input x --output out/{name} --to-format {form} --model nowhere/x",
                f"out/{name}",
            )
            for form, name in (("t3d", "c.parquet"), ("authors", "c.json"), ("d3llm", "c.jsonl"))
        ),
        *((f"compare x y --output out/{name}", f"out/{name}") for name in ("c.json", "c.md")),
        ("mini oracle --output out/o.json", "out/o.json"),
        ("theory --trajectories x --output out/o.json", "out/o.json"),
        ("mini pretrain --output out", "out/config.yaml"),
        (
            "reproduce cell --method original --settings B4-T1 --device cpu --output out",
            "out/cell.json",
        ),
        ("reproduce table4 --dry-run --quick --cells None --configurations out/c.yaml", "out/c.yaml"),
    ],
)
def test_a_file_of_somebody_else_is_refused_before_any_work(
    tmp_path, monkeypatch, capsys, command, file, content
):
    monkeypatch.chdir(tmp_path)
    Path("out").mkdir()
    Path(file).write_text(content, encoding="latin-1")
    text = run_failing(command.split(), capsys)
    assert f"output='{file}': exists, and" in text and "use another output" in text
    assert Path(file).read_text(encoding="latin-1") == content and os.listdir("out") == [Path(file).name]


@pytest.mark.parametrize(
    "command",
    [
        "demo",
        f"eval --model nowhere/x {PROMPTS}",
        "reproduce table4 --quick --cells None --device cpu",
        "reproduce cell --method original --settings B4-T1 --device cpu",
    ],
)
def test_a_folder_of_somebody_else_is_refused_before_any_work(tmp_path, monkeypatch, capsys, command):
    """They wrote in between; what the command itself left there, whole or not, is taken up (other tests)."""
    monkeypatch.chdir(tmp_path)
    Path("out").mkdir()
    Path("out/thesis.tex").write_text("mine")
    text = run_failing([*command.split(), "--output", "out"], capsys)
    assert "output='out': holds 'thesis.tex', and nothing that this command made. Fix: use a new or" in text
    assert os.listdir("out") == ["thesis.tex"]


def test_a_folder_is_a_command_s_own_by_what_it_writes_or_by_being_empty(tmp_path):
    check_output_folder(tmp_path / "none", ("a.json",))
    (tmp_path / ".DS_Store").touch()
    check_output_folder(tmp_path, ("a.json",))
    (tmp_path / "out.txt").touch()  # opened by a shell: command > out.txt
    (tmp_path / "run.log").write_text("what the last try said")
    check_output_folder(tmp_path, ("a.json",))
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds 'notes\.txt', and nothing that this command made"):
        check_output_folder(tmp_path, ("a.json",))
    (tmp_path / "b-1.parquet").touch()
    check_output_folder(tmp_path, ("a.json", "b-*"))


@pytest.mark.parametrize(
    ("command", "folder"),
    [
        ("rollout --model mini --task chain --limit 2 --max-new-tokens 4 --output r", "r.chunks"),
        ("eval --model mini --tasks chain --limit 2 --max-new-tokens 4 --output e", "e/unfinished"),
    ],
)
def test_files_of_somebody_else_are_not_removed_with_finished_work(
    tmp_path, monkeypatch, capsys, command, folder
):
    """The folder of what is unfinished is removed at the end, whoever had made it."""
    monkeypatch.chdir(tmp_path)
    Path(folder).mkdir(parents=True)
    Path(folder, "notes.txt").write_text("mine")
    text = run_failing([*command.split(), "--device", "cpu"], capsys)
    assert f"output='{folder}': holds files, and no readable plan.json tells of which run. Fix: move" in text
    assert os.listdir(folder) == ["notes.txt"]


@pytest.mark.parametrize("file", ["tables.json", "tables.md", "table4-mini.png"])
def test_the_report_of_a_reproduction_is_refused_before_its_cells_are_made(tmp_path, capsys, file):
    (tmp_path / file).write_text("mine")
    command = ["reproduce", "table4", "--quick", "--cells", "None", "--device", "cpu"]
    text = run_failing([*command, "--output", str(tmp_path)], capsys)
    assert f"{file}': exists, and nothing tells that this command wrote it" in text
    assert (tmp_path / file).read_text() == "mine" and os.listdir(tmp_path) == [file]


@pytest.mark.parametrize("kind", ["evaluations", "students", "records"])
def test_stages_of_a_reproduction_are_refused_before_any_of_them(tmp_path, monkeypatch, kind):
    """Those of the last cell too, not when its turn comes."""
    config = ReproduceConfig(output=str(tmp_path), cells=None, quick=True, device="cpu")
    reproduction = Reproduction(config, (4,))
    cell = reproduction.all_cells()[-1]
    workshop = reproduction.workshop
    made = {"students": workshop.student, "records": workshop.records}
    path = workshop.evaluation(cell).path if kind == "evaluations" else made[kind](cell.student).path
    path.mkdir(parents=True)
    monkeypatch.setattr(type(workshop), "make_cell", lambda *_: pytest.fail("worked"))
    with pytest.raises(InputError, match=f"{path.name}': exists, and nothing in it tells how it was made"):
        reproduction.run()


def test_a_foreign_summary_beside_graded_outputs_is_refused(tmp_path):
    summary = tmp_path / "g.jsonl.summary.json"
    summary.write_text('{"mine": 1}')
    with pytest.raises(InputError, match=r"summary\.json': exists, and nothing tells"):
        grade_to_file(TASKS["chain"], tmp_path / "none", tmp_path / "g.jsonl")
    assert summary.read_text() == '{"mine": 1}'


def test_a_config_that_the_command_wrote_is_its_own(tmp_path):
    command, path = Train(model="m", trajectories="t", output="o", eval_tasks=("chain",)), tmp_path / "c.yaml"
    check_config(command, path)
    write_config(command, path)
    check_config(command, path)
    path.write_text("# my favourite settings\n" + path.read_text())
    with pytest.raises(InputError, match="nothing tells that this command wrote it"):
        check_config(command, path)


def test_files_of_earlier_versions_are_known():
    """As they are committed."""
    check_output_file(RESULTS / "tables.json", is_own=json_with("suite", "budget", "entries", "versions"))
    check_output_file(RESULTS / "tables.md", is_own=text_from("# Tables of the paper on suite"))
    check_output_file(RESULTS / "oracle.json", is_own=json_with("rows", "config", "versions"))


def test_a_data_set_of_somebody_else_is_not_written_over(tmp_path, capsys):
    """A folder of ``datasets`` of any origin was replaced."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    for name, content in (("dataset_info.json", "{}"), ("state.json", '{"_fingerprint": "5f2a"}')):
        (folder / name).write_text(content)
    line = f"data convert --input x --output {folder} --to-format d3llm --model nowhere/x"
    assert "theirs': exists, and is not a data set that this command wrote" in run_failing(
        line.split(), capsys
    )
    assert sorted(os.listdir(folder)) == ["dataset_info.json", "state.json"]


def test_records_of_a_rollout_are_not_written_over_by_those_of_a_conversion(tmp_path):
    write_trajectories(tmp_path / "converted.parquet", [make()])
    write_trajectories(tmp_path / "rolled.parquet", [make()], plan={"count": 1})
    assert is_without_plan(tmp_path / "converted.parquet")
    assert not is_without_plan(tmp_path / "rolled.parquet")
