"""Evaluation in chunks: the numbers of one piece, whatever was cut."""

import json

import pytest

from t3d.data.prompts import Problem
from t3d.decoding.params import DecodeParams
from t3d.errors import InputError
from t3d.evaluation import chunks
from t3d.evaluation.chunks import evaluate_to_folder
from t3d.evaluation.evaluate import evaluate
from t3d.models.loading import load_model

PARAMS = DecodeParams(max_new_tokens=6, temperature=1.0)
PROBLEMS = [Problem(id=str(index), question=f"how many {index}") for index in range(5)]
WALL_CLOCK = ("seconds", "tokens_per_second")


class LengthTask:
    """Right if the response has an even number of characters."""

    name = "length"

    def problems(self, split, limit, seed):
        return PROBLEMS

    def check(self, problem):
        assert problem.question

    def grade(self, problem, response):
        return len(response) % 2 == 0


@pytest.fixture(scope="module")
def loaded(checkpoint):
    return load_model(checkpoint, device="cpu", dtype="float64")


def run(loaded, folder, problems=PROBLEMS, params=PARAMS, **sizes):
    sizes = {"chunk_size": 4, "samples_per_prompt": 2} | sizes
    return evaluate_to_folder(loaded, LengthTask(), problems, params, folder, config={"a": 1}, **sizes)


def numbers(result):
    return {name: value for name, value in result.summary().items() if name not in WALL_CLOCK}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("chunk_size", [1, 3, 4, 10, 100])
def test_chunks_add_up_to_the_evaluation_in_one_piece(loaded, tmp_path, chunk_size):
    whole = evaluate(loaded, LengthTask(), PROBLEMS, PARAMS, samples_per_prompt=2)
    result = run(loaded, tmp_path, chunk_size=chunk_size)
    assert result.samples == whole.samples
    assert numbers(result) == numbers(whole)
    assert names(tmp_path) == ["results.json", "samples.jsonl"]


@pytest.mark.parametrize("cut_call", [1, 2, 3])
def test_a_cut_evaluation_redoes_no_finished_chunk(loaded, tmp_path, monkeypatch, cut_call):
    whole = run(loaded, tmp_path / "whole")
    real, calls = chunks.decode_and_grade, []

    def counted(*args, **kwargs):
        calls.append(1)
        if len(calls) == cut_call:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(chunks, "decode_and_grade", counted)
    with pytest.raises(KeyboardInterrupt):
        run(loaded, tmp_path / "cut")
    assert names(tmp_path / "cut") == ["chunks"]
    result = run(loaded, tmp_path / "cut")
    assert len(calls) == 4  # three chunks, and the one that was cut
    assert result.samples == whole.samples
    assert numbers(result) == numbers(whole)
    samples = [folder / "samples.jsonl" for folder in (tmp_path / "whole", tmp_path / "cut")]
    assert samples[0].read_bytes() == samples[1].read_bytes()
    assert names(tmp_path / "cut") == names(tmp_path / "whole")


def test_seconds_add_up_over_the_parts(loaded, tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "discard", lambda folder: None)
    first = run(loaded, tmp_path)
    again = run(loaded, tmp_path)  # every chunk is there: nothing is decoded
    assert again.cost == first.cost
    records = [json.loads(path.read_text()) for path in (tmp_path / "chunks").glob("chunk-*")]
    assert first.cost["seconds"] == pytest.approx(sum(record["counts"]["seconds"] for record in records))


def test_chunks_of_another_evaluation_are_refused_and_a_damaged_one_is_named(loaded, tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "discard", lambda folder: None)
    run(loaded, tmp_path)
    for changes, difference in [
        ({"problems": PROBLEMS[1:]}, r"problems\.count was 5, now 4"),
        ({"params": DecodeParams(max_new_tokens=7, temperature=1.0)}, r"decode\.max_new_tokens was 6, now 7"),
        ({"samples_per_prompt": 1}, r"samples_per_prompt was 2, now 1"),
        ({"chunk_size": 5}, r"chunk_size was 4, now 5"),
    ]:
        with pytest.raises(InputError, match=difference):
            run(loaded, tmp_path, **changes)
    damaged = tmp_path / "chunks" / "chunk-00001.json"
    damaged.write_text(damaged.read_text()[:-9])
    with pytest.raises(InputError, match=r"chunk-00001\.json': damaged .* delete it"):
        run(loaded, tmp_path)
    damaged.unlink()
    run(loaded, tmp_path)


def test_ids_used_twice_are_named_before_anything_is_written(loaded, tmp_path):
    with pytest.raises(InputError, match="id='3': used by two problems"):
        run(loaded, tmp_path / "a", problems=[*PROBLEMS, PROBLEMS[3]])
    assert not (tmp_path / "a").exists()
