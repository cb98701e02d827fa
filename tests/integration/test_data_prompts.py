"""``t3d data prompts``: published data sets become the prompt files that the other commands read."""

import hashlib
import json
import os
import re
import shlex
from pathlib import Path

import pytest
from command_helpers import run_failing
from huggingface_hub import constants

from t3d.cli.main import main
from t3d.grading.code import FunctionTests, grade_program
from t3d.problems.prompt_file import read_prompt_file
from t3d.problems.sources.registry import SOURCES
from t3d.problems.sources.rows import DroppedProblem
from t3d.reproduce.suites import SdarData
from t3d.sandbox.sandbox import Sandbox
from t3d.trajectory import read_trajectories

DATA = Path(os.environ.get("T3D_DATA", "T3D_DATA"))
DOCS = Path(__file__).parents[2] / "docs" / "data.md"
MATH = [{"question": f"What is {n} + {n}?", "ground_truth_answer": str(2 * n)} for n in range(8)]
CODE = [
    {
        "question": f"Print the sum of two numbers, {n}.",
        "test_input": ["1 2\n", "3 4\n"],
        "test_output": ["3\n", "7\n"],
        "test_time_limit": 4,
        "test_method": "stdio",
    }
    for n in range(4)
]
SOLVED = [
    {"question": "Two and two?", "answer": "2+2 = <<2+2=4>>4\n#### 4"},
    {"question": "Three and three?", "answer": "Three and three is three more than three, so six.\n#### 6"},
]


@pytest.fixture
def data(tmp_path):
    """A folder of data sets as they are published, and MATH500 with one of the training questions."""
    folder = tmp_path / "data"
    for name in ("math_train", "primeintellect", "gsm8k", "math500"):
        (folder / name).mkdir(parents=True)
    (folder / "math_train/MATH_train.json").write_text(json.dumps(MATH))
    (folder / "primeintellect/PrimeIntellect.json").write_text(json.dumps(CODE))
    (folder / "gsm8k/train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in SOLVED))
    test = {"problem": "what is  3 + 3?", "answer": "6"}
    (folder / "math500/test.jsonl").write_text(json.dumps(test) + "\n")
    return folder


def run(data, name, *flags):
    output = data / name
    assert main(["data", "prompts", "--data", str(data), "--output", str(output), *flags]) == 0
    return output


def test_the_files_of_the_suite_sdar_are_made_by_two_commands(data, capsys):
    sources = ["--source", "math_train", "primeintellect", "--seed", "0", "--exclude", "math500"]
    train = run(data, "train.jsonl", *sources)
    printed = capsys.readouterr().out
    assert "math_train: 8 read, 7 kept; 1 question of a benchmark" in printed
    assert "primeintellect: 4 read, 4 kept\n11 problems in" in printed
    limit = ["--max-solution-tokens", "40", "--tokenizer", "mini"]
    run(data, "solutions.jsonl", "--source", "gsm8k_train", *limit)
    assert "gsm8k_train: 2 read, 1 kept; 1 solution too long" in capsys.readouterr().out
    suite = SdarData(data)
    assert {problem.task for problem in suite.training_problems(11, 0, solved=False)} == {"math", "stdio"}
    (solved,) = suite.training_problems(1, 0, solved=True)
    assert solved.solution == "2+2 = 4\nThe answer is \\boxed{4}."
    summary = json.loads(Path(f"{train}.summary.json").read_text())
    assert summary["sha256"] == hashlib.sha256(train.read_bytes()).hexdigest()
    file = data / "math_train/MATH_train.json"
    assert summary["sources"][0]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert summary["excluded"]["math500"]["test"]["num_rows"] == 1


def test_the_same_command_gives_the_same_file_and_its_settings_run_it_again(data):
    flags = ["--source", "math_train", "primeintellect", "--limit", "5", "2", "--seed", "7"]
    train = run(data, "train.jsonl", *flags)
    first = train.read_bytes()
    settings = Path(f"{train}.yaml").read_text()
    train.unlink()
    assert main(["data", "prompts", "--config", f"{train}.yaml"]) == 0
    assert train.read_bytes() == first
    assert Path(f"{train}.yaml").read_text() == settings
    run(data, "other.jsonl", *flags[:-1], "8")
    assert (data / "other.jsonl").read_bytes() != first


def test_prompt_files_are_sources_too(data):
    math, mixed = run(data, "math.jsonl", "--source", "math_train"), data / "mixed.jsonl"
    assert main(["data", "prompts", "--source", str(math), "--output", str(mixed), "--limit", "3"]) == 0
    assert read_prompt_file(mixed) == read_prompt_file(math)[:3]


def test_solutions_become_records_to_fine_tune_on(data):
    solved = run(data, "solved.jsonl", "--source", "gsm8k_train")
    records = data / "records.parquet"
    assert (
        main(["data", "solutions", "--prompts", str(solved), "--model", "mini", "--output", str(records)])
        == 0
    )
    assert [record.id for record in read_trajectories(records)] == ["gsm8k_train/0", "gsm8k_train/1"]


def test_the_stored_tests_of_a_code_problem_grade_a_program(data):
    asked = {"question": "Add two numbers.", "test_method": "function", "test_time_limit": 4}
    rows = [*CODE, asked | {"test_list": ["assert add(1, 2) == 3", "assert add(3, 4) == 7"]}]
    (data / "primeintellect/PrimeIntellect.json").write_text(json.dumps(rows))
    problem = read_prompt_file(run(data, "code.jsonl", "--source", "primeintellect"))[-1]
    stored = json.loads(str(problem.answer))
    tests = FunctionTests(tests=tuple(stored["tests"]), time_limit_s=stored["time_limit_s"])
    sandbox = Sandbox(unsafe_no_sandbox=True)
    assert grade_program(sandbox, "def add(a, b): return a + b", tests).passed
    assert not grade_program(sandbox, "def add(a, b): return 3", tests).passed


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--source", "svamp"], "source='svamp': not known"),
        (["--source", "math_train", "math_train"], "one of them twice"),
        (["--source", "math_train", "--limit", "1", "2"], "2 limits for 1 sources"),
        (["--source", "math_train", "--max-solution-tokens", "600"], "give both or neither"),
        (["--source", "math_train", "--tokenizer", "mini"], "give both or neither"),
        (["--source", "bespoke_stratos"], "holds no file with the problems of bespoke_stratos"),
        (
            ["--source", "math_train", "--exclude", "humaneval"],
            "holds no file with the problems of humaneval",
        ),
        (["--source", "math_train", "--exclude", "svamp"], "svamp"),
    ],
)
def test_wrong_flags_are_refused_and_nothing_is_written(data, capsys, flags, message):
    output = data / "out.jsonl"
    arguments = ["data", "prompts", "--data", str(data), "--output", str(output), *flags]
    assert message in run_failing(arguments, capsys)
    assert not list(data.glob("out.jsonl*"))


