"""GSM8K and MATH500 from local files in the layouts in which they are published."""

import gzip
import hashlib
import inspect
import json
import os
from pathlib import Path
from typing import get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from t3d.errors import InputError
from t3d.problems.problem import Problem
from t3d.tasks.benchmarks import BENCHMARKS, BenchmarkName, load_benchmark, option_users, own_options
from t3d.tasks.gsm8k import Gsm8kTask
from t3d.tasks.math500 import Math500Task
from t3d.tasks.task import Task

DATA = Path(os.environ.get("T3D_DATA", ""), "gsm8k")
GSM8K_ROWS = [
    {"question": "Two and two?", "answer": "2+2 = <<2+2=4>>4\n#### 4"},
    {"question": "A thousand more?", "answer": "#### 1,004"},
]
MATH_ROWS = [
    {
        "problem": "Half of $1$?",
        "solution": "...",
        "answer": "\\frac{1}{2}",
        "subject": "Algebra",
        "level": 1,
    },
    {"problem": "Who?", "solution": "...", "answer": "\\text{Evelyn}", "subject": "Algebra", "level": 2},
]


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_gz(path, rows):
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))


def write_parquet(path, rows):
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def released(rows, question="question", gold=lambda answer: answer):
    return [{"question": row[question], "ground_truth_answer": gold(row["answer"])} for row in rows]


def write_json(path, rows):
    path.write_text(json.dumps(rows), encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "write", "rows"),
    [
        ("test.jsonl", write_lines, GSM8K_ROWS),
        ("test.jsonl.gz", write_gz, GSM8K_ROWS),
        ("test-00000-of-00001.parquet", write_parquet, GSM8K_ROWS),
        ("main/test-00000-of-00001.parquet", write_parquet, GSM8K_ROWS),
        ("GSM8K.json", write_json, released(GSM8K_ROWS, gold=lambda answer: answer.rpartition("#### ")[2])),
    ],
)
def test_gsm8k_is_read_in_every_layout(tmp_path, name, write, rows):
    write(tmp_path / name, rows)
    task = Gsm8kTask(tmp_path)
    assert task.problems("test", None, 0) == [
        Problem(id="gsm8k/test/0", question="Two and two?", task="gsm8k", answer="4"),
        Problem(id="gsm8k/test/1", question="A thousand more?", task="gsm8k", answer="1004"),
    ]
    assert len(task.problems("test", 1, 5)) == 1
    sha256 = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    assert task.data == {"test": {"file": Path(name).name, "sha256": sha256, "num_rows": 2}}
    assert task.settings()["data"] == task.data


@pytest.mark.other_process
@pytest.mark.parametrize(
    ("name", "write", "rows"),
    [
        ("test.jsonl", write_lines, MATH_ROWS),
        ("data/test-00000-of-00001.parquet", write_parquet, MATH_ROWS),
        ("MATH500.json", write_json, released(MATH_ROWS, "problem")),
    ],
)
def test_math500_is_read_in_every_layout(tmp_path, name, write, rows):
    folder = tmp_path / "math500"  # one folder of data may hold a folder per benchmark
    folder.mkdir()
    write(folder / name, rows)
    task = Math500Task(tmp_path, num_workers=1)
    problems = task.problems("test", None, 0)
    assert [problem.question for problem in problems] == ["Half of $1$?", "Who?"]
    assert task.grade(problems[0], r"It is \boxed{0.5}.")
    assert not task.grade(problems[0], "It is 0.5.")
    assert task.grade(problems[1], r"\boxed{Evelyn}")
    task.close()


def test_the_benchmarks_are_tasks_by_name(tmp_path):
    write_lines(tmp_path / "test.jsonl", GSM8K_ROWS)
    for name in ("gsm8k", "math500"):
        task = load_benchmark(name, tmp_path)
        assert isinstance(task, Task) and task.name == name and BENCHMARKS[name].kind == "math"
    with pytest.raises(InputError, match="task='gsm9k': not known"):
        load_benchmark("gsm9k")


