"""HumanEval and MBPP from local files in the layouts in which they are published."""

import gzip
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from t3d.errors import InputError
from t3d.problems.problem import Problem
from t3d.problems.prompt_styles import PromptStyle, answer_prefix
from t3d.sandbox import sandbox
from t3d.sandbox.sandbox import Limits
from t3d.tasks.benchmarks import code_rule, load_benchmark, style_options
from t3d.tasks.humaneval import HumanEvalTask, helpers
from t3d.tasks.mbpp import MbppTask
from t3d.tasks.task import Task

DATA = Path(os.environ.get("T3D_DATA", ""))
STUB = 'import math\n\n\ndef half(x):\n    """Half of x, rounded down."""\n'
HUMANEVAL_ROWS = [
    {
        "task_id": "HumanEval/0",
        "prompt": STUB,
        "entry_point": "half",
        "canonical_solution": "    return math.floor(x / 2)\n",
        "test": "\n\nMETADATA = {}\n\n\ndef check(candidate):\n    assert candidate(5) == 2\n",
    }
]


def mbpp_row(number, **fields):
    return {
        "task_id": number,
        "text": "Write a function to double a number.",
        "code": "def double(x):\n    return 2 * x",
        "test_list": ["assert double(1) == 2", "assert double(2) == 4", "assert double(0) == 0"],
        "test_setup_code": "",
        "challenge_test_list": ["assert double(9) == 0"],
    } | fields


MBPP_ROWS = [mbpp_row(number) for number in (1, 11, 12, 511, 601)]
SANITIZED_ROWS = [
    {
        "source_file": "notebook",
        "task_id": number,
        "prompt": "Write a function to halve.",
        "code": "def half(x):\n    return x / 2",
        "test_imports": ["import math"],
        "test_list": ["assert math.isclose(half(1), 0.5)", "assert half(4) == 2"],
    }
    for number in (2, 12, 600)
]


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_bytes(gzip.compress(lines(rows)) if path.suffix == ".gz" else lines(rows))


@pytest.fixture
def humaneval(tmp_path):
    write(tmp_path / "HumanEval.jsonl.gz", HUMANEVAL_ROWS)
    return HumanEvalTask(tmp_path, limits=Limits(time_limit_s=5.0))


@pytest.fixture
def mbpp(tmp_path):
    write(tmp_path / "mbpp.jsonl", MBPP_ROWS)
    return MbppTask(tmp_path, limits=Limits(time_limit_s=5.0))


def needs_sandbox():
    if sys.platform != "linux":
        pytest.skip("needs Linux")
    try:
        sandbox.choose_isolation()
    except InputError as error:
        pytest.skip(error.problem)


@pytest.mark.parametrize(
    "name",
    [
        "HumanEval.jsonl.gz",
        "HumanEval.jsonl",
        "humaneval/HumanEval.jsonl.gz",
        "openai_humaneval/test-00000-of-00001.parquet",
        "test-00000-of-00001.parquet",
    ],
)
def test_every_layout_of_humaneval_is_read(tmp_path, name):
    write(tmp_path / name, HUMANEVAL_ROWS)
    task = load_benchmark("humaneval", tmp_path)
    assert isinstance(task, HumanEvalTask) and isinstance(task, Task)
    assert task.problems("test", None, 0) == [Problem(id="HumanEval/0", question=STUB, task="humaneval")]
    content = (tmp_path / name).read_bytes()
    assert task.data["test"] == {
        "file": Path(name).name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "num_rows": 1,
    }


@pytest.mark.parametrize("name", ["mbpp.jsonl", "mbpp.jsonl.gz", "mbpp/mbpp.jsonl", "full"])
def test_every_layout_of_mbpp_is_read(tmp_path, name):
    if name == "full":
        splits = {"prompt": [1], "test": [11, 12], "validation": [511], "train": [601]}
        for split, numbers in splits.items():
            write(tmp_path / f"full/{split}-00000-of-00001.parquet", [mbpp_row(number) for number in numbers])
    else:
        write(tmp_path / name, MBPP_ROWS)
    task = load_benchmark("mbpp", tmp_path)
    found = {split: [p.id for p in task.problems(split, None, 0)] for split in task.splits}
    assert found == {
        "prompt": ["mbpp/1"],
        "test": ["mbpp/11", "mbpp/12"],
        "validation": ["mbpp/511"],
        "train": ["mbpp/601"],
    }
    assert [p.id for p in task.problems("test", 1, 5)] == ["mbpp/11"]


