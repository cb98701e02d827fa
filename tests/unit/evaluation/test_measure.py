"""A measurement: whatever is cut, its numbers are those of one piece, and finished work is kept."""

import json

import pytest
from task_helpers import EvenTask, ReasonTask

from t3d.decoding.llm import LLM
from t3d.decoding.params import DecodeParams
from t3d.evaluation.evaluate import EvalConfig, evaluate, evaluation_requests
from t3d.evaluation.measure import grade_lines, measure
from t3d.models.loading import load_model
from t3d.problems.problem import Problem
from t3d.tasks.task import PosedTask, verdict_of
from t3d.work.kept import KeptLines

PARAMS = DecodeParams(max_new_tokens=4, temperature=1.0)
PROBLEMS = [Problem(id=str(index), question=f"how many {index}") for index in range(5)]
WALL_CLOCK = ("seconds", "tokens_per_second", "latency", "batch1_latency")


@pytest.fixture(scope="module")
def loaded(checkpoint):
    return load_model(checkpoint, device="cpu", dtype="float64")


@pytest.fixture(scope="module")
def whole(loaded):
    return run(loaded, None)


def decoder(loaded, batch_size=256):
    llm = LLM(loaded, max_batch_size=batch_size)
    return lambda requests, on_finish: llm.decode(requests, PARAMS, on_finish=on_finish)


def run(loaded, path, *, chunk_size=None, num_alone=0, batch_size=256):
    task = EvenTask()
    asked = evaluation_requests(loaded, PosedTask(task=task, problems=PROBLEMS), 2)
    lines = KeptLines(path, fresh="response")
    return measure(
        task, asked, PARAMS, decoder(loaded, batch_size), lines, chunk_size=chunk_size, num_alone=num_alone
    )


def numbers(result):
    return {name: value for name, value in result.summary().items() if name not in WALL_CLOCK}


def lines(path):
    return [json.loads(line.rpartition("\t")[0]) for line in path.read_text().splitlines()]


def cut_after(monkeypatch, count):
    """Raise instead of writing line ``count``."""
    real, written = KeptLines.append, []

    def append(self, row):
        if len(written) == count:
            raise KeyboardInterrupt
        written.append(row)
        real(self, row)

    monkeypatch.setattr(KeptLines, "append", append)


@pytest.mark.parametrize("chunk_size", [1, 4])
def test_chunks_add_up_to_the_evaluation_in_one_piece(loaded, whole, tmp_path, chunk_size):
    result = run(loaded, tmp_path / "c.jsonl", chunk_size=chunk_size)
    assert result.samples == whole.samples
    assert numbers(result) == numbers(whole)
    decoded = [row["seconds"] for row in lines(tmp_path / "c.jsonl") if "seconds" in row]
    assert result.cost["seconds"] == pytest.approx(sum(decoded))


@pytest.mark.parametrize("count", [0, 7, 13, 21])
def test_a_cut_measurement_repeats_nothing_that_was_finished(loaded, whole, tmp_path, monkeypatch, count):
    """Ten responses, ten verdicts and three responses decoded alone: cut before each kind of line."""
    path = tmp_path / "c.jsonl"
    with monkeypatch.context() as patch:
        cut_after(patch, count)
        with pytest.raises(KeyboardInterrupt):
            run(loaded, path, num_alone=3, batch_size=3)
    kept = lines(path) if count else []
    assert len(kept) == count
    found = run(loaded, path, num_alone=3, batch_size=3)
    assert lines(path)[:count] == kept and len(lines(path)) == 23
    assert found.samples == whole.samples
    assert numbers(found) == numbers(whole)
    assert found.summary()["batch1_latency"]["n"] == 3


def test_below_float32_a_cut_chunk_is_decoded_again_as_a_whole(checkpoint, tmp_path, monkeypatch):
    loaded = load_model(checkpoint, device="cpu", dtype="bfloat16")
    uncut = run(loaded, tmp_path / "whole.jsonl", chunk_size=4)
    path = tmp_path / "c.jsonl"
    with monkeypatch.context() as patch:
        cut_after(patch, 6)
        with pytest.raises(KeyboardInterrupt):
            run(loaded, path, chunk_size=4)
    assert run(loaded, path, chunk_size=4).samples == uncut.samples
    decoded = [row["id"] for row in lines(path) if "response" in row]
    assert len(decoded) == 12 and len(set(decoded[:4])) == 4  # chunks of four: two of the second again
    assert set(decoded[4:6]) < set(decoded[6:10])
    seconds = {row["id"]: row["seconds"] for row in lines(path) if "response" in row}
    assert run(loaded, path, chunk_size=4).cost["seconds"] == pytest.approx(sum(seconds.values()))