def test_one_table_says_what_belongs_to_which_benchmark():
    assert tuple(BENCHMARKS) == get_args(BenchmarkName)
    assert option_users()["unsafe_no_sandbox"] == ("mbpp", "humaneval")
    values = {"grader": "legacy", "protocol": "sanitized", "data": "folder"}
    assert own_options("gsm8k", values) == {"grader": "legacy"} and own_options("chain", values) == {}
    for name, benchmark in BENCHMARKS.items():
        arguments = inspect.signature(benchmark.__init__).parameters
        shared = inspect.signature(benchmark.__mro__[1].__init__).parameters
        assert set(benchmark.options) <= {*arguments, *shared}, name


def test_a_verdict_shows_strict_and_flexible_extraction_side_by_side():
    task = load_benchmark("gsm8k", num_workers=1)
    problem = Problem(id="a", question="", answer="#### 1,080")
    for response, correct, strict, flexible in [
        (r"\boxed{1080}", True, False, True),
        ("So\n#### 1080", False, True, True),
        (r"#### 1080 \boxed{1080} after 3 tries", True, True, False),
        ("none", False, False, False),
    ]:
        verdict = task.assess(problem, response)
        assert verdict.correct is correct is task.grade(problem, response)
        assert verdict.others == {"strict-match": strict, "flexible-extract": flexible}
    task.close()


def test_what_cannot_be_read_is_named(tmp_path):
    task = Gsm8kTask(tmp_path)
    with pytest.raises(InputError, match=r"holds no file with the test split of gsm8k.*test\.jsonl"):
        task.problems("test", None, 0)
    with pytest.raises(InputError, match="no such file or folder"):
        Gsm8kTask(tmp_path / "none").problems("test", None, 0)
    with pytest.raises(InputError, match="gsm8k needs its data"):
        Gsm8kTask().problems("test", None, 0)
    for split, wrong in [("test", Math500Task), ("validation", Gsm8kTask)]:
        with pytest.raises(InputError, match="split"):
            wrong(tmp_path).problems("validation" if split == "validation" else "train", None, 0)
    for content, problem in [
        ("{", "cannot be read"),
        ("", "not a list of objects"),
        ('{"question": "a"}', "ground_truth_answer, answer=.row 1 of .*: this key is missing"),
        ('{"question": "a", "answer": 5}', "row 1 of .*: not a text"),
    ]:
        (tmp_path / "test.jsonl").write_text(content)
        with pytest.raises(InputError, match=problem):
            task.problems("test", None, 0)
    with pytest.raises(InputError, match="problem 'x' has no gold answer"):
        task.check(Problem(id="x", question="?"))


def test_of_several_files_none_is_guessed(tmp_path):
    for part in range(2):
        write_parquet(tmp_path / f"test-0000{part}-of-00002.parquet", GSM8K_ROWS)
    with pytest.raises(InputError, match="2 files for the test split of gsm8k"):
        Gsm8kTask(tmp_path).problems("test", None, 0)
    file = tmp_path / "test-00001-of-00002.parquet"
    assert len(Gsm8kTask(file).problems("test", None, 0)) == 2


@pytest.mark.skipif(not DATA.is_dir(), reason="set T3D_DATA to the folder of the data sets")
def test_both_published_copies_of_gsm8k_hold_the_same_problems():
    original, copy = Gsm8kTask(DATA), Gsm8kTask(DATA / "genverse_GSM8K.jsonl")
    pairs = [
        {(problem.question, problem.answer) for problem in task.problems("test", None, 0)}
        for task in (original, copy)
    ]
    assert pairs[0] == pairs[1] and len(pairs[0]) == 1319
    assert original.data["test"]["sha256"].startswith("3730d312f6e34405")
    assert len(original.problems("train", None, 0)) == 7473