@pytest.mark.parametrize("name", ["sanitized-mbpp.json", "mbpp/sanitized-mbpp.jsonl"])
def test_every_layout_of_sanitized_mbpp_is_read(tmp_path, name):
    write(tmp_path / name, SANITIZED_ROWS)
    write((tmp_path / name).with_name("mbpp.jsonl"), MBPP_ROWS)
    task = MbppTask(tmp_path, protocol="sanitized")
    (problem,) = task.problems("test", None, 0)
    assert problem.id == "mbpp/12" and task.entry(problem).tests.setup == "import math"


def test_protocols_differ_in_what_the_question_shows(tmp_path):
    write(tmp_path / "mbpp.jsonl", MBPP_ROWS)
    first, second, third = MBPP_ROWS[0]["test_list"]
    text = MBPP_ROWS[0]["text"]
    one, every = (MbppTask(tmp_path, protocol=name) for name in ("t3d", "all_tests"))
    assert one.problems("test", 1, 0)[0].question == f"{text}\nYour code should pass the test:\n{first}\n"
    question = every.problems("test", 1, 0)[0].question
    assert question == f"{text}\nYour code should pass these tests:\n\n{first}\n{second}\n{third}"
    assert (one.name, every.name) == ("mbpp", "mbpp-all_tests")
    assert one.settings()["protocol"] == "t3d"


@pytest.mark.parametrize(
    ("rows", "field"),
    [
        ([mbpp_row(0)], "task_id"),
        ([mbpp_row("11")], "task_id"),
        ([mbpp_row(11, test_list=[])], "test_list"),
        ([mbpp_row(11, test_list=None)], "test_list"),
        ([mbpp_row(11, code="")], "code"),
        ([mbpp_row(11), mbpp_row(11)], "task_id"),
        ([{"task_id": 11, "test_list": ["x"]}], "text"),
    ],
)
def test_damaged_rows_are_named(tmp_path, rows, field):
    write(tmp_path / "mbpp.jsonl", rows)
    with pytest.raises(InputError, match=field):
        MbppTask(tmp_path).problems("test", None, 0)


def test_wrong_requests_are_named(humaneval, tmp_path):
    with pytest.raises(InputError, match="split"):
        humaneval.problems("train", None, 0)
    with pytest.raises(InputError, match="HumanEval/7"):
        humaneval.check(Problem(id="HumanEval/7", question=""))
    with pytest.raises(InputError, match="folder"):
        HumanEvalTask().problems("test", None, 0)
    with pytest.raises(InputError, match="problems of humaneval"):
        HumanEvalTask(tmp_path / "nowhere").problems("test", None, 0)


def test_problems_are_not_accepted_where_programs_cannot_be_isolated(humaneval, monkeypatch):
    (problem,) = humaneval.problems("test", None, 0)
    monkeypatch.setattr(sandbox, "isolation_problem", lambda isolation: "not here")
    with pytest.raises(InputError, match="not here"):
        humaneval.check(problem)


TWO_BLOCKS = [
    "```python\ndef half(x):\n    return x // 2\n```\nor\n```python\ndef half(x):\n    return x\n```",
    "```python\ndef half(x):\n    return x\n```\nNo:\n```python\ndef half(x):\n    return x // 2\n```",
]
RESPONSES = [
    ("Here:\n```python\nimport math\ndef half(x):\n    return math.floor(x / 2)\n```", True, "passed"),
    ("```python\ndef half(x):\n    return math.floor(x / 2)\n```", True, "passed"),  # leaves out the import
    (
        "```python\nfrom __future__ import (\n    annotations,\n)\ndef half(x: y):\n    return x // 2\n```",
        True,
        "passed",
    ),
    (
        "```python\n'\u2028\u00e9'; from __future__ import annotations; two = 2\n"
        "def half(x: y):\n    return x // two\n```",
        True,
        "passed",
    ),
    ("    return x // 2\n```\nThat is all.", True, "passed"),  # goes on where the prefix ends
    (TWO_BLOCKS[0], True, "passed"),
    (TWO_BLOCKS[1], False, "wrong"),
    ("```python\ndef other(x):\n    return x // 2\n```", False, "wrong"),
    ("```python\nhalf = 3\n```", False, "error: TypeError"),
    ("```python\nimport sys; sys.exit()\n```", False, "exit"),
    ("def half(x):\n    return x // 2", True, "passed"),
    ("```\ndef half(x):\n    return x // 2", True, "passed"),
    ("```\n    return x // 2\n```", True, "passed"),  # the body alone
    ("I cannot halve.", False, "no code"),
    ("```python\n```", False, "no code"),
    ("", False, "no code"),
]


