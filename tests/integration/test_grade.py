"""``t3d grade``: saved outputs are scored without a model, and a killed run continues."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from command_helpers import run_failing

from t3d.cli.main import main
from t3d.tasks.benchmarks import load_benchmark
from t3d.tasks.math_task import MathTask
from t3d.work.kept import KeptLines

DATA = Path(os.environ.get("T3D_DATA", ""))
ENDLESS = "\\boxed{9^{9^{9^{9}}}}"
ROWS = [
    {"id": "a", "reference": "so\n#### 1,080", "output": "It is \\boxed{1080}."},
    {"id": "b", "reference": "18", "output": "So\n#### 18"},
    {"id": "c", "reference": "18", "output": "\\boxed{19} or 18", "note": "kept"},
    {"id": "d", "reference": "18", "output": "\\boxed{\\frac{} \ud800}"},
    {"id": "e", "reference": "18", "output": ENDLESS},
    {"id": 7, "reference": "18", "output": "\\boxed{\\$18.00}\u2028"},
]
STUB = 'def f(x):\n    """The same."""\n'


def write(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return path


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def grade(samples, output, *flags, task="gsm8k"):
    arguments = ["grade", "--task", task, "--samples", str(samples), "--output", str(output)]
    return [*arguments, "--time-limit-s", "1", "--num-workers", "1", *flags]


def grade_texts(*arguments, **options):
    """The same where any grader will do: that of equal texts starts no process."""
    return grade(*arguments, "--grader", "exact", **options)


def test_every_line_gets_its_verdict_and_the_summary_counts_them(tmp_path, capsys):
    output = tmp_path / "graded" / "out.jsonl"
    assert main(grade(write(tmp_path / "in.jsonl", ROWS), output)) == 0
    rows = read(output)
    assert [{key: row[key] for key in old} for row, old in zip(rows, ROWS, strict=True)] == ROWS
    found = [(row["correct"], row["extracted"], row["reason"], row["flexible-extract"]) for row in rows]
    assert found == [
        (True, "1080", "equal", True),
        (False, None, "no answer", True),
        (False, "19", "different", True),
        (False, "\\frac{} \ud800", "unparsed", False),
        (False, ENDLESS[7:-1], "time limit", False),
        (True, "\\$18.00", "equal", False),
    ]
    assert {row["grader"] for row in rows} == {"math_verify"}
    summary = json.loads(output.with_name("out.jsonl.summary.json").read_text())
    assert summary["accuracy"] == pytest.approx(100 * 2 / 6) and summary["n"] == 6
    assert summary["reasons"] == {"equal": 2, "no answer": 1, "different": 1, "unparsed": 1, "time limit": 1}
    assert summary["grader"]["name"] == "math_verify" and "math-verify" in summary["grader"]["versions"]
    assert summary["strict-match"] == pytest.approx(100 / 6)
    line = capsys.readouterr().out
    assert line.startswith(
        "gsm8k: 33.3 % [9.7, 70.0], n=6; strict-match 16.7 %; flexible-extract 50.0 %; equal 2"
    )
    assert "time limit 1" in line
    names = sorted(path.name for path in output.parent.iterdir())
    assert names == ["out.jsonl", "out.jsonl.summary.json", "out.jsonl.yaml"]
    again = tmp_path / "again.jsonl"
    assert main(["grade", "--config", f"{output}.yaml", "--output", str(again)]) == 0
    assert again.read_bytes() == output.read_bytes()
    assert yaml.safe_load(output.with_name("out.jsonl.yaml").read_text())["grader"] == "math_verify"


def test_the_samples_of_an_evaluation_are_graded_as_they_are(tmp_path):
    rows = [
        {
            "id": f"p{index % 2}#{index // 2}",
            "answer": "2",
            "response": f"\\boxed{{{index}}}",
            "correct": True,
        }
        for index in range(4)
    ]
    output = tmp_path / "out.jsonl"
    assert (
        main(grade(write(tmp_path / "samples.jsonl", rows), output, "--grader", "legacy", task="math500"))
        == 0
    )
    assert [row["correct"] for row in read(output)] == [False, False, True, False]
    summary = json.loads(output.with_name("out.jsonl.summary.json").read_text())
    assert (summary["n"], summary["num_prompts"], summary["grader"]["name"]) == (4, 2, "legacy")


def test_ids_are_looked_up_in_the_data(tmp_path, capsys):
    write(tmp_path / "test.jsonl", [{"question": "Two and two?", "answer": "#### 4"}])
    ids = ("gsm8k/test/0", "gsm8k/test/0#1", 0)
    rows = [{"id": identity, "output": f"\\boxed{{{4 + index}}}"} for index, identity in enumerate(ids)]
    samples, output = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    assert main(grade_texts(samples, output, "--data", str(tmp_path))) == 0
    assert [row["correct"] for row in read(output)] == [True, False, False]
    summary = json.loads(output.with_name("out.jsonl.summary.json").read_text())
    assert summary["num_prompts"] == 1 and len(summary["data"]["test"]["sha256"]) == 64
    write(samples, [{"id": "gsm8k/test/9", "output": ""}])
    error = run_failing(grade_texts(samples, output, "--data", str(tmp_path)), capsys)
    assert "id='gsm8k/test/9'" in error and "such as gsm8k/test/0" in error
    assert "needs its data" in run_failing(grade_texts(samples, output), capsys)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "holds no output"),
        ("{", "line 1 of .* not JSON"),
        ('{"output": "a"}', 'line 1 of .*has no "id"'),
        ('{"id": "a", "output": 5}', "line 1 of .*has no text as"),
        ('{"id": "a", "reference": " ", "output": "b"}', "no gold answer"),
        (b"\xff", "not UTF-8"),
    ],
)
def test_a_bad_file_of_samples_is_named(tmp_path, capsys, content, problem):
    samples = tmp_path / "in.jsonl"
    samples.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert re.search(problem, run_failing(grade(samples, tmp_path / "out.jsonl"), capsys))
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_an_earlier_verdict_does_not_stay(tmp_path):
    stale = {"correct": True, "reason": "equal", "strict-match": True, "grader": "another"}
    rows = [
        {"id": "a", "reference": "1", "output": "2"},
        {"id": "b", "reference": "1", "output": "\\boxed{1}"},
    ]
    output = tmp_path / "out.jsonl"
    assert main(grade(write(tmp_path / "in.jsonl", [rows[0] | stale, rows[1]]), output, task="math500")) == 0
    first, second = read(output)
    assert (first["correct"], first["reason"], second["correct"]) == (False, "no answer", True)
    assert "strict-match" not in first and first["grader"] == second["grader"] == "math_verify"


def test_lines_of_other_tasks_are_left_out_and_lines_of_none_are_not(tmp_path, capsys):
    rows = [{"id": str(index), "reference": "1", "output": "\\boxed{1}"} for index in range(3)]
    rows[1]["task"], rows[2]["task"] = "gsm8k", "math500"
    samples, output = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    assert main(grade_texts(samples, output)) == 0
    assert [row["id"] for row in read(output)] == ["0", "1"]
    write(samples, rows[2:])
    error = run_failing(grade_texts(samples, tmp_path / "other.jsonl"), capsys)
    assert "task='gsm8k'" in error and "is of math500" in error


def test_what_must_not_be_written_over_is_refused(tmp_path, capsys, monkeypatch):
    samples, output = write(tmp_path / "in.jsonl", ROWS[:2]), tmp_path / "out.jsonl"
    assert main(grade(samples, output)) == 0
    content = output.read_bytes()
    error = run_failing(grade(samples, output, "--grader", "legacy"), capsys)
    assert "grader.name was math_verify, now legacy" in error
    monkeypatch.setattr(MathTask, "assess", None)
    assert main(grade(samples, output)) == 0, "finished before, and read"
    for flags in (["--protocol", "sanitized"], ["--unsafe-no-sandbox"], ["--time-limit-s", "nan"]):
        assert flags[0][2:].replace("-", "_") in run_failing(grade(samples, tmp_path / "x", *flags), capsys)
    (tmp_path / "mine.jsonl").write_text("{}")
    assert "nothing in it tells" in run_failing(grade(samples, tmp_path / "mine.jsonl"), capsys)
    assert output.read_bytes() == content and (tmp_path / "mine.jsonl").read_text() == "{}"
    assert "is a file to read" in run_failing(grade(samples, samples), capsys)
    assert "no such file" in run_failing(grade(tmp_path / "none", tmp_path / "out"), capsys)


def test_a_summary_or_lines_that_changed_are_named(tmp_path, capsys):
    samples, output = write(tmp_path / "in.jsonl", ROWS[:2]), tmp_path / "out.jsonl"
    assert main(grade_texts(samples, output)) == 0
    summary = tmp_path / "out.jsonl.summary.json"
    whole, report = summary.read_text(), json.loads(summary.read_text())
    compare = ["compare", str(output), str(output)]

    def error_of(content, command):
        summary.write_text(json.dumps(content))
        return run_failing(command, capsys)

    for changed in ({"accuracy": 1.0}, {"ci95": None}, {"n": "x"}):
        for command in (grade_texts(samples, output), compare):
            assert "damaged (its checksum does not fit)" in error_of(report | changed, command)
    older = {name: value for name, value in report.items() if name not in ("checksum", "lines_sha256")}
    for changed, fault in (({"ci95": [1]}, "no interval"), ({"n": None}, "n is None"), ({"task": 5}, "")):
        assert fault in error_of(older | changed, grade_texts(samples, output))
    summary.write_text(json.dumps(older))
    assert main(grade_texts(samples, output)) == 0, "of an earlier version"
    summary.write_text(whole)
    output.write_text(output.read_text() + "\n")
    for command in (grade_texts(samples, output), compare):
        assert "not the file that out.jsonl.summary.json sums up" in run_failing(command, capsys)


def test_a_cut_run_keeps_its_finished_verdicts_and_continues(tmp_path, monkeypatch, capsys):
    samples, output = write(tmp_path / "in.jsonl", ROWS), tmp_path / "out.jsonl"
    real, graded = MathTask.assess, []

    def cut(self, problem, response):
        if problem.id == "c":
            raise KeyboardInterrupt
        return real(self, problem, response)

    def counted(self, problem, response):
        graded.append(problem.id)
        return real(self, problem, response)

    monkeypatch.setattr(MathTask, "assess", cut)
    assert main(grade(samples, output)) == 130
    kept = (tmp_path / "out.jsonl.unfinished" / "verdicts.jsonl").read_text()
    assert kept.count('"correct"') == 2, "those before it"
    assert not output.exists()
    monkeypatch.setattr(MathTask, "assess", counted)
    error = run_failing(grade(samples, output, "--grader", "legacy"), capsys)
    assert "grader.name was math_verify, now legacy" in error
    assert main(grade(samples, output)) == 0
    assert sorted(graded) == sorted(["c", "d", "e", "7"])
    whole = tmp_path / "whole.jsonl"
    assert main(grade(samples, whole)) == 0
    assert output.read_bytes() == whole.read_bytes()
    assert not (tmp_path / "out.jsonl.unfinished").exists()


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kills a process")
def test_a_killed_run_continues(tmp_path):
    rows = [{"id": str(index), "reference": "3", "output": f"\\boxed{{{index}}}"} for index in range(4)]
    rows += [{"id": f"late-{index}", "reference": "3", "output": ENDLESS} for index in range(6)]
    samples, output = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    arguments = grade(samples, output, "--num-workers", "2")
    process = subprocess.Popen([sys.executable, "-m", "t3d", *arguments], stderr=subprocess.DEVNULL)
    kept, deadline = tmp_path / "out.jsonl.unfinished" / "verdicts.jsonl", time.monotonic() + 120
    while not kept.is_file() or kept.read_text().count('"correct"') < 5:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    lines = KeptLines(kept, fresh="response")
    lines.append({"id": "0", "reason": "from before the kill"})
    assert main(arguments) == 0
    reasons = [row["reason"] for row in read(output)]
    assert reasons == ["from before the kill", "different", "different", "equal"] + ["time limit"] * 6


CODE = {
    "humaneval": ("HumanEval/0", "HumanEval/1"),
    "mbpp": ("mbpp/11", "12"),
}


@pytest.mark.skipif(not (DATA / "mbpp").is_dir(), reason="set T3D_DATA to the folder of the data sets")
@pytest.mark.parametrize("task", CODE)
def test_code_is_run(tmp_path, task):
    """The reference program of the first problem, and one that ends before its tests for the second."""
    programs = load_benchmark(task, DATA).all_problems
    first, second = CODE[task]
    rows = [
        {"id": first, "output": f"```python\n{programs[first].reference}\n```"},
        {"id": second, "output": "```python\nraise SystemExit\n```"},
        {"id": second, "output": "no code"},
    ]
    output = tmp_path / "out.jsonl"
    arguments = grade(write(tmp_path / "in.jsonl", rows), output, "--data", str(DATA), task=task)
    assert main([*arguments, "--unsafe-no-sandbox", "--time-limit-s", "30"]) == 0
    graded = read(output)
    assert [row["correct"] for row in graded] == [True, False, False]
    assert graded[0]["reason"] == "passed" and graded[2]["reason"] == "no code"
    summary = json.loads(output.with_name("out.jsonl.summary.json").read_text())
    assert (summary["num_prompts"], summary["grader"]["limits"]["time_limit_s"]) == (2, 30.0)


def test_programs_are_looked_for_by_the_rule_of_the_prompts(tmp_path, capsys):
    """The first fenced block of any language, or the last Python block."""
    row = {"task_id": "HumanEval/0", "prompt": STUB, "test": "def check(f):\n    assert f(3) == 3\n"}
    write(tmp_path / "HumanEval.jsonl", [row | {"entry_point": "f", "canonical_solution": "    return x\n"}])
    right, wrong = (f"```{{}}\ndef f(x):\n    return x{end}\n```\n" for end in ("", " + 1"))
    outputs = [right.format("") + wrong.format("python"), wrong.format("") + right.format("python")]
    samples = write(tmp_path / "in.jsonl", [{"id": "HumanEval/0", "output": output} for output in outputs])
    flags = ["--data", str(tmp_path), "--unsafe-no-sandbox"]
    correct = {}
    for rule in ("opencompass", "dllm_rl"):
        output = tmp_path / f"{rule}.jsonl"
        assert main([*grade(samples, output, *flags, "--code-rule", rule, task="humaneval")]) == 0
        summary = json.loads(output.with_name(f"{rule}.jsonl.summary.json").read_text())
        assert summary["grader"]["code_rule"] == rule
        correct[rule] = [row["correct"] for row in read(output)]
    assert correct == {"opencompass": [True, False], "dllm_rl": [False, True]}
    assert main(grade(samples, tmp_path / "default.jsonl", *flags, task="humaneval")) == 0
    assert [row["correct"] for row in read(tmp_path / "default.jsonl")] == correct["opencompass"]
    message = run_failing(grade(samples, tmp_path / "math.jsonl", "--code-rule", "dllm_rl"), capsys)
    assert "code_rule='dllm_rl': no task of mbpp, humaneval is named, so it is ignored" in message


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "gsm8k").is_dir(), reason="set T3D_DATA to the folder of the data sets")
def test_the_published_solutions_of_gsm8k_are_right(tmp_path):
    """Every solution, with its number in a box behind it: right by all three rules."""
    rows = read(DATA / "gsm8k" / "test.jsonl")
    saved = [
        {
            "id": f"gsm8k/test/{index}",
            "output": f"{row['answer']} \\boxed{{{row['answer'].split('#### ')[1]}}}",
        }
        for index, row in enumerate(rows)
    ]
    output = tmp_path / "out.jsonl"
    assert main(grade(write(tmp_path / "in.jsonl", saved), output, "--data", str(DATA))) == 0
    summary = json.loads(output.with_name("out.jsonl.summary.json").read_text())
    assert summary["reasons"] == {"equal": 1319}
    assert summary["strict-match"] == summary["flexible-extract"] == summary["accuracy"] == 100.0