def test_a_finished_measurement_is_only_read(loaded, tmp_path, monkeypatch):
    first = run(loaded, tmp_path / "c.jsonl", num_alone=2)
    monkeypatch.setattr("t3d.tasks.task.verdict_of", None)
    cut_after(monkeypatch, 0)
    again = run(loaded, tmp_path / "c.jsonl", num_alone=2)
    assert again == first


def test_latency_alone_is_that_of_the_first_problems(loaded, tmp_path):
    found = run(loaded, tmp_path / "c.jsonl", num_alone=3)
    rows = [row for row in lines(tmp_path / "c.jsonl") if "batch1_seconds" in row]
    assert [row["id"] for row in rows] == ["0#0", "1#0", "2#0"]
    seconds = sorted(row["batch1_seconds"] for row in rows)
    latency = found.summary()["batch1_latency"]
    assert latency["median"] == seconds[1] and latency["mean"] == pytest.approx(sum(seconds) / 3)


def test_verdicts_are_in_the_order_of_the_responses():
    lines = KeptLines(fresh="response")
    for index in range(20):
        lines.append({"id": str(index), "response": "a" * index})
    grade_lines(ReasonTask(), [(Problem(id=str(i), question="?"), str(i)) for i in range(20)], lines)
    assert [row["correct"] for row in lines.rows.values()] == [i % 2 == 0 and i != 3 for i in range(20)]


def test_a_task_without_reasons_says_passed_or_failed():
    assert verdict_of(EvenTask(), Problem(id="1", question="?"), "a").reason == "failed"


def test_reasons_late_and_unread_answers_and_other_rules_are_counted(loaded):
    task, problems = ReasonTask(), EvenTask("length").problems("", 8, 0)
    params = DecodeParams(max_new_tokens=6, temperature=1.0)
    (found,) = evaluate(loaded, [PosedTask(task=task, problems=problems)], {"x": params})
    (plain,) = evaluate(loaded, [PosedTask(task=EvenTask(), problems=problems)], {"x": params})
    assert found["num_timeouts"] == found["reasons"]["time limit"] == 1
    assert found["num_unparsed"] == found["reasons"].get("unparsed", 0)
    assert found["reasons"].get("equal", 0) == found["num_correct"]
    assert found["flexible-extract"] == 87.5
    differ = [a != b for a, b in zip(found["verdicts"], plain["verdicts"], strict=True)]
    assert not any(differ[:3] + differ[4:]), "the same responses; the fourth answer is late"


def test_accuracy_is_the_share_of_right_samples_and_interval_holds_it(loaded):
    task = EvenTask("length")
    asked = evaluation_requests(loaded, PosedTask(task=task, problems=task.problems("", 12, 0)))
    found = measure(task, asked, PARAMS, decoder(loaded), KeptLines(fresh="response"))
    summary = found.summary()
    assert found.num_correct == sum(len(row["response"]) % 2 == 0 for row in found.samples)
    assert summary["verdicts"] == "".join("01"[row["correct"]] for row in found.samples)
    assert summary["accuracy"] == pytest.approx(100 * found.num_correct / 12)
    assert summary["ci95"][0] <= summary["accuracy"] <= summary["ci95"][1]
    assert [row["id"] for row in found.samples] == [f"length/{index}" for index in range(12)]
    assert summary["latency"] == summary["seconds"] / 12
    assert sum(summary["finish_reasons"].values()) == 12


def test_samples_of_one_prompt_differ_when_sampled_and_agree_when_greedy(loaded):
    task = EvenTask()
    posed = PosedTask(task=task, problems=task.problems("", 3, 0))
    config = EvalConfig(samples_per_prompt=4)
    settings = {str(t): DecodeParams(max_new_tokens=6, temperature=t) for t in (0.0, 1.0)}
    greedy, sampled = evaluate(loaded, [posed], settings, config=config)
    assert greedy["n"] == sampled["n"] == 12
    assert greedy["distinct_answers_per_prompt"] == 1.0
    assert 1.0 < sampled["distinct_answers_per_prompt"] <= 4.0
