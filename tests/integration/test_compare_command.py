"""``t3d compare``: reads what ``t3d eval`` and ``t3d grade`` write, prints and writes the comparison."""

import json
import re

import pytest
import yaml
from command_helpers import run_failing

from t3d.cli.main import main

COSTS = {"num_tokens": 8, "num_forwards": 4, "finish_reason": "stop"}


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def samples(folder, verdicts, steps=4, settings=("B4-T2", "B4-T4"), tasks=("gsm8k", "math500")):
    """A folder as of ``t3d eval``; one character per problem, 1 is right."""
    rows = [
        {
            "setting": setting,
            "task": task,
            "id": f"{task}/test/{index}",
            "question": f"Question {index}?",
            "answer": "7",
            "response": f"[red]Therefore\x1b[31m {'so ' * 90}\\boxed{{{7 if char == '1' else 8}}}",
            "correct": char == "1",
            "num_denoising_steps": steps,
            **COSTS,
        }
        for setting in settings
        for task in tasks
        for index, char in enumerate(verdicts)
    ]
    folder.mkdir()
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder)


def test_two_evaluations_are_compared_on_the_terminal_and_in_files(tmp_path, capsys):
    a, b = samples(tmp_path / "a", "1111111100"), samples(tmp_path / "b", "1000000010", steps=2)
    output = tmp_path / "new" / "out.json"
    assert main(["compare", a, b, "--output", str(output), "--list-changes", "2"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.split("4 tests")[0].splitlines()[2:])) <= 80
    assert "-60.0 [-85.9, -4.9]" in text and "mean of 2" in text and "p (Holm)" in text and "x0.50" in text
    assert text.count("only A is right") == 8 and "\x1b" not in text
    assert text.count("[red]Therefore\\x1b[31m so so") == text.count("\\boxed{7}\n") * 2
    assert "4 tests" in text
    summary = json.loads(output.read_text())
    assert summary["evaluations"] == {"A": a, "B": b} and "t3d" in summary["versions"]
    cell = summary["cells"][0]
    assert (cell["task"], cell["setting_a"], cell["difference"]) == ("gsm8k", "B4-T2", -60.0)
    assert (cell["both_right"], cell["only_a"], cell["only_b"], cell["both_wrong"]) == (1, 7, 1, 1)
    assert cell["p_value"] == pytest.approx(2 * 9 / 2**8)
    assert cell["p_holm"] == pytest.approx(4 * cell["p_value"])
    report = tmp_path / "out.md"
    flags = ["--setting-a", "B4-T2", "--setting-b", "B4-T4,B4-T2", "--list-changes", "1"]
    assert main(["compare", a, b, *flags, "--output", str(report)]) == 0
    lines = report.read_text().splitlines()
    assert "| gsm8k | B4-T2/B4-T4 | 10 | 80.0 | 20.0 |" in report.read_text()
    assert f"A: `{a}`, B: `{b}`" in lines and "gsm8k/test/1: only A is right" in lines


def test_an_evaluation_is_compared_with_itself_at_other_settings(tmp_path, capsys):
    a = samples(tmp_path / "a", "110")
    file = f"{a}/samples.jsonl"
    assert main(["compare", a, file, "--setting-a", "B4-T2", "--setting-b", "B4-T4"]) == 0
    assert "+0.0 [-56.1, +56.1]    1.0000" in capsys.readouterr().out


def test_what_t3d_eval_writes_is_read(checkpoint, prompts, tmp_path, capsys):
    arguments = ["eval", "--model", str(checkpoint), "--prompts", str(prompts), "--device", "cpu"]
    arguments += ["--max-new-tokens", "8", "--block-size", "4", "--tokens-per-step", "1,4", "--limit", "3"]
    assert main([*arguments, "--samples-per-prompt", "2", "--output", str(tmp_path / "e")]) == 0
    output = tmp_path / "out.json"
    flags = ["--setting-a", "B4-T1", "--setting-b", "B4-T4", "--output", str(output)]
    assert main(["compare", str(tmp_path / "e"), str(tmp_path / "e"), *flags]) == 0
    (cell,) = json.loads(output.read_text())["cells"]
    assert (cell["task"], cell["n"], cell["num_prompts"]) == ("prompts", 6, 3)
    assert cell["cost_ratio"]["denoising_steps"] < 0.6 and cell["data_compared"]
    results = json.loads((tmp_path / "e" / "results.json").read_text())["results"]
    for side, entry in zip(("speed_a", "speed_b"), results, strict=True):
        assert cell[side] == {name: entry[name] for name in ("tokens_per_forward", "tokens_per_second")}
    printed = capsys.readouterr().out
    assert "go by prompts" in printed
    assert all(f"{name} {side}" in printed for name in ("TPF", "tok/s") for side in "AB")


def test_three_evaluations_and_a_config_file(tmp_path, capsys):
    folders = [samples(tmp_path / name, "10", tasks=("gsm8k",)) for name in "abc"]
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"all_pairs": True}))
    assert main(["compare", *folders, "--config", str(config)]) == 0
    text = capsys.readouterr().out
    assert [text.count(title) for title in ("B - A", "C - A", "C - B", "only C")] == [1, 1, 1, 2]
    assert main(["compare", *folders]) == 0
    assert "C - B" not in capsys.readouterr().out


