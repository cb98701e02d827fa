"""Training problems: published layouts are read, and what gives no problem is counted or named."""

import hashlib
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from t3d.errors import InputError
from t3d.grading.code import FunctionTests
from t3d.problems.problem import Problem
from t3d.problems.sources import registry
from t3d.problems.sources.registry import SOURCES, read_source
from t3d.problems.sources.rows import DroppedProblem
from t3d.problems.sources.selection import write_prompt_file

GSM8K = {"question": "Two and two?", "answer": "2+2 = <<2+2=4>>4 apples\n#### 1,004"}
MATH = {
    "problem": "One?",
    "level": "Level 1",
    "type": "Algebra",
    "solution": "Half, so $\\boxed{\\frac{1}{2}}$.",
}
STDIO = {
    "question": "Print the sum.",
    "test_input": ["1 2\n", "3 4\n"],
    "test_output": ["3\n", "7\n"],
    "test_time_limit": 4,
    "test_method": "stdio",
}
FUNCTION = {
    "question": "Double it.",
    "test_list": ["assert double(1) == 2"],
    "test_time_limit": 1,
    "test_method": "function",
    "prefix": "Here",
}
MBPP = {
    "task_id": 601,
    "text": "Write a function to double a number.",
    "code": "def double(x):\r\n    return 2 * x\n",
    "test_list": ["assert double(1) == 2", "assert double(2) == 4"],
    "test_setup_code": "import math",
}
THOUGHT = (
    "<|begin_of_thought|>\n\nHm.\n\n<|end_of_thought|>\n\n<|begin_of_solution|>\n\nIt is \\boxed{4}.\n\n"
)
MATH_REQUEST = "Return your final response within \\boxed{}. "
CODE_REQUEST = "Generate an executable Python function generated from the given prompt. "


def conversation(question, response, names=("user", "assistant")):
    texts = zip(names, (question, response), strict=True)
    return {"system": "Think.", "conversations": [{"from": name, "value": text} for name, text in texts]}


