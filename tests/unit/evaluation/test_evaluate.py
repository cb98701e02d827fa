"""Evaluation of the tiny model: counts, several samples per prompt, files."""

import json

import pytest

from t3d.data.prompts import Problem
from t3d.decoding.params import DecodeParams
from t3d.errors import InputError
from t3d.evaluation.evaluate import evaluate, write_results
from t3d.models.loading import load_model


class LengthTask:
    """Right if the response has an even number of characters; knows its problems."""

    name = "length"

    def problems(self, split, limit, seed):
        return [Problem(id=str(index), question=f"how many {index}") for index in range(limit)]

    def check(self, problem):
        assert problem.question

    def grade(self, problem, response):
        return len(response) % 2 == 0


@pytest.fixture(scope="module")
def loaded(checkpoint):
    return load_model(checkpoint, device="cpu", dtype="float64")


def test_accuracy_is_the_share_of_right_samples_and_interval_holds_it(loaded):
    task = LengthTask()
    result = evaluate(loaded, task, task.problems("", 12, 0), DecodeParams(max_new_tokens=6, temperature=1.0))
    summary = result.summary()
    assert result.num_correct == sum(len(sample.response) % 2 == 0 for sample in result.samples)
    assert summary["accuracy"] == pytest.approx(100 * result.num_correct / 12)
    assert summary["ci95"][0] <= summary["accuracy"] <= summary["ci95"][1]
    assert [sample.id for sample in result.samples] == [str(index) for index in range(12)]


def test_samples_of_one_prompt_differ_when_sampled_and_agree_when_greedy(loaded):
    task = LengthTask()
    problems = task.problems("", 3, 0)
    counts = {}
    for temperature in (0.0, 1.0):
        params = DecodeParams(max_new_tokens=6, temperature=temperature)
        result = evaluate(loaded, task, problems, params, samples_per_prompt=4)
        assert result.num_samples == 12
        counts[temperature] = result.distinct_answers_per_prompt
    assert counts[0.0] == 1.0
    assert 1.0 < counts[1.0] <= 4.0


def test_results_hold_config_versions_and_every_sample(loaded, tmp_path):
    task = LengthTask()
    results = [evaluate(loaded, task, task.problems("", 4, 0), DecodeParams(max_new_tokens=4))]
    write_results(tmp_path, results, {"seed": 7})
    report = json.loads((tmp_path / "results.json").read_text())
    assert report["config"] == {"seed": 7}
    assert "torch" in report["versions"]
    assert report["results"][0]["decode_params"]["max_new_tokens"] == 4
    assert len((tmp_path / "samples.jsonl").read_text().splitlines()) == 4


def test_no_problem_is_an_error(loaded):
    with pytest.raises(InputError, match="limit"):
        evaluate(loaded, LengthTask(), [], DecodeParams())