def test_a_file_of_t3d_grade_is_compared_with_the_evaluation_that_it_grades(tmp_path, capsys):
    rows = [
        {"id": f"p{index}", "answer": "18", "response": f"\\boxed{{{16 + index}}}", "correct": index == 0}
        for index in range(4)
    ]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    graded = tmp_path / "graded.jsonl"
    grade = ["grade", "--task", "gsm8k", "--samples", f"{tmp_path}/samples.jsonl", "--output", str(graded)]
    assert main([*grade, "--num-workers", "1"]) == 0
    capsys.readouterr()
    output = tmp_path / "out.json"
    assert main(["compare", str(tmp_path), str(graded), "--output", str(output)]) == 0
    (cell,) = json.loads(output.read_text())["cells"]
    assert (cell["task"], cell["lost_ids"], cell["gained_ids"]) == ("gsm8k", ["p0"], ["p2"])
    assert "-/" not in capsys.readouterr().out


OF_A_ROW = ("distinct_answers_per_prompt", "latency", "tokens_per_forward", "tokens_per_second")
OF_A_ROW += ("mean_denoising_steps", "mean_length")


def test_an_evaluation_is_not_written_over(tmp_path, capsys):
    cell, other = tmp_path / "cell.json", samples(tmp_path / "b", "11")
    cell.write_text("{}")
    assert "is a file to read" in run_failing(["compare", str(cell), other, "--output", str(cell)], capsys)
    assert cell.read_text() == "{}"


def test_cells_of_t3d_reproduce_are_compared(tmp_path, capsys):
    evaluation = {"split": "test", "seed": 0, "limit": 10, "samples_per_prompt": 1}
    paths = []
    for name, verdicts in (("a", "1111111100"), ("b", "1000000010")):
        row = {"setting": "B4-T2", "task": "chain", "n": 10, "num_prompts": 10, "verdicts": verdicts}
        row |= {"num_correct": verdicts.count("1"), **dict.fromkeys(OF_A_ROW, 1.0)}
        record = {
            "config_hash": "0",
            "command": "t3d",
            "results": [row],
            "config": {"suite": "mini", "evaluation": evaluation},
        }
        paths.append(tmp_path / f"mini.{name}.seed0.B4-T2.0123456789abcdef.json")
        paths[-1].write_text(json.dumps(record))
    assert main(["compare", *map(str, paths), "--list-changes", "1"]) == 0
    text = capsys.readouterr().out
    assert "-60.0 [-85.9, -4.9]" in text and "chain/test/seed0/limit10/1: only A is right" in text
    record["config"]["evaluation"]["seed"] = 1
    paths[1].write_text(json.dumps(record))
    assert "seed is 1, but 0 in" in run_failing(["compare", *map(str, paths)], capsys)


def test_what_cannot_be_compared_is_named(tmp_path, capsys):
    a, b = samples(tmp_path / "a", "110"), samples(tmp_path / "b", "11")
    error = run_failing(["compare", a, b], capsys)
    assert "1 ids are only in" in error and "(gsm8k/test/2)" in error and "common_only" in error
    assert main(["compare", a, b, "--common-only"]) == 0
    assert "2 common ids compared; 1 only in A and 0 only in B" in capsys.readouterr().out
    assert "no samples.jsonl" in run_failing(["compare", a, str(tmp_path)], capsys)
    assert "no none" in run_failing(["compare", a, str(tmp_path / "none")], capsys)
    assert "not two to 26" in run_failing(["compare", a], capsys)
    assert "neither .json nor .md" in run_failing(["compare", a, b, "--output", "out.txt"], capsys)
    for name in (f"{a}/results.json", "graded.jsonl.summary.json"):
        assert "is called so" in run_failing(["compare", a, b, "--output", name], capsys)
    assert main(["compare", a, b, "--common-only", "--output", str(tmp_path / "ab-results.json")]) == 0
    assert "setting_b=" in run_failing(["compare", a, b, "--setting-a", "B4-T2"], capsys)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "holds no answer"),
        ("{", "line 1 of .* not JSON"),
        ('{"correct": true}', 'has no "id"'),
        ('{"id": "a"}', "grade the file with t3d grade"),
        ('{"id": "a", "correct": 1}', "grade the file with t3d grade"),
        ('{"id": "a", "correct": true, "num_tokens": -1}', "num_tokens=.*not a count"),
        (
            '{"id": "a", "correct": true}\n{"id": "a", "correct": true}',
            "line 2 of .* used before.*a#0 and a#1",
        ),
        (b"\xff", "not UTF-8"),
    ],
)
def test_a_bad_file_is_named(tmp_path, capsys, content, problem):
    file = tmp_path / "graded.jsonl"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    error = run_failing(["compare", str(file), str(file)], capsys)
    assert re.search(problem, error)