def stored_tests(problem):
    """Inputs and outputs, or the fields of FunctionTests, that the answer of a code problem holds."""
    fields = json.loads(problem.answer)
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def write(path, *rows):
    """Rows in the layout that the name's ending stands for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(list(rows)), encoding="utf-8")
    else:
        path.write_text(lines(*rows), encoding="utf-8")


def read(tmp_path, name, *rows, file="train.jsonl"):
    write(tmp_path / file, *rows)
    return read_source(name, str(tmp_path))


# --- layouts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "file", "row"),
    [
        ("gsm8k_train", "gsm8k/train.jsonl", GSM8K),
        ("gsm8k_train", "main/train-00000-of-00001.parquet", GSM8K),
        ("math_train", "train/MATH_train.json", {"question": "One?", "ground_truth_answer": "1", "level": 3}),
        ("math_train", "math_train/train.jsonl", MATH | {"answer": "1/2"}),
        ("math_train", "algebra/train-00000-of-00001.parquet", MATH),
        ("primeintellect", "train/PrimeIntellect.json", STDIO),
        ("mbpp_train", "full/train-00000-of-00001.parquet", MBPP),
        ("mbpp_train", "mbpp/mbpp.jsonl", MBPP),
        ("bespoke_stratos", "data/train-00000-of-00001.parquet", conversation("Why?", "So.")),
        ("stratos_easy", "data/train-00000-of-00001.parquet", {"question": "Why?", "qwen7b_answer": "So."}),
    ],
)
def test_every_published_layout_gives_a_problem(tmp_path, name, file, row):
    source = read(tmp_path, name, row, file=file)
    (problem,) = source.problems
    assert problem.id == f"{name}/0"
    assert problem.task in ("math", "function", "stdio")
    assert (source.num_read, source.num_files, source.revision) == (1, 1, None)


def test_a_solution_of_gsm8k_ends_in_a_box_and_has_no_calculator_marks(tmp_path):
    (problem,) = read(tmp_path, "gsm8k_train", GSM8K).problems
    assert problem.answer == "1004"
    assert problem.solution == "2+2 = 4 apples\nThe answer is \\boxed{1004}."


def test_the_answer_of_math_is_the_last_box_unless_it_is_given(tmp_path):
    rows = [MATH, MATH | {"answer": "0.5"}, {"problem": "Two?", "solution": "Two."}]
    source = read(tmp_path, "math_train", *rows)
    assert [problem.answer for problem in source.problems] == ["\\frac{1}{2}", "0.5"]
    assert source.dropped == {DroppedProblem.NO_ANSWER: 1}
    assert source.problems[0].solution == MATH["solution"]


def test_the_folders_of_math_are_read_in_the_order_of_their_numbers(tmp_path):
    for number in (1, 2, 10):
        path = tmp_path / f"train/algebra/{number}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(MATH | {"problem": f"Number {number}?"}, indent=4))
    source = read_source("math_train", str(tmp_path))
    assert [problem.question for problem in source.problems] == ["Number 1?", "Number 2?", "Number 10?"]
    assert [problem.id for problem in source.problems] == [f"math_train/{index}" for index in range(3)]
    assert source.num_files == 3


def test_the_answer_of_a_code_problem_holds_its_tests(tmp_path):
    unusable = [STDIO | {"test_output": ["3\n"]}, STDIO | {"test_input": [], "test_output": []}]
    source = read(tmp_path, "primeintellect", STDIO, FUNCTION, *unusable, file="PrimeIntellect.json")
    stdio, function = source.problems
    assert (stdio.task, function.task) == ("stdio", "function")
    assert stored_tests(stdio) == {
        "inputs": ("1 2\n", "3 4\n"),
        "outputs": ("3\n", "7\n"),
        "time_limit_s": 4,
    }
    assert FunctionTests(**stored_tests(function)).time_limit_s == 1
    assert source.dropped == {DroppedProblem.NO_TESTS: 2}


def test_of_mbpp_only_the_train_split_is_taken_and_asked_as_the_benchmark_asks(tmp_path):
    rows = [MBPP | {"task_id": number} for number in (10, 11, 510, 511, 600, 601, 974)]
    source = read(tmp_path, "mbpp_train", *rows, file="mbpp.jsonl")
    assert [problem.id for problem in source.problems] == ["mbpp_train/5", "mbpp_train/6"]
    assert source.dropped == {DroppedProblem.OTHER_SPLIT: 5}
    problem = source.problems[0]
    assert problem.question.endswith("number.\nYour code should pass the test:\nassert double(1) == 2\n")
    assert problem.solution == "```python\ndef double(x):\n    return 2 * x\n```"
    assert FunctionTests(**stored_tests(problem)).setup == "import math"


@pytest.mark.parametrize(
    ("question", "response", "task", "asked"),
    [
        (MATH_REQUEST + "Two and two?", THOUGHT + "<|end_of_solution|>", "math", "Two and two?"),
        (CODE_REQUEST + "The function should take stdin as input.", "It is \\boxed{4}.", "stdio", None),
        (CODE_REQUEST + "Return the function body.", "It is \\boxed{4}.", "function", None),
        ("Does stdin matter?", "It is \\boxed{4}.", "math", None),
    ],
)
def test_a_stratos_row_keeps_the_solution_and_tells_code_from_math(tmp_path, question, response, task, asked):
    (problem,) = read(tmp_path, "bespoke_stratos", conversation(question, response)).problems
    assert (problem.task, problem.solution) == (task, "It is \\boxed{4}.")
    assert problem.question == (asked or question)


def test_a_solution_that_is_cut_off_or_missing_is_dropped(tmp_path):
    rows = [conversation("Why?", THOUGHT), {"question": "Who?", "qwen7b_answer": None}]
    source = read(tmp_path, "bespoke_stratos", *rows)
    assert source.dropped == {DroppedProblem.NO_SOLUTION: 2}
    assert source.num_read == 2


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "good", "bad", "field"),
    [
        ("gsm8k_train", GSM8K, {"question": "", "answer": "#### 1"}, "question"),
        ("gsm8k_train", GSM8K, {"question": "a", "answer": ["1"]}, "answer"),
        ("math_train", MATH, {"problem": "a"}, "ground_truth_answer, answer"),
        ("math_train", MATH, MATH | {"solution": 5.5, "answer": True}, "answer"),
        ("primeintellect", STDIO, STDIO | {"test_method": "files"}, "test_method"),
        ("primeintellect", STDIO, STDIO | {"test_time_limit": 0}, "test_time_limit"),
        ("primeintellect", STDIO, STDIO | {"test_input": "1 2"}, "test_input"),
        ("primeintellect", STDIO, {"question": "a", "test_method": "function"}, "test_list"),
        ("mbpp_train", MBPP, MBPP | {"task_id": "601"}, "task_id"),
        (
            "bespoke_stratos",
            conversation("a", "b"),
            conversation("a", "b", ("user", "tool")),
            "conversations",
        ),
        (
            "stratos_hard",
            {"question": "a", "qwen7b_answer": "b"},
            {"question": "a", "qwen7b_answer": 1},
            "qwen",
        ),
    ],
)
def test_the_error_of_a_row_names_file_row_and_field(tmp_path, name, good, bad, field):
    file = next(pattern for pattern in SOURCES[name].patterns if pattern.endswith((".json", ".jsonl")))
    with pytest.raises(InputError) as error:
        read(tmp_path, name, good, good, bad, file=file)
    assert f"row 3 of {tmp_path / file}" in str(error.value)
    assert field in str(error.value)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("svamp", None, "source='svamp': not known.*math_train.*jsonl"),
        ("math_train", None, "math_train needs its data.*folder, or hub"),
        ("math_train", "missing", "no such file or folder"),
        ("math_train", ".", r"holds no file with the problems of math_train.*MATH_train\.json"),
        ("missing.jsonl", None, "no such file"),
    ],
)
def test_missing_data_is_named(tmp_path, name, data, message):
    with pytest.raises(InputError, match=message):
        read_source(name, None if data is None else str(tmp_path / data))


def test_broken_json_names_the_line(tmp_path):
    (tmp_path / "train.jsonl").write_text(lines(GSM8K, GSM8K) + "{broken\n")
    with pytest.raises(InputError, match=r"train\.jsonl.*cannot be read \(line 3"):
        read_source("gsm8k_train", str(tmp_path))


def test_a_prompt_file_is_not_taken_for_published_data(tmp_path):
    write_prompt_file(tmp_path / "train.jsonl", [Problem(id="a", question="Why?", answer="1", task="math")])
    with pytest.raises(InputError, match="a file of prompts, not math_train"):
        read_source("math_train", str(tmp_path))


def test_the_hash_of_many_files_is_that_of_their_sha256sum(tmp_path):
    for name in ("b", "a"):
        write(tmp_path / f"{name}/train-00000-of-00001.parquet", MATH)
    one = read_source("math_train", str(tmp_path / "a/train-00000-of-00001.parquet"))
    both = read_source("math_train", str(tmp_path))
    text = "".join(f"{one.sha256}  {name}/train-00000-of-00001.parquet\n" for name in ("a", "b"))
    assert both.sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_the_hubs_commit_is_recorded(tmp_path, monkeypatch):
    folder = tmp_path / "snapshots" / "abc"
    write(folder / "main/train-00000-of-00001.parquet", GSM8K)
    monkeypatch.setattr(registry, "download", {SOURCES["gsm8k_train"].hub: folder}.get)
    assert read_source("gsm8k_train", "hub").revision == "abc"


def test_what_the_hub_gives_is_what_a_source_reads():
    for source in SOURCES.values():
        assert set(source.hub.patterns) <= set(source.patterns)
