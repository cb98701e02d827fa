"""benchmarks/real_text.py: what it compares with what, what it keeps, what it refuses; and its tables."""

import importlib
import json
import math
import sys
from pathlib import Path

import pytest
from adopt_helpers import CHAT, plain_tokenizer, save_source

from t3d.errors import InputError
from t3d.models.convert import ConvertConfig, convert

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    tokenizer = plain_tokenizer([*CHAT, "<reponame>", "<|pad|>"])
    for name, scale in (("source", 0.3), ("other", 0.4)):
        save_source(folder / name, "llama", tokenizer, initializer_range=scale)
    convert(str(folder / "source"), folder / "teacher", ConvertConfig())
    convert(str(folder / "other"), folder / "student", ConvertConfig())
    return folder


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    yield importlib.import_module("real_text")
    for name in ("real_text", "real_text_table", "real_text_scores"):
        sys.modules.pop(name, None)


def arguments(benchmark, models, tmp_path, *further, answer="2"):
    prompts = tmp_path / "prompts.jsonl"
    rows = [{"id": f"p{n}", "question": f"{n}+1?"} | ({"answer": answer} if answer else {}) for n in (1, 2)]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["--teacher", str(models / "teacher"), "--judge", str(models / "source"), "--device", "cpu"]
    words += ["--prompts", str(prompts), "--json", str(tmp_path / "out.json"), "--max-new-tokens", "8"]
    return benchmark.arguments_of([*words, *further])


def test_rows_are_kept_and_students_added_and_compared_with_full_steps(
    benchmark, models, tmp_path, monkeypatch
):
    benchmark.run(arguments(benchmark, models, tmp_path))
    (first, *others) = before = json.loads((tmp_path / "out.json").read_text())["rows"]
    labels = ["B4-T1", "B4-T2", "B4-T4", "B4-dynamic", "B4-left-to-right", "B4-self-speculative"]
    assert [row["setting"] for row in before] == labels
    assert first["measures"]["exact"][0] == 1 and first["measures"]["edit_distance"][0] == 0
    assert others[-1]["tokens_per_forward"] >= others[-2]["tokens_per_forward"]
    assert all("right" in row["measures"] for row in before)
    measured = []
    measure = benchmark.measure
    monkeypatch.setattr(
        benchmark, "measure", lambda loaded, *rest: measured.append(loaded.source) or measure(loaded, *rest)
    )
    student = str(models / "student")
    benchmark.run(arguments(benchmark, models, tmp_path, "--student", f"ours={student}"))
    after = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert measured == [student] * len(labels)
    assert after[: len(before)] == before
    ids = [response["ids"] for response in first["responses"]]
    same = sum(one["ids"] == other for one, other in zip(after[6]["responses"], ids, strict=True))
    assert after[6]["measures"]["exact"][0] == same / 2


def test_results_of_other_arguments_are_refused_by_name(benchmark, models, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "settings_of", lambda *_: {})
    args = arguments(benchmark, models, tmp_path)
    benchmark.Results(args.json, {"limit": 2}).keep({"model": "a", "setting": "b", "weights": "c"})
    with pytest.raises(InputError, match="limit was 2, now 200"):
        benchmark.run(args)


def test_the_tables_have_a_line_for_every_row_and_samples_beside_each_other(benchmark, models, tmp_path):
    benchmark.run(arguments(benchmark, models, tmp_path, answer=None))
    record = json.loads((tmp_path / "out.json").read_text())
    assert "right" not in record["rows"][0]["measures"]
    record["rows"][0]["responses"][0]["text"] = "one|\ntwo"
    page = importlib.import_module("real_text_table").page(record, 1)
    assert page.count("| teacher | B4-T2 |") == 3
    assert "## Answers to p1" in page and "## Answers to p2" not in page
    assert "| B4-T1 | one\\|<br>two |" in page
    assert "## Accuracy under parallelism" in page and "answers right, few steps" not in page
    assert "## Students beside the teacher" not in page


def kept_row(model, setting, rate, texts, **measures):
    shares = {name: (value, value, value) for name, value in measures.items()}
    responses = [{"id": f"p{number}", "ids": ids} for number, ids in enumerate(texts)]
    fields = {"tokens_per_forward": rate, "measures": shares, "responses": responses}
    return {"model": model, "setting": setting} | fields


def test_aup_is_of_the_few_step_settings_and_of_all_and_only_of_whole_curves(benchmark):
    scores = importlib.import_module("real_text_scores")
    rows = [
        kept_row("teacher", "B4-T1", 1.0, [], agreement=1.0),
        kept_row("teacher", "B4-T4", 4.0, [], agreement=0.5),
        kept_row("teacher", "B4-self-speculative", 2.0, [], agreement=0.98),
        kept_row("ours", "B4-T1", 1.0, [], agreement=0.9),
        kept_row("ours", "B4-T4", 4.0, [], agreement=0.88),
        kept_row("ours", "B4-self-speculative", 2.0, [], agreement=0.7),
        kept_row("cut", "B4-T1", 1.0, [], agreement=0.9),
    ]
    lines = scores.aup_table(rows).splitlines()
    few = 90 + 1.5 * (90 * math.exp(-0.3) + 88 * math.exp(-0.36))
    assert lines[0] == "| model | agreement, few steps | agreement, all settings |"
    assert lines[2:] == [
        f"| teacher | 100.0 | {100 + 0.5 * (100 + 98 * math.exp(-0.06)):.1f} |",
        f"| ours | {few:.1f} | {few:.1f} |",
    ]


def test_goals_are_ratios_at_four_tokens_per_step_and_differences_at_full_steps(benchmark):
    scores = importlib.import_module("real_text_scores")
    target, half, tenth = [1, 2, 3, 4], [1, 2, 9, 8], [1, 7, 7, 7]
    rows = [
        kept_row("teacher", "B4-T1", 1.0, [target, target]),
        kept_row("teacher", "B4-T4", 4.0, [tenth, tenth]),
        kept_row("ours", "B4-T1", 1.0, [target, [1, 2, 2, 4]]),
        kept_row("ours", "B4-T4", 4.0, [half, half]),
    ]
    assert scores.goals_table(rows[:2], 4) is None and scores.goals_table(rows[:3], 4) is None
    (line,) = scores.goals_table(rows, 4).splitlines()[2:]
    cells = [cell.split(" (")[0].strip() for cell in line.strip("|").split("|")]
    assert cells == ["ours", "2.00", "0.00", "16.7", "0.0", "0.0"]
    rows[1] = kept_row("teacher", "B4-T4", 4.0, [target, target])
    assert "| the teacher has none |" in scores.goals_table(rows, 4)