def test_a_file_of_training_data_is_not_taken_for_a_benchmark(data, capsys):
    arguments = ["data", "prompts", "--source", "math_train", "--output", str(data / "out.jsonl")]
    arguments += ["--data", str(data / "math_train/MATH_train.json")]
    assert main(arguments) == 0
    assert "exclude_data=None" in run_failing([*arguments, "--exclude", "math500"], capsys)
    assert main([*arguments, "--exclude", "math500", "--exclude-data", str(data)]) == 0


def test_offline_the_hub_is_a_short_error(data, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    arguments = ["data", "prompts", "--source", "math_train", "--output", str(data / "out.jsonl")]
    text = run_failing([*arguments, "--data", "hub"], capsys)
    assert "data='hub': Gen-Verse/MATH_train cannot be downloaded" in text
    assert "give its folder as data" in text


@pytest.mark.skipif(not DATA.is_dir(), reason="set T3D_DATA to the folder of the data sets")
def test_the_published_training_splits_are_read_whole(tmp_path, capsys):
    output = tmp_path / "train.jsonl"
    arguments = ["data", "prompts", "--source", "gsm8k_train", "mbpp_train", "--data", str(DATA)]
    assert main([*arguments, "--output", str(output), "--exclude", "gsm8k", "mbpp"]) == 0
    printed = capsys.readouterr().out
    assert "gsm8k_train: 7473 read, 7473 kept" in printed
    assert "mbpp_train: 974 read, 374 kept; 600 of another split" in printed
    problems = read_prompt_file(output)
    assert len(problems) == 7473 + 374
    math = [problem for problem in problems if problem.task == "math"]
    assert not any("<<" in str(problem.solution) for problem in math)
    assert all(problem.answer and problem.solution for problem in problems)


# --- documentation -------------------------------------------------------------------------------


def test_the_data_page_names_every_source_and_every_reason():
    text = DOCS.read_text(encoding="utf-8")
    assert [name for name in SOURCES if f"| `{name}` |" not in text] == []
    assert [reason for reason in DroppedProblem if f"| {reason} |" not in text] == []


def test_the_files_that_the_suite_sdar_reads_have_commands_on_the_data_page():
    text = DOCS.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [shlex.split(line) for line in re.findall(r"^t3d data prompts.*$", text, flags=re.MULTILINE)]
    outputs = {line[line.index("--output") + 1] for line in lines}
    assert {"data/train.jsonl", "data/solutions.jsonl"} <= outputs
