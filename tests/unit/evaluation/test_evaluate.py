"""Evaluations: refusals, files that hold every task under every setting, and the same without files."""

import dataclasses
import json

import pytest
from task_helpers import EvenTask

from t3d.decoding.params import DecodeParams
from t3d.decoding.settings import decoding_settings
from t3d.errors import InputError
from t3d.evaluation import answering as module
from t3d.evaluation.evaluate import EvalConfig, evaluate
from t3d.evaluation.samples import read_graded
from t3d.models.loading import load_model
from t3d.tasks.task import PosedTask
from t3d.work import kept
from t3d.work.kept import KeptLines

SHARED = DecodeParams(max_new_tokens=4, temperature=1.0)
SETTINGS = decoding_settings(block_sizes=(4,), tokens_per_step=(2, 4), dynamic=(0.9,), shared=SHARED)


@pytest.fixture(scope="module")
def loaded(checkpoint):
    return load_model(checkpoint, device="cpu", dtype="float64")


def posed(name="a", limit=3, **fields):
    task = EvenTask(name)
    return PosedTask(task=task, problems=task.problems("", limit, 0), **fields)


def run(loaded, folder, tasks, settings=SETTINGS, **config):
    return evaluate(loaded, tasks, settings, folder, EvalConfig(**config), report={"seed": 7})


def samples(folder):
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_files_hold_every_task_under_every_setting(loaded, tmp_path):
    tasks = [posed("a"), posed("b", 2, style="sdar")]
    entries = run(loaded, tmp_path, tasks, samples_per_prompt=2, latency_samples=1)
    report = json.loads((tmp_path / "results.json").read_text())
    assert report["results"] == json.loads(json.dumps(entries))
    assert report["config"] == {"seed": 7} and len(report["config_hash"]) == 64
    assert "torch" in report["versions"] and report["model"] == loaded.identity()
    cells = [(entry["task"], entry["setting"]) for entry in entries]
    assert cells == [(name, label) for name in "ab" for label in ("B4-T2", "B4-T4", "B4-dynamic")]
    rows = samples(tmp_path)
    assert [(row["task"], row["setting"]) for row in rows] == [
        cell for cell in cells for _ in range(6 if cell[0] == "a" else 4)
    ]
    for entry in entries:
        mine = [row for row in rows if (row["task"], row["setting"]) == (entry["task"], entry["setting"])]
        assert entry["n"] == len(mine) and entry["num_prompts"] == len(mine) / 2
        assert entry["accuracy"] == pytest.approx(100 * sum(row["correct"] for row in mine) / len(mine))
        assert entry["mean_length"] == pytest.approx(sum(row["num_tokens"] for row in mine) / len(mine))
        steps = sum(row["num_denoising_steps"] for row in mine) / len(mine)
        assert entry["mean_denoising_steps"] == pytest.approx(steps)
        assert entry["decode_params"] == SETTINGS[entry["setting"]].record()
        assert entry["batch1_latency"]["n"] == 1
    assert entries[-1]["prompt"] == {"style": "sdar", "kind": "math"}
    assert list(rows[0])[:6] == ["setting", "task", "id", "question", "answer", "response"]
    assert names(tmp_path) == ["results.json", "samples.jsonl"]


def test_an_evaluation_in_memory_has_the_entries_of_one_in_a_folder(loaded, tmp_path):
    wall_clock = ("seconds", "tokens_per_second", "latency", "batch1_latency")
    found = [
        [{name: value for name, value in entry.items() if name not in wall_clock} for entry in entries]
        for entries in (run(loaded, folder, [posed("a"), posed("b", 2)]) for folder in (None, tmp_path))
    ]
    assert found[0] == found[1]


def test_a_cut_evaluation_ends_like_one_that_was_not(loaded, tmp_path, monkeypatch):
    tasks = [posed("a", 2), posed("b", 1)]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run(loaded, whole, tasks)
    real, calls = KeptLines.append, []

    def append(self, row):
        calls.append(row)
        if len(calls) in (3, 9, 10, 15):
            raise KeyboardInterrupt
        real(self, row)

    monkeypatch.setattr(KeptLines, "append", append)
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            run(loaded, cut, tasks)
        assert names(cut) == ["unfinished"]
    run(loaded, cut, tasks)
    assert len(calls) == 3 * (4 + 2) + 4  # each response and verdict once
    assert (cut / "samples.jsonl").read_bytes() == (whole / "samples.jsonl").read_bytes()
    assert names(cut) == names(whole)


def test_a_finished_evaluation_is_read_and_not_made_again(loaded, tmp_path, monkeypatch, caplog):
    entries = run(loaded, tmp_path, [posed()])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(module, "answer", None)
    assert run(loaded, tmp_path, [posed()]) == json.loads(json.dumps(entries))
    assert "results.json was finished before by the same command" in caplog.text
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("content", ["{", "[]", '{"results": []}'])
def test_results_that_tell_no_plan_are_not_written_over(loaded, tmp_path, content):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(InputError, match=r"results\.json': exists, and nothing tells"):
        run(loaded, tmp_path, [posed()])
    assert (tmp_path / "results.json").read_text() == content


