"""benchmarks/real_text.py: what it compares with what, what it keeps, what it refuses; and its tables."""

import importlib
import json
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
    for name in ("real_text", "real_text_table"):
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