@pytest.mark.parametrize(("response", "correct", "reason"), RESPONSES)
def test_responses_are_graded_by_their_program(humaneval, response, correct, reason):
    needs_sandbox()
    (problem,) = humaneval.problems("test", None, 0)
    humaneval.check(problem)
    assert humaneval.grade(problem, response) == correct
    verdict = humaneval.assess(problem, response)
    assert (verdict.correct, verdict.reason) == (correct, reason)
    assert verdict.grader in ("bubblewrap", "landlock")


@pytest.mark.parametrize(
    ("response", "correct", "reason"),
    [
        (TWO_BLOCKS[0], False, "wrong"),
        (TWO_BLOCKS[1], True, "passed"),
        ("    return x // 2\n```\nThat is all.", True, "passed"),
        ("```\ndef half(x):\n    return x // 2\n```", False, "no code"),  # the question alone is not run
        ("def half(x):\n    return x // 2", False, "no code"),
    ],
)
def test_prompts_of_the_released_code_keep_its_rule(tmp_path, response, correct, reason):
    needs_sandbox()
    write(tmp_path / "HumanEval.jsonl", HUMANEVAL_ROWS)
    task = load_benchmark("humaneval", tmp_path, **style_options("humaneval", "released"))
    (problem,) = task.problems("test", None, 0)
    verdict = task.assess(problem, response)
    assert (verdict.correct, verdict.reason) == (correct, reason)
    assert task.settings()["grader"]["code_rule"] == "dllm_rl"


def test_the_rule_belongs_to_the_style_of_the_prompts():
    rules = {style: code_rule(style) for style in get_args(PromptStyle)}
    assert rules == {
        "sdar": "opencompass",
        "plain": "opencompass",
        "released": "dllm_rl",
        "paper": "dllm_rl",
    }
    assert style_options("mbpp", "paper") == {"code_rule": "dllm_rl"}
    assert style_options("gsm8k", "paper") == style_options("code", "plain") == {}


def test_setup_code_sees_the_program(tmp_path):
    needs_sandbox()
    row = mbpp_row(
        11, code="class Node:\n    pass", test_setup_code="root = Node()", test_list=["assert root"]
    )
    write(tmp_path / "mbpp.jsonl", [row])
    task = MbppTask(tmp_path)
    (problem,) = task.problems("test", None, 0)
    assert task.grade(problem, f"```python\n{row['code']}\n```")
    assert task.assess(problem, "```python\nNode = 1\n```").reason == "error: TypeError"


def test_mbpps_tests_take_from_a_program_only_what_is_asked_for(tmp_path):
    """Their modules are their own, and of Python's names only that of the function (596 and 126)."""
    needs_sandbox()
    size = mbpp_row(
        11,
        code="import sys\ndef size(x): return sys.getsizeof(x)",
        test_list=["assert size(()) == sys.getsizeof(())"],
    )
    total = mbpp_row(12, code="def sum(a, b): return 6", test_list=["assert sum(10, 15) == max(6, 5)"])
    write(tmp_path / "mbpp.jsonl", [size, total])
    task = MbppTask(tmp_path)
    first, second = (task.entry(problem).tests for problem in task.problems("test", None, 0))
    assert (first.setup, first.program_names) == ("import sys", ())
    assert (second.setup, second.program_names) == ("", ("sum",))
    for identity, source, correct in (
        ("mbpp/11", size["code"], True),
        ("mbpp/11", "class sys: getsizeof = lambda x: 1\nsize = sys.getsizeof", False),
        ("mbpp/12", total["code"], True),
        ("mbpp/12", "def sum(a, b): return 7\ndef max(a, b): return 7", False),
    ):
        assert task.grade(task.all_problems[identity].problem, f"```python\n{source}\n```") == correct


