"""A cell of an evaluation: whatever is cut, its numbers are those of one piece, and finished work is kept."""

import json

import pytest
from task_helpers import EvenTask

from t3d.decoding.llm import LLM
from t3d.decoding.params import DecodeParams
from t3d.errors import InputError
from t3d.evaluation import cell
from t3d.evaluation.cell import CellFile, evaluate_cell
from t3d.evaluation.evaluate import evaluate, evaluation_requests
from t3d.models.loading import load_model
from t3d.problems.problem import Problem
from t3d.work.progress import Progress

PARAMS = DecodeParams(max_new_tokens=4, temperature=1.0)
PROBLEMS = [Problem(id=str(index), question=f"how many {index}") for index in range(5)]
WALL_CLOCK = ("seconds", "tokens_per_second", "latency")


@pytest.fixture(scope="module")
def loaded(checkpoint):
    return load_model(checkpoint, device="cpu", dtype="float64")


@pytest.fixture(scope="module")
def whole(loaded):
    return evaluate(loaded, EvenTask(), PROBLEMS, PARAMS, samples_per_prompt=2)


def run(loaded, path, *, chunk_size=4, num_alone=0, batch_size=256):
    requests = evaluation_requests(loaded, EvenTask(), PROBLEMS, 2)
    with Progress("test", 1) as progress:
        return evaluate_cell(
            LLM(loaded, max_batch_size=batch_size),
            EvenTask(),
            requests,
            PARAMS,
            path,
            chunk_size=chunk_size,
            num_alone=num_alone,
            progress=progress,
        )


def numbers(result):
    return {name: value for name, value in result.summary().items() if name not in WALL_CLOCK}


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def cut_after(monkeypatch, count):
    """Raise instead of writing line ``count`` of all cells' files."""
    real, written = CellFile.append, []

    def append(self, row):
        if len(written) == count:
            raise KeyboardInterrupt
        written.append(row)
        real(self, row)

    monkeypatch.setattr(CellFile, "append", append)


@pytest.mark.parametrize("chunk_size", [1, 4])
def test_chunks_add_up_to_the_evaluation_in_one_piece(loaded, whole, tmp_path, chunk_size):
    result = run(loaded, tmp_path / "c.jsonl", chunk_size=chunk_size).result
    assert result.samples == whole.samples
    assert numbers(result) == numbers(whole)
    decoded = [row["seconds"] for row in lines(tmp_path / "c.jsonl") if "seconds" in row]
    assert result.cost["seconds"] == pytest.approx(sum(decoded))


@pytest.mark.parametrize("count", [0, 7, 13, 21])
def test_a_cut_cell_repeats_nothing_that_was_finished(loaded, whole, tmp_path, monkeypatch, count):
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
    assert found.result.samples == whole.samples
    assert numbers(found.result) == numbers(whole)
    assert found.batch1_latency()["n"] == 3


def test_below_float32_a_cut_chunk_is_decoded_again_as_a_whole(checkpoint, tmp_path, monkeypatch):
    loaded = load_model(checkpoint, device="cpu", dtype="bfloat16")
    uncut = run(loaded, tmp_path / "whole.jsonl")
    path = tmp_path / "c.jsonl"
    with monkeypatch.context() as patch:
        cut_after(patch, 6)
        with pytest.raises(KeyboardInterrupt):
            run(loaded, path)
    assert run(loaded, path).result.samples == uncut.result.samples
    decoded = [row["id"] for row in lines(path) if "response" in row]
    assert len(decoded) == 12 and len(set(decoded[:4])) == 4  # chunks of four: two of the second again
    assert set(decoded[4:6]) < set(decoded[6:10])
    seconds = {row["id"]: row["seconds"] for row in lines(path) if "response" in row}
    assert run(loaded, path).result.cost["seconds"] == pytest.approx(sum(seconds.values()))


def test_a_finished_cell_is_only_read(loaded, tmp_path, monkeypatch):
    first = run(loaded, tmp_path / "c.jsonl", num_alone=2)
    monkeypatch.setattr(cell, "grade_responses", lambda task, responses: iter(responses))
    cut_after(monkeypatch, 0)
    again = run(loaded, tmp_path / "c.jsonl", num_alone=2)
    assert again == first


def test_latency_alone_is_that_of_the_first_problems(loaded, tmp_path):
    found = run(loaded, tmp_path / "c.jsonl", num_alone=3)
    rows = [row for row in lines(tmp_path / "c.jsonl") if "batch1_seconds" in row]
    assert [row["id"] for row in rows] == ["0#0", "1#0", "2#0"]
    seconds = sorted(row["batch1_seconds"] for row in rows)
    latency = found.batch1_latency()
    assert latency["median"] == seconds[1] and latency["mean"] == pytest.approx(sum(seconds) / 3)


@pytest.mark.parametrize("torn", ['{"id": "0#0", "respo', '{"id": "0#0", "correct": true}'])
def test_a_line_without_its_end_is_dropped(loaded, whole, tmp_path, torn):
    path = tmp_path / "c.jsonl"
    run(loaded, path)
    kept = path.read_text().splitlines(keepends=True)[:7]
    path.write_text("".join(kept) + torn)
    assert run(loaded, path).result.samples == whole.samples
    assert path.read_text().splitlines(keepends=True)[:7] == kept
    assert len(lines(path)) == 20


@pytest.mark.parametrize("line", ["{", "5", "null", '{"a": 1}', '{"id": "never decoded", "correct": true}'])
def test_a_damaged_line_is_named(tmp_path, line):
    path = tmp_path / "c.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(InputError, match=r"c\.jsonl': line 1 is damaged .* delete the file"):
        CellFile(path)