def damage(folder, name, value):
    """Change a field of the first result, whose checksum is that of before."""
    path = folder / "results.json"
    report = json.loads(path.read_text())
    report["results"][0][name] = value
    path.write_text(json.dumps(report))
    return path, report


@pytest.mark.parametrize(("name", "value"), [("accuracy", 99.0), ("n", None), ("num_correct", float("nan"))])
def test_results_that_changed_are_named_here_and_in_a_comparison(loaded, tmp_path, name, value):
    run(loaded, tmp_path, [posed()])
    damage(tmp_path, name, value)
    for again in (lambda: run(loaded, tmp_path, [posed()]), lambda: read_graded(tmp_path)):
        with pytest.raises(InputError, match=r"results\.json': damaged .its checksum.*delete it"):
            again()


def test_samples_that_are_not_those_of_the_results_are_named(loaded, tmp_path):
    run(loaded, tmp_path, [posed()])
    path = tmp_path / "samples.jsonl"
    path.write_text(path.read_text().replace('"correct": true', '"correct": false'))
    for again in (lambda: run(loaded, tmp_path, [posed()]), lambda: read_graded(tmp_path)):
        with pytest.raises(InputError, match=r"samples\.jsonl': not the file that results\.json sums up"):
            again()


def test_results_of_an_earlier_version_are_taken_unless_a_field_cannot_be(loaded, tmp_path):
    entries = run(loaded, tmp_path, [posed()])
    path, report = damage(tmp_path, "accuracy", entries[0]["accuracy"])
    del report["checksum"], report["lines_sha256"]
    path.write_text(json.dumps(report))
    assert run(loaded, tmp_path, [posed()]) == json.loads(json.dumps(entries))
    for name, value in [("n", 0), ("n", "3"), ("num_correct", 4), ("accuracy", float("nan"))]:
        path.write_text(json.dumps(report))
        damage(tmp_path, name, value)
        with pytest.raises(InputError, match=rf"damaged \(results\[0\]: {name} is"):
            run(loaded, tmp_path, [posed()])
    path.write_text(json.dumps(report | {"results": []}))
    with pytest.raises(InputError, match="an empty one"):
        run(loaded, tmp_path, [posed()])


def test_what_a_kill_left_beside_finished_results_is_removed(loaded, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(kept, "discard", lambda folder: None)
        run(loaded, tmp_path, [posed()])
    assert "unfinished" in names(tmp_path)
    run(loaded, tmp_path, [posed()])
    assert names(tmp_path) == ["results.json", "samples.jsonl"]


@pytest.mark.parametrize("is_finished", [False, True])
def test_an_output_of_another_evaluation_is_refused(loaded, tmp_path, monkeypatch, is_finished):
    monkeypatch.setattr(kept, "discard", lambda folder: None)
    run(loaded, tmp_path, [posed()])
    if not is_finished:
        (tmp_path / "results.json").unlink()
    other = {label: dataclasses.replace(params, seed=1) for label, params in SETTINGS.items()}
    for changes, difference in [
        ({"tasks": [posed(limit=2)]}, r"tasks\.a\.problems\.count was 3, now 2"),
        ({"tasks": [posed(style="sdar")]}, r"tasks\.a\.prompt\.style was plain, now sdar"),
        ({"tasks": [posed("b")]}, r"tasks\.a was given, now not given"),
        ({"settings": other}, r"settings\.B4-T2\.seed was 0, now 1"),
        ({"samples_per_prompt": 2}, r"samples_per_prompt was 1, now 2"),
        ({"chunk_size": 5}, r"chunk_size was 512, now 5"),
    ]:
        with pytest.raises(InputError, match=difference):
            run(loaded, tmp_path, **({"tasks": [posed()]} | changes))


def test_what_cannot_be_evaluated_is_named_before_anything_is_written(loaded, tmp_path):
    twice = dataclasses.replace(posed(), problems=[*posed().problems, posed().problems[0]])
    for tasks, message in [
        ([twice], "id='a/0': used by two problems"),
        ([posed(), posed()], "tasks='a': given twice"),
        ([posed(limit=0)], "limit=0: no problem of 'a'"),
        ([posed(style="sdar", kind="stdio")], "prompt_style='sdar'"),
    ]:
        with pytest.raises(InputError, match=message):
            run(loaded, tmp_path / "out", tasks)
    long = {"B4-T1": DecodeParams(max_new_tokens=500)}
    with pytest.raises(InputError, match="max_new_tokens=500"):
        run(loaded, tmp_path / "out", [posed()], long)
    assert not (tmp_path / "out").exists()