def test_humanevals_tests_use_the_helpers_of_the_prompt(tmp_path):
    needs_sandbox()
    row = {
        **HUMANEVAL_ROWS[0],
        "prompt": "import math\n\ndef twice(x):\n    return 2 * x\n\ndef half(x):\n    '''Half of it.'''\n",
        "test": "def check(candidate):\n    assert twice(candidate(4)) == 4 and math.pi > 3\n",
    }
    write(tmp_path / "HumanEval.jsonl", [row])
    task = HumanEvalTask(tmp_path)
    (problem,) = task.problems("test", None, 0)
    assert helpers(row["prompt"], "half") == "import math\n\ndef twice(x):\n    return 2 * x"
    assert task.grade(problem, "```python\ndef half(x):\n    return twice(x) / 4\n```")
    forged = "```python\ndef half(x):\n    return 0\ndef twice(x):\n    return 4\ncheck = print\n```"
    assert task.assess(problem, forged).reason == "wrong"


def test_settings_name_all_that_a_verdict_depends_on(mbpp):
    needs_sandbox()
    settings = json.loads(json.dumps(mbpp.settings()))
    assert settings["grader"]["limits"]["time_limit_s"] == 5.0
    assert settings["grader"]["code_rule"] == "opencompass"
    assert settings["grader"]["isolation"] in ("bubblewrap", "landlock")
    assert settings["data"]["all"]["sha256"] == hashlib.sha256(lines(MBPP_ROWS)).hexdigest()


# ---- the real files ----

needs_data = pytest.mark.skipif(
    not (DATA / "humaneval").is_dir() or not (DATA / "mbpp").is_dir(),
    reason="set T3D_DATA to the folder of the data sets",
)


@needs_data
def test_the_real_files_have_their_known_numbers():
    humaneval, mbpp = HumanEvalTask(DATA), MbppTask(DATA)
    sanitized = MbppTask(DATA, protocol="sanitized")
    assert len(humaneval.problems("test", None, 0)) == 164
    sizes = {"prompt": 10, "test": 500, "validation": 90, "train": 374}
    assert {split: len(mbpp.problems(split, None, 0)) for split in mbpp.splits} == sizes
    assert len(sanitized.all_problems) == 427 and len(sanitized.problems("test", None, 0)) == 257
    assert humaneval.data["test"]["sha256"].startswith("b796127e635a67f9")
    assert mbpp.data["all"]["sha256"].startswith("ccf64ceae9c5403b")


@needs_data
def test_the_released_layout_says_the_same():
    """Questions, prefixes and tests of T3D's own files, from an independent copy."""

    def released(name):
        return [json.loads(line) for line in (DATA / name).read_text().splitlines()]

    humaneval, mbpp = HumanEvalTask(DATA), MbppTask(DATA)
    entries = list(humaneval.all_problems.values())
    for entry, row in zip(entries, released("humaneval/genverse_HumanEval.jsonl"), strict=True):
        question = f"You need to complete this code:\n{entry.problem.question}\n"
        assert (question, answer_prefix(entry.problem.question, humaneval.kind)) == (
            row["question"],
            row["prefix"],
        )
        name = entry.tests.tests[0].removeprefix("check(").removesuffix(")")
        setup = entry.tests.setup.removeprefix(helpers(entry.problem.question, name))
        assert row["test_list"][0].split() == f"{setup}\n{entry.tests.tests[0]}".split()
    tested = [entry for entry in mbpp.all_problems.values() if entry.split == "test"]
    ours = {(entry.problem.question, answer_prefix("", mbpp.kind), entry.tests.tests) for entry in tested}
    theirs = {
        (row["question"], row["prefix"], tuple(row["test_list"]))
        for row in released("mbpp/genverse_MBPP.jsonl")
    }
    # Their copy lost a few words of one question.
    assert [tests[0][:22] for _, _, tests in ours - theirs] == ["assert string_to_list("]
    assert len(ours) == len(theirs) == 500
